"""A whole model in evaluation, as ``benchmarks.run`` measures it: images in, results out, and where
the time goes between.

The model is the real one and so are its calls: hooks on its modules note when each ends. Two things
that no image decides are prepared. The embeddings of the words are random unit vectors, from a text
tower that takes no time: they are made once per vocabulary (the part ``text`` measures that). And
untrained weights find nothing but noise, on which post-processing is slower than on any photograph:
after a stage has been computed, made-up masks and logits of the same sizes take the place of its
own.
"""

import copy
import dataclasses
import importlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from benchmarks.measure import FlopCounter, Measurement, wait
from benchmarks.workload import (
    OURS,
    Bench,
    Row,
    Workload,
    blobs,
    mask_logits,
    random_image,
    register_classes,
    times,
)
from maskclippp.clip.model_names import embedding_width
from maskclippp.clip.text_tower import TextTower
from maskclippp.data.mappers.transforms import shortest_edge_size
from maskclippp.engine.evaluate import weights_in_test_precision
from maskclippp.generators import ImageMasks, MaskGenerator
from maskclippp.generators.mask2former.segmentor import MaskTransformerSegmentor
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.registry import TEXT_ENCODER_REGISTRY

# Of a model whose generator decodes feature maps, in their order.
STAGES = (
    *("generator backbone", "pixel decoder", "decoder and its classes"),
    *("CLIP", "alignment", "post-processing"),
)


@TEXT_ENCODER_REGISTRY.register()
class RandomTextEncoder(TextTower):
    """Embeds every sentence as a random vector of the width of MODEL_NAME, at once."""

    def __init__(self, node: CfgNode) -> None:
        super().__init__()
        self.width = embedding_width(node.MODEL_NAME)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)), requires_grad=False)

    @property
    def architecture(self) -> str:
        """See :class:`TextTower`."""
        return f"{type(self).__name__} of width {self.width}"

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """See :class:`TextTower`."""
        return torch.zeros(len(sentences), 1, dtype=torch.int64)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """See :class:`TextTower`."""
        return torch.randn(len(tokens), self.width, device=tokens.device)


def without_text_towers(cfg: CfgNode) -> CfgNode:
    """The config with text towers that take no time, in place of those that it names."""
    cfg = cfg.clone()
    node = cfg.MODEL.MASKCLIPPP
    for tower in (node.TEXT_ENCODER, node.TEXT_ENCODER_F):
        tower.NAME = RandomTextEncoder.__name__ if tower.NAME != "none" else "none"
    node.TEXT_CACHE = False
    return cfg


class StageTimer:
    """Splits the calls of a model into stages, each of which ends when a module has finished.

    Args:
        model: whose calls are split.
        ends: the module that finishes a stage, by the name of the stage.
        last: the name of what remains until the call ends.
        device: is waited for when a stage ends.
        clock: seconds.

    Attributes:
        calls: seconds by stage, of every call so far.
    """

    def __init__(
        self,
        model: nn.Module,
        ends: Mapping[str, nn.Module],
        last: str,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.calls: list[dict[str, float]] = []
        self._stages = (*ends, last)
        self._device = device
        self._clock = clock
        self._time = 0.0
        model.register_forward_pre_hook(self._begin)
        for name, module in {**ends, last: model}.items():
            module.register_forward_hook(lambda *_, stage=name: self._end(stage))

    def _begin(self, *_: Any) -> None:
        self.calls.append(dict.fromkeys(self._stages, 0.0))
        self._time = self._now()

    def _end(self, stage: str) -> None:
        now = self._now()
        self.calls[-1][stage] += now - self._time
        self._time = now

    def _now(self) -> float:
        wait(self._device)
        return self._clock()


@dataclass(frozen=True)
class _Run:
    """What a model returned, with the findings that others took the place of.

    Attributes:
        labels: semantic labels [H, W] per image.
        findings: tensors by name.
        limit: by how much findings may differ from ours, relative to their length.
    """

    labels: list[Tensor]
    findings: dict[tuple[Any, ...], Tensor]
    limit: float = 0.01


def inference(bench: Bench, cfg: CfgNode, variants: Sequence[str] = ()) -> Iterator[Row]:
    """Images to results: all of it, and stage by stage.

    Args:
        bench: also compares with the published way of a whole model.
        cfg: a complete config.
        variants: bfloat16 also measures the model in this type.
    """
    work = bench.work
    cfg, model = whole_model(bench, cfg)
    generator, words = model.mask_generator, model.requested_words.vocabulary
    generator.set_vocabulary(words)  # all copies know the same words
    model.text_classifier.embed_frozen(words.synonyms)
    records = [made_up_record(cfg, work) for _ in range(work.batch_size)]
    findings = MadeUpFindings()

    def evaluated(network: MaskCLIPpp, limit: float = 0.01) -> _Run:
        labels = [result.get("sem_seg_labels", torch.empty(0)) for result in network(records)]
        return _Run(labels, dict(findings.real), limit)

    others: dict[str, Callable[[], _Run]] = {}
    plain = None if bench.plain is None else _the_published_way(model, records, findings)
    with ExitStack() as stack:
        if "bfloat16" in variants:
            half = _copy(model)
            half.inference = dataclasses.replace(model.inference, dtype="bfloat16")
            stack.enter_context(weights_in_test_precision(half))
            findings.replace_in(half)
            # In a network of random weights, rounding decides what masks attend to.
            others["bfloat16"] = lambda: evaluated(half, limit=math.inf)
        stack.enter_context(weights_in_test_precision(model))
        ends = stage_ends(model, generator)
        timer = StageTimer(model, ends, STAGES[-1], bench.device, bench.clock)
        findings.replace_in(model)
        runs = bench.compare(lambda: evaluated(model), plain, _runs_agree, **others)
    run = runs[OURS]
    details = {"input_size": list(records[0]["image"].shape[-2:]), "masks": findings.num_masks}
    if bench.device.type == "cuda":  # where one more call takes no time
        calls = list(timer.calls)
        with FlopCounter() as counter:
            model(records)
        timer.calls = calls
        details["tflop"] = counter.total / 1e12
    yield Row(
        "inference",
        f"{_what(model, records)}, {findings.num_masks} masks, {work.classes} classes",
        work.batch_size,
        "images",
        runs,
        details,
    )
    timed = timer.calls[-len(run.seconds) :]
    for stage in timed[0]:
        seconds = tuple(call[stage] for call in timed)
        if not any(seconds):
            continue  # a part that this config does not use
        share = {"share": sum(seconds) / sum(run.seconds)}
        split = Measurement(seconds, None, None)
        yield Row("inference", stage, work.batch_size, "images", {OURS: split}, share)


def whole_model(bench: Bench, cfg: CfgNode) -> tuple[CfgNode, MaskCLIPpp]:
    """A model with its generator, whose text towers take no time, and its config."""
    cfg = without_text_towers(cfg)
    cfg.MODEL.MASKCLIPPP.TEST.DTYPE = str(bench.work.dtype).removeprefix("torch.")
    # A generator of a closed vocabulary knows as many classes as the set that it was trained on.
    cfg.DATASETS.TRAIN = (register_classes(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),)
    return cfg, MaskCLIPpp(cfg).to(bench.device).eval()


def _the_published_way(
    model: MaskCLIPpp, records: Sequence[dict[str, Any]], findings: "MadeUpFindings"
) -> Callable[[], _Run]:
    """A copy of the model in :mod:`benchmarks.plain.whole`."""
    whole = importlib.import_module("benchmarks.plain.whole")
    copied = _copy(model)

    def run() -> _Run:
        results = whole.results(copied, records, findings.replace)
        return _Run([labels for labels, *_ in results], dict(findings.real))

    return run


def _copy(model: MaskCLIPpp) -> MaskCLIPpp:
    """With a generator of its own."""
    copied, generator = copy.deepcopy(model), copy.deepcopy(model.mask_generator)
    copied._get_generator = lambda: generator
    copied.text_classifier = model.text_classifier  # whose embeddings are random
    return copied


def _runs_agree(ours: _Run, other: _Run) -> None:
    for one, theirs in zip(ours.labels, other.labels, strict=True):
        share = (one != theirs).float().mean().item()
        if share > 1e-4:  # the best two scores may be equal up to rounding
            raise AssertionError(f"{share:.3%} of the labels differ")
    for key, theirs in other.findings.items():
        difference = ((ours.findings[key] - theirs).norm() / theirs.norm()).item()
        if not difference <= other.limit:
            raise AssertionError(f"{key[0]} differ by {difference:.2%}")


def _what(model: MaskCLIPpp, records: Sequence[dict[str, Any]]) -> str:
    """Sizes and kinds of results, for the reader."""
    first, asked = records[0], model.inference
    kinds = {
        "semantic": asked.semantic_on,
        "panoptic": asked.panoptic_on,
        "instances": asked.instance_on,
    }
    results = " + ".join(kind for kind, wanted in kinds.items() if wanted)
    images = f"{len(records)} x {times(first['image'].shape[-2:])}"
    return f"{images} to {results} of {first['height']} x {first['width']}"


def stage_ends(model: MaskCLIPpp, generator: MaskGenerator) -> dict[str, nn.Module]:
    """The modules of a model that finish its stages but the last, by name and in their order.

    A generator that decodes no feature maps is one stage, ``generator``.
    """
    backbone, pixel_decoder, decoder, clip, alignment, _ = STAGES
    ends: dict[str, nn.Module]
    if isinstance(generator, MaskTransformerSegmentor):
        ends = {
            backbone: generator.encoder,
            pixel_decoder: generator.pixel_decoder,
            decoder: generator,
        }
    else:
        ends = {"generator": generator}
    return ends | {clip: model.visual_encoder, alignment: model.psm}


_MAKE: dict[str, Callable[..., Tensor]] = {
    "masks": lambda count, *size: blobs(count, size),
    "logits": lambda count, columns: mask_logits(count, columns - 1),
    "similarities": lambda count, columns: mask_logits(count, columns)[:, :-1],
}


class MadeUpFindings:
    """Masks and logits as trained weights would find them.

    Masks are connected and have soft borders. Half of them are void for the generator, and every
    one has one name that fits. They are made in the first call, which is not timed.

    Attributes:
        real: what was found in the last call.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Tensor] = {}
        self.real: dict[tuple[Any, ...], Tensor] = {}

    def replace_in(self, model: MaskCLIPpp) -> None:
        """Take the place of what a trained generator and the alignment find from now on."""
        if isinstance(model.mask_generator, MaskTransformerSegmentor):
            model.mask_generator.register_forward_hook(self._replace_masks)
        model.psm.register_forward_hook(lambda _, __, found: self.replace(("similarities",), found))

    def replace(self, key: tuple[Any, ...], found: Tensor) -> Tensor:
        """What was made for tensors of this name and shape, in place of what was found."""
        full_key = (*key, found.shape)
        if full_key not in self._made:
            self._made[full_key] = _MAKE[key[0]](*found.shape).to(found)
        self.real[key] = found
        return self._made[full_key]

    @property
    def num_masks(self) -> int:
        """Of the last call; 0 if masks are not classified."""
        return len(self.real.get(("similarities",), ()))

    def _replace_masks(self, _: nn.Module, __: Any, found: list[ImageMasks]) -> list[ImageMasks]:
        return [self._replaced(index, image) for index, image in enumerate(found)]

    def _replaced(self, index: int, found: ImageMasks) -> ImageMasks:
        logits = found.logits
        masks = self.replace(("masks", index), found.masks.values)
        if logits is not None:
            logits = self.replace(("logits", index), logits)
        return dataclasses.replace(found, masks=SoftMasks(masks, found.masks.frame), logits=logits)


def made_up_record(cfg: CfgNode, work: Workload) -> dict[str, Any]:
    """An image as the test loader gives it, with annotations for generators that return them."""
    size, limits = work.image_size, (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    stripe = (torch.arange(size[1]) * work.masks // size[1]).expand(size)
    return {
        "image": patches_of_color(shortest_edge_size(*size, *limits)),
        "height": size[0],
        "width": size[1],
        "sem_seg": stripe % work.classes,
        "pan_seg": stripe + 1,
        "segments_info": [{"id": number + 1} for number in stripe.unique().tolist()],
    }


def patches_of_color(size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W]; noise has no regions, for generators that look for them."""
    return F.interpolate(random_image((10, 15))[None], size=size, mode="nearest")[0]

"""A whole model in evaluation, as ``benchmarks.run`` measures it: images in, results out, and where
the time goes between.

The model is the real one and so are its calls: hooks on its modules note when each ends. Two things
that no image decides are prepared. The embeddings of the words are random unit vectors, from a text
tower that takes no time: they are made once per vocabulary (the part ``text`` measures that). And
untrained weights find nothing but noise, on which post-processing is slower than on any photograph:
after a stage has been computed, made-up masks and logits of the same sizes take the place of its
own.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from maskclippp.clip.half_weights import converted_weights
from maskclippp.clip.model_names import embedding_width
from maskclippp.clip.text_tower import TextTower
from maskclippp.data.mappers.transforms import shortest_edge_size
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

    Attributes:
        calls: seconds by stage, of every call so far.
    """

    def __init__(
        self, model: nn.Module, ends: Mapping[str, nn.Module], last: str, device: torch.device
    ) -> None:
        self.calls: list[dict[str, float]] = []
        self._stages = (*ends, last)
        self._device = device
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
        return time.perf_counter()


def inference(bench: Bench, cfg: CfgNode) -> Iterator[Row]:
    """Images to results: all of it, and stage by stage."""
    work = bench.work
    cfg, model = whole_model(bench, cfg)
    ends = stage_ends(model, model.mask_generator)
    timer = StageTimer(model, ends, STAGES[-1], bench.device)
    findings = MadeUpFindings()
    findings.replace_in(model)
    records = [made_up_record(cfg, work) for _ in range(work.batch_size)]
    with converted_weights([model, model.mask_generator], work.dtype):  # as in evaluation
        run = bench.compare(lambda: model(records))[OURS]
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
        {OURS: run},
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


class MadeUpFindings:
    """Masks and logits as trained weights would find them.

    Masks are connected and have soft borders. Half of them are void for the generator, and every
    one has one name that fits. They are made in the first call, which is not timed.
    """

    def __init__(self) -> None:
        self._made: dict[Any, Tensor] = {}
        self.num_masks = 0

    def replace_in(self, model: MaskCLIPpp) -> None:
        """Take the place of what a trained generator and the alignment find from now on."""
        if isinstance(model.mask_generator, MaskTransformerSegmentor):
            model.mask_generator.register_forward_hook(self._replace_masks)
        model.psm.register_forward_hook(self._replace_similarities)

    def _replace_masks(self, _: nn.Module, __: Any, found: list[ImageMasks]) -> list[ImageMasks]:
        return [self._replaced(index, image) for index, image in enumerate(found)]

    def _replaced(self, index: int, found: ImageMasks) -> ImageMasks:
        values, logits = found.masks.values, found.logits
        masks = self._keep(("masks", index), values, lambda shape: blobs(shape[0], shape[1:]))
        if logits is not None:
            logits = self._keep(
                ("logits", index), logits, lambda shape: mask_logits(shape[0], shape[1] - 1)
            )
        return dataclasses.replace(found, masks=SoftMasks(masks, found.masks.frame), logits=logits)

    def _replace_similarities(self, _: nn.Module, __: Any, found: Tensor) -> Tensor:
        self.num_masks = len(found)
        return self._keep("similarities", found, lambda shape: mask_logits(*shape)[:, :-1])

    def _keep(self, key: Any, found: Tensor, make: Callable[..., Tensor]) -> Tensor:
        """What was made for tensors of this shape."""
        full_key = (key, found.shape)
        if full_key not in self._made:
            self._made[full_key] = make(tuple(found.shape)).to(found)
        return self._made[full_key]


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

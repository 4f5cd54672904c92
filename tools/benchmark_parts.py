"""The parts that ``benchmark.py`` measures: what is run, on which inputs, compared with what."""

import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from measure import Measurement, measure
from torch import Tensor
from torch.testing import assert_close

from maskclippp import postprocess
from maskclippp.class_logits import max_over_synonyms
from maskclippp.data.vocabularies import load_class_list
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.text_classifier import TextClassifier
from maskclippp.vocabulary import Vocabulary

OURS, PLAIN = "ours", "plain"


@dataclass(frozen=True)
class Workload:
    """Sizes and settings that all parts share.

    Attributes:
        classes: number of classes, two names each.
        image_size: height and width of the images.
        batch_size: images per batch of encoder and training.
        masks: generated masks per image.
        mask_stride: image pixels per pixel of a generated mask.
        train_masks: annotated masks per image.
        dtype: of autocast in encoder and training; float32 is none.
        repeats: timed runs.
    """

    classes: int = 847
    image_size: tuple[int, int] = (1024, 1536)
    batch_size: int = 1
    masks: int = 100
    mask_stride: int = 4
    train_masks: int = 16
    dtype: torch.dtype = torch.float32
    repeats: int = 3


@dataclass(frozen=True)
class Row:
    """One line of the table: what was done, how many of what per run, and the measurements."""

    part: str
    what: str
    items: int
    unit: str
    runs: dict[str, Measurement]


class Benchmark:
    """Measures the parts of one model.

    Args:
        model: with random weights.
        workload: sizes.
        plain: the module with the straightforward formulation, to compare with; None: do not.
    """

    def __init__(self, model: MaskCLIPpp, workload: Workload, plain: ModuleType | None) -> None:
        self.model = model
        self.work = workload
        self.plain = plain
        self.parts: dict[str, Callable[[], Iterator[Row]]] = {
            "text": self.text,
            "encoder": self.encoder,
            "postprocess": self.postprocess,
            "train": self.train,
        }

    def _measure(
        self,
        ours: Callable[[], Any],
        plain: Callable[[], Any] | None = None,
        agree: Callable[[Any, Any], None] = assert_close,
        **others: Callable[[], Any],
    ) -> dict[str, Measurement]:
        """Our function, others of ours, and the plain one if comparison is asked for."""
        functions = {OURS: ours, **others}
        if plain is not None and self.plain is not None:
            functions[PLAIN] = plain

        def check(results: dict[str, Any]) -> None:
            for name, result in results.items():
                if name != OURS:
                    agree(results[OURS], result)

        return measure(functions, self.work.repeats, self.model.device, check)

    # ------------------------------------------------------------------ parts

    def text(self) -> Iterator[Row]:
        """The text classifier of all classes, computed, read from the cache, and plain."""
        tower, templates = self.model.text_encoder.eval(), self.model.text_classifier.templates
        chunk_size = self.model.text_classifier.chunk_size
        names = [synonyms[0] for synonyms in make_vocabulary(self.work.classes).classes]

        def embed(cache: bool) -> Tensor:
            # Made anew, as at the start of a program: it has no tokens in memory.
            made = TextClassifier(tower, templates, chunk_size=chunk_size, cache=cache)
            return made.embed_frozen(names)

        @torch.no_grad()
        def plain() -> Tensor:
            assert self.plain is not None
            embeddings: Tensor = self.plain.text_embeddings(tower, templates, names, chunk_size)
            return embeddings

        with _own_cache():
            yield Row(
                "text",
                f"{len(names)} names x {len(templates)} templates",
                len(names) * len(templates),
                "sentences",
                self._measure(
                    lambda: embed(cache=False),
                    plain,
                    _embeddings_agree,
                    cached=lambda: embed(cache=True),
                ),
            )

    def encoder(self) -> Iterator[Row]:
        """Mask embeddings of a batch."""
        encoder = self.model.visual_encoder.eval()
        images = [random_image(self.work.image_size) for _ in range(self.work.batch_size)]
        masks = [self._generated_masks() for _ in images]

        @torch.no_grad()
        def encode() -> Any:
            with self._autocast():
                return encoder(images, masks)

        what = f"{len(images)} x {_times(self.work.image_size)}, {self.work.masks} masks"
        yield Row("encoder", what, len(images), "images", self._measure(encode))

    def postprocess(self) -> Iterator[Row]:
        """From the logits per name to every kind of result, for one image."""
        work, device = self.work, self.model.device
        vocabulary = make_vocabulary(work.classes)
        masks = self._generated_masks()
        name_logits = mask_logits(work.masks, vocabulary).to(device)
        class_of_synonym = vocabulary.class_of_synonym.to(device)
        logits = max_over_synonyms(name_logits, class_of_synonym, work.classes)
        things = frozenset(range(0, work.classes, 2))
        panoptic = postprocess.PanopticSettings(0.0, 0.8, things)
        instance = postprocess.InstanceSettings(100)
        arguments = (masks, logits, work.classes, work.image_size)
        plain: Any = self.plain
        classes, pixels = f"{work.classes} classes", _times(work.image_size)
        # Without loops, but still with a score map of every class at the output size.
        vectorised = {"vectorised": lambda: plain.semantic_labels_vectorised(*arguments)}

        @torch.no_grad()
        def row(
            what: str, ours: Any, plainly: Any, agree: Any = assert_close, **others: Any
        ) -> Row:
            runs = self._measure(ours, plainly, agree, **others)
            return Row("postprocess", what, 1, "images", runs)

        yield row(
            f"class logits, {classes}",
            lambda: max_over_synonyms(name_logits, class_of_synonym, work.classes),
            lambda: plain.class_logits(name_logits, vocabulary),
        )
        yield row(
            f"semantic, {classes}, {pixels}",
            lambda: postprocess.semantic_labels(*arguments),
            lambda: plain.semantic_labels(*arguments),
            _maps_agree,
            **(vectorised if plain else {}),
        )
        yield row(
            f"panoptic, {work.masks} masks, {pixels}",
            lambda: postprocess.panoptic_segmentation(*arguments, panoptic),
            lambda: plain.panoptic_segmentation(*arguments, 0.0, 0.8, things),
            _panoptic_agrees,
        )
        yield row(
            f"instances, {work.masks} masks, {pixels}",
            lambda: postprocess.instance_segmentation(*arguments, instance),
            lambda: plain.instance_segmentation(*arguments, instance.max_instances),
            _instances_agree,
        )

    def train(self) -> Iterator[Row]:
        """Forward and backward pass of a batch with annotated masks."""
        model, work = self.model.train(), self.work
        vocabulary = model.train_vocabulary
        assert vocabulary is not None
        records = [self._train_record() for _ in range(work.batch_size)]
        if not model.text_is_trained:
            model.text_classifier.cache = False
            model._sample_train_text(vocabulary)  # once for the whole training: not timed

        def step(loss_of_batch: Callable[[], Tensor]) -> Tensor:
            random.seed(0)  # the same synonyms in every step
            with self._autocast():
                loss = loss_of_batch()
            loss.backward()
            model.zero_grad(set_to_none=True)
            return loss.detach()

        def plainly() -> Tensor:
            assert self.plain is not None
            if model.text_is_trained:
                names = [vocabulary.synonyms[index] for index in vocabulary.sample_synonyms()]
                classifier = model.text_classifier
                text = self.plain.text_embeddings(model.text_encoder, classifier.templates, names)
            else:
                text = model._sample_train_text(vocabulary)
            loss: Tensor = self.plain.training_loss(model, records, text)
            return loss

        what = f"{work.batch_size} x {_times(work.image_size)}, {work.train_masks} masks"
        runs = self._measure(
            lambda: step(lambda: model(records)["loss_ce"]),
            lambda: step(plainly),
            self._losses_agree,
        )
        yield Row("train", what, work.batch_size, "images", runs)

    # ----------------------------------------------------------------- inputs

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        enabled = self.work.dtype != torch.float32
        return torch.autocast(self.model.device.type, dtype=self.work.dtype, enabled=enabled)

    def _generated_masks(self) -> Tensor:
        height, width = self.work.image_size
        stride = self.work.mask_stride
        size = max(1, height // stride), max(1, width // stride)
        return blobs(self.work.masks, size).to(self.model.device)

    def _train_record(self) -> dict[str, Any]:
        size, count = self.work.image_size, self.work.train_masks
        instances = Instances(size)
        instances.gt_classes = torch.arange(count) % self.work.classes
        stripe = torch.arange(size[1]) * count // size[1]
        instances.gt_masks = (stripe == torch.arange(count)[:, None, None]).expand(-1, *size)
        return {"image": random_image(size), "instances": instances}

    def _losses_agree(self, ours: Tensor, plain: Tensor) -> None:
        tolerance = 1e-3 if self.work.dtype == torch.float32 else 5e-2
        assert_close(ours.float(), plain.float(), rtol=tolerance, atol=tolerance)


def make_vocabulary(num_classes: int) -> Vocabulary:
    """Two names per class: nouns of COCO's classes, alone and, when used up, with adjectives."""
    nouns = [entry.synonyms[0] for entry in load_class_list("coco_panoptic")]
    adjectives = ["", "wooden ", "metal ", "painted ", "broken ", "modern ", "antique "]
    names = [
        adjectives[index // len(nouns) % len(adjectives)] + nouns[index % len(nouns)]
        for index in range(num_classes)
    ]
    return Vocabulary(tuple((name, f"kind of {name}") for name in names))


def random_image(size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] noise."""
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8)


def blobs(count: int, size: tuple[int, int]) -> Tensor:
    """[count, h, w] probabilities of ellipses with soft, uneven borders, 2 to 25 % of a side."""
    height, width = size
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    centre, radius = torch.rand(2, count, 1, 1), 0.02 + 0.23 * torch.rand(2, count, 1, 1)
    distance = (((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2).sqrt()
    uneven = F.interpolate(torch.randn(1, count, 16, 24), size=size, mode="bilinear")[0]
    return ((1 - distance) * 8 + uneven).sigmoid()


def mask_logits(count: int, vocabulary: Vocabulary) -> Tensor:
    """[count, Ka + 1]: every mask prefers one name; for about half of them void is likelier."""
    num_names = len(vocabulary.synonyms)
    logits = torch.randn(count, num_names + 1)
    logits[torch.arange(count), torch.randint(num_names, (count,))] += 9
    logits[:, -1] += torch.where(torch.rand(count) < 0.5, 12.0, 2.0)
    return logits


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """A fresh $MASKCLIPPP_CACHE, so that nothing of the user is read or left behind."""
    before = os.environ.get("MASKCLIPPP_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MASKCLIPPP_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["MASKCLIPPP_CACHE"]
            if before is not None:
                os.environ["MASKCLIPPP_CACHE"] = before


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


# --------------------------------------------------- when are two results equal


def _embeddings_agree(ours: Tensor, other: Tensor) -> None:
    assert_close(ours, other, rtol=1e-3, atol=1e-4)


def _maps_agree(ours: Tensor, plain: Tensor) -> None:
    """Pixels whose best two scores are equal up to rounding may differ."""
    share = (ours != plain).float().mean().item()
    if share > 1e-4:
        raise AssertionError(f"{share:.3%} of the pixels differ")


def _panoptic_agrees(ours: Any, plain: Any) -> None:
    _maps_agree(ours[0], plain[0])
    if ours[1] != plain[1]:
        raise AssertionError("the segments differ")


def _instances_agree(ours: Instances, plain: list[dict[str, Any]]) -> None:
    assert_close(ours.scores.cpu(), torch.tensor([one["score"] for one in plain]))
    if ours.pred_classes.tolist() != [one["class"] for one in plain]:
        raise AssertionError("the classes of the instances differ")
    for mask, one in zip(ours.pred_masks, plain, strict=True):
        _maps_agree(mask, one["mask"])

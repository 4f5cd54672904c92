"""What the parts of ``benchmarks.run`` share: sizes, made-up inputs, and comparison with others."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor
from torch.testing import assert_close

from benchmarks.measure import Measurement, measure
from maskclippp.words import load_class_list
from maskclippp.words.vocabulary import Vocabulary

OURS, PLAIN = "ours", "plain"


@dataclass(frozen=True)
class Workload:
    """Sizes and settings that all parts share.

    Attributes:
        classes: number of classes, two names each.
        image_size: height and width of the images.
        batch_size: images per batch of encoder and training.
        masks: generated masks per image.
        grid: cells of the feature grid on which mask tokens alone are measured.
        mask_stride: image pixels per pixel of a generated mask.
        generator_size: height and width of the images that decoders of generators are measured on.
        train_masks: annotated masks per image.
        dtype: of autocast in encoder and training; float32 is none.
        repeats: timed runs.
    """

    classes: int = 847
    image_size: tuple[int, int] = (1024, 1536)
    batch_size: int = 1
    masks: int = 100
    grid: tuple[int, int] = (28, 42)
    mask_stride: int = 4
    generator_size: tuple[int, int] = (800, 1216)
    train_masks: int = 16
    dtype: torch.dtype = torch.float32
    repeats: int = 3


@dataclass(frozen=True)
class Row:
    """One line of the table: what was done, how many of what per run, and the measurements.

    Attributes:
        details: more to know about what was measured, for the report.
    """

    part: str
    what: str
    items: int
    unit: str
    runs: dict[str, Measurement]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Measures functions of one workload.

    Attributes:
        work: sizes.
        device: where it happens.
        plain: the module with the straightforward formulation, to compare with; None: do not.
        clock: see :func:`measure`.
    """

    work: Workload
    device: torch.device
    plain: ModuleType | None = None
    clock: Callable[[], float] = time.perf_counter

    def compare(
        self,
        ours: Callable[[], Any],
        plain: Callable[[], Any] | None = None,
        agree: Callable[[Any, Any], None] = assert_close,
        **others: Callable[[], Any],
    ) -> dict[str, Measurement]:
        """Our function, others, and the plain one if comparison is asked for.

        Args:
            agree: raises AssertionError when our result and that of another function differ.
        """
        functions = {OURS: ours, **others}
        if plain is not None and self.plain is not None:
            functions[PLAIN] = plain

        def check(results: dict[str, Any]) -> None:
            for name, result in results.items():
                if name != OURS:
                    agree(results[OURS], result)

        return measure(functions, self.work.repeats, self.device, check, self.clock)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """As the workload's dtype asks for."""
        return autocast(self.device, self.work.dtype)

    def generated_masks(self) -> Tensor:
        """[Q, h, w] as a generator makes them for one image."""
        height, width = self.work.image_size
        stride = self.work.mask_stride
        size = max(1, height // stride), max(1, width // stride)
        return blobs(self.work.masks, size).to(self.device)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Compute in ``dtype``; float32 is no autocast."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def make_vocabulary(num_classes: int) -> Vocabulary:
    """Two names per class: nouns of COCO's classes, alone and, when used up, with adjectives."""
    nouns = [synonyms[0] for synonyms in load_class_list("coco_panoptic").classes]
    adjectives = ["", "wooden ", "metal ", "painted ", "broken ", "modern ", "antique "]
    names = [
        adjectives[index // len(nouns) % len(adjectives)] + nouns[index % len(nouns)]
        for index in range(num_classes)
    ]
    return Vocabulary(tuple((name, f"kind of {name}") for name in names))


def name_random_weights(cfg: CfgNode) -> None:
    """Let every part of a config start from random weights, so that none is fetched or read."""
    node = cfg.MODEL.MASKCLIPPP
    for tower in ("VISUAL_ENCODER", "TEXT_ENCODER", "VISUAL_ENCODER_F", "TEXT_ENCODER_F"):
        node[tower].PRETRAINED, node[tower].LOAD_FROM = "random", ""
    node.SEGMENTOR.PRETRAINED = "random"


def register_classes(num_classes: int) -> str:
    """The name of a dataset that has such words, half of them things, and no images."""
    name = f"benchmark_{num_classes}_classes"
    classes = make_vocabulary(num_classes).classes
    MetadataCatalog.get(name).set(
        stuff_classes=[", ".join(names) for names in classes],
        thing_dataset_id_to_contiguous_id={index: index for index in range(0, num_classes, 2)},
    )
    return name


def random_image(size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] noise."""
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8)


def blobs(count: int, size: tuple[int, int]) -> Tensor:
    """[count, h, w] probabilities of ellipses with soft, uneven borders, 2 to 25 % of a side."""
    height, width = size
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    center, radius = torch.rand(2, count, 1, 1), 0.02 + 0.23 * torch.rand(2, count, 1, 1)
    distance = (((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2).sqrt()
    uneven = F.interpolate(torch.randn(1, count, 16, 24), size=size, mode="bilinear")[0]
    # As with trained generators, probabilities below 1e-30 are rare; the smallest floats, denormal
    # numbers, would take a CPU most of its time.
    return ((1 - distance) * 8 + uneven).clamp(min=-60).sigmoid()


def mask_logits(count: int, num_names: int) -> Tensor:
    """[count, names + 1]: every mask prefers one name; for about half of them void is likelier."""
    logits = torch.randn(count, num_names + 1)
    logits[torch.arange(count), torch.randint(num_names, (count,))] += 9
    logits[:, -1] += torch.where(torch.rand(count) < 0.5, 12.0, 2.0)
    return logits


def times(size: Sequence[int]) -> str:
    """Sizes for the reader: ``512 x 768``."""
    return " x ".join(map(str, size))


def embeddings_agree(ours: Tensor, other: Tensor) -> None:
    """Up to the rounding of float32."""
    assert_close(ours, other, rtol=1e-3, atol=1e-4)

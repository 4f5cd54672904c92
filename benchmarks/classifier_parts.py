"""Text classifier and post-processing, as ``benchmarks.run`` measures them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain.resize_once import ResizedOnce
from benchmarks.workload import (
    Bench,
    Row,
    embeddings_agree,
    make_vocabulary,
    mask_logits,
    times,
)
from maskclippp.inference import postprocess as processing
from maskclippp.inference.class_logits import max_over_synonyms
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.words.text_classifier import TextClassifier


def text(bench: Bench, model: MaskCLIPpp) -> Iterator[Row]:
    """The text classifier of all classes, computed, read from the cache, and plain."""
    tower, templates = model.text_encoder.eval(), model.text_classifier.templates
    chunk_size = model.text_classifier.chunk_size
    names = [synonyms[0] for synonyms in make_vocabulary(bench.work.classes).classes]

    def embed(cache: bool) -> Tensor:
        # Made anew, as at the start of a program: it has no tokens in memory.
        made = TextClassifier(tower, templates, chunk_size=chunk_size, cache=cache)
        return made.embed_frozen(names)

    @torch.no_grad()
    def plain() -> Tensor:
        assert bench.plain is not None
        embeddings: Tensor = bench.plain.text_embeddings(tower, templates, names, chunk_size)
        return embeddings

    with _own_cache():
        yield Row(
            "text",
            f"{len(names)} names x {len(templates)} templates",
            len(names) * len(templates),
            "sentences",
            bench.compare(
                lambda: embed(cache=False),
                plain,
                embeddings_agree,
                cached=lambda: embed(cache=True),
            ),
        )


def postprocess(bench: Bench) -> Iterator[Row]:
    """From the logits per name to every kind of result, for one image.

    The masks are compared with resizing all of them once (:mod:`benchmarks.plain.resize_once`).
    """
    work, device = bench.work, bench.device
    vocabulary = make_vocabulary(work.classes)
    masks = bench.generated_masks()
    name_logits = mask_logits(work.masks, len(vocabulary.synonyms)).to(device)
    class_of_synonym = vocabulary.class_of_synonym.to(device)
    logits = max_over_synonyms(name_logits, class_of_synonym, work.classes)
    things = frozenset(range(0, work.classes, 2))
    settings = InferenceSettings(panoptic_on=True, instance_on=True, overlap_threshold=0.8)
    size, pixels = work.image_size, f"{work.masks} masks, {times(work.image_size)}"
    found = processing.ClassifiedMasks(SoftMasks(masks), logits, work.classes)

    def resized() -> ResizedOnce:
        return ResizedOnce(masks, logits, size, settings)

    def all_resized() -> tuple[Any, ...]:
        once = resized()
        return (
            once.semantic_labels(),
            once.panoptic_segmentation(things),
            once.instance_segmentation(),
        )

    @torch.no_grad()
    def row(what: str, ours: Any, plainly: Any, agree: Any = assert_close) -> Row:
        return Row("postprocess", what, 1, "images", bench.compare(ours, plainly, agree))

    yield row(
        f"class logits, {work.classes} classes",
        lambda: max_over_synonyms(name_logits, class_of_synonym, work.classes),
        lambda: bench.plain and bench.plain.class_logits(name_logits, vocabulary),
    )
    yield row(
        f"semantic, {work.classes} classes, {pixels}",
        lambda: processing.semantic_labels(found, size),
        lambda: resized().semantic_labels(),
        _maps_agree,
    )
    yield row(
        f"panoptic, {pixels}",
        lambda: processing.panoptic_segmentation(found, size, things, settings),
        lambda: resized().panoptic_segmentation(things),
        _panoptic_agrees,
    )
    yield row(
        f"instances, {pixels}",
        lambda: processing.instance_segmentation(found, size, None, settings),
        lambda: resized().instance_segmentation(),
        _instances_agree,
    )
    yield row(
        f"semantic + panoptic + instances, {pixels}",
        lambda: processing.image_results(found, size, things, settings),
        all_resized,
        lambda ours, other: _maps_agree(ours["sem_seg_labels"], other[0]),
    )


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


# --------------------------------------------------- when are two results equal


def _maps_agree(ours: Tensor, plain: Tensor) -> None:
    """Pixels whose best two scores are equal up to rounding may differ."""
    share = (ours.cpu() != plain.cpu()).float().mean().item()
    if share > 1e-4:
        raise AssertionError(f"{share:.3%} of the pixels differ")


def _panoptic_agrees(ours: Any, plain: Any) -> None:
    _maps_agree(ours[0], plain[0])
    if ours[1] != plain[1]:
        raise AssertionError("the segments differ")


def _instances_agree(ours: Instances, plain: tuple[Tensor, Tensor, Tensor]) -> None:
    masks, classes, scores = plain
    assert_close(ours.scores, scores)
    if not torch.equal(ours.pred_classes, classes):
        raise AssertionError("the classes of the instances differ")
    _maps_agree(ours.pred_masks, masks)

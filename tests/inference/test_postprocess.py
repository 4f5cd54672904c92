"""Post-processing equals its straightforward formulation, for all sizes and edge cases."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.inference import postprocess
from maskclippp.inference.postprocess import ClassifiedMasks
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.soft_masks import SoftMasks

# Source and output sizes: equal, enlarged by whole and by odd factors, shrunk, and mixed. None
# has a pixel halfway between two source pixels, where a binary mask is 0.5 up to rounding.
SIZES = [
    ((12, 16), (12, 16)),
    ((12, 16), (48, 64)),
    ((9, 14), (31, 24)),
    ((20, 30), (7, 11)),
    ((8, 40), (24, 13)),
    ((1, 1), (5, 7)),
    ((5, 3), (1, 40)),
]
COUNTS = [(6, 5, True), (6, 5, False), (1, 1, False), (3, 1, True), (25, 40, True)]  # Q, K, void
CASES = [
    pytest.param((sizes, counts), id=f"{sizes}-{counts}")
    for sizes, counts in itertools.product(SIZES, COUNTS)
]


def smooth_masks(num_masks: int, size: tuple[int, int]) -> Tensor:
    """Blobs with soft borders, as sigmoids of smooth noise."""
    coarse = torch.randn(1, num_masks, 3, 3) * 6
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[0].sigmoid()


def panoptic(
    found: ClassifiedMasks,
    size: tuple[int, int],
    things: frozenset[int],
    object_mask_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[dict[str, Any]]]:
    settings = InferenceSettings(
        object_mask_threshold=object_mask_threshold, overlap_threshold=overlap_threshold
    )
    return postprocess.panoptic_segmentation(found, size, things, settings)


@pytest.fixture(params=["smooth", "noise", "binary"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def make_masks(kind: str, num_masks: int, size: tuple[int, int]) -> Tensor:
    if kind == "smooth":
        return smooth_masks(num_masks, size)
    noise = torch.rand(num_masks, *size)
    return noise if kind == "noise" else noise > 0.6


@dataclass(frozen=True)
class Case:
    """Random masks with logits, and an output size."""

    masks: Tensor
    logits: Tensor
    num_classes: int
    size: tuple[int, int]

    @property
    def found(self) -> ClassifiedMasks:
        return ClassifiedMasks(SoftMasks(self.masks), self.logits, self.num_classes)

    @property
    def plain(self) -> tuple[Tensor, Tensor, int, tuple[int, int]]:
        """The arguments of the straightforward formulations."""
        return self.masks, self.logits, self.num_classes, self.size


@pytest.fixture(params=CASES)
def make_case(request: pytest.FixtureRequest) -> Callable[[str], Case]:
    (source, output), (num_masks, num_classes, void) = request.param

    def make(kind: str) -> Case:
        masks, logits = (
            make_masks(kind, num_masks, source),
            torch.randn(num_masks, num_classes + void),
        )
        return Case(masks, logits * 2, num_classes, output)

    return make


def test_semantic_labels_equal_argmax_of_resized_score_maps(
    kind: str, make_case: Callable[[str], Case]
) -> None:
    case = make_case(kind)
    labels, scores = (
        postprocess.semantic_labels(case.found, case.size),
        plain.semantic_scores(*case.plain),
    )
    assert labels.shape == case.size
    # Equal scores (no mask at a pixel) may go to any class: the score decides.
    assert_close(scores.gather(0, labels[None])[0], scores.max(dim=0).values)


def test_semantic_scores_equal_resized_score_maps(
    kind: str, make_case: Callable[[str], Case]
) -> None:
    case = make_case(kind)
    scores = postprocess.semantic_scores(case.found, case.size)
    assert_close(scores, plain.semantic_scores(*case.plain))


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.0, 0.6), (0.4, 0.3)])
def test_panoptic_equals_loop_over_masks(
    thresholds: tuple[float, float], make_case: Callable[[str], Case]
) -> None:
    case = make_case("smooth")
    things = frozenset(range(case.num_classes // 2))
    ids, segments = panoptic(case.found, case.size, things, *thresholds)
    expected = plain.panoptic_segmentation(*case.plain, *thresholds, things)
    assert segments == expected[1]
    assert ids.dtype == torch.int32
    assert torch.equal(ids, expected[0])


@pytest.mark.parametrize("only_things", [False, True])
def test_instances_equal_loop_over_best_pairs(
    kind: str, only_things: bool, make_case: Callable[[str], Case]
) -> None:
    case = make_case(kind)
    classes = frozenset(range(0, case.num_classes, 2)) if only_things else None
    settings = InferenceSettings(max_instances=10, instance_box_on=True)
    found = postprocess.instance_segmentation(case.found, case.size, classes, settings)
    expected = plain.instance_segmentation(*case.plain, 10, classes)
    assert len(found) == len(expected)
    assert_close(found.scores, torch.tensor([one["score"] for one in expected]))

    def by_score_and_class(instance: dict[str, Any]) -> tuple[float, int]:
        # Empty masks all score 0: their order is by class.
        return -round(instance["score"], 6), instance["class"]

    expected.sort(key=by_score_and_class)
    assert found.pred_classes.tolist() == [one["class"] for one in expected]
    for mask, box, one in zip(found.pred_masks, found.pred_boxes.tensor, expected, strict=True):
        assert torch.equal(mask, one["mask"]) or one["score"] == 0
        assert box.tolist() == one["box"] or one["score"] == 0


@pytest.mark.parametrize("output", [(8, 8), (13, 30), (4, 5)])
def test_no_masks(output: tuple[int, int]) -> None:
    """An image without masks: nothing is found, and nothing fails."""
    empty = ClassifiedMasks(SoftMasks(torch.zeros(0, 8, 8)), torch.zeros(0, 4), 3)
    assert torch.equal(postprocess.semantic_labels(empty, output), torch.zeros(output).long())
    assert torch.equal(postprocess.semantic_scores(empty, output), torch.zeros(3, *output))
    ids, segments = panoptic(empty, output, frozenset(), 0.0, 0.8)
    assert segments == []
    assert torch.equal(ids, torch.zeros(output, dtype=torch.int32))
    settings = InferenceSettings(max_instances=10, instance_box_on=True)
    instances = postprocess.instance_segmentation(empty, output, None, settings)
    assert len(instances) == 0
    assert instances.pred_masks.shape == (0, *output)
    assert empty.classes.shape == (0,)


def test_all_masks_void_gives_no_segment() -> None:
    void = ClassifiedMasks(SoftMasks(torch.ones(2, 4, 4)), torch.tensor([[0.0, 0.0, 9.0]] * 2), 2)
    ids, segments = panoptic(void, (8, 8), frozenset(), 0.0, 0.0)
    assert segments == []
    assert not ids.any()


def test_equal_stuff_classes_are_merged_and_things_are_not() -> None:
    left = torch.zeros(4, 8)
    left[:, :4] = 1
    halves = torch.stack([left, 1 - left])
    found = ClassifiedMasks(SoftMasks(halves), torch.tensor([[9.0, 0.0], [9.0, 0.0]]), 2)
    ids, segments = panoptic(found, (4, 8), frozenset(), 0.0, 0.5)
    assert segments == [{"id": 1, "isthing": False, "category_id": 0}]
    assert (ids == 1).all()
    ids, segments = panoptic(found, (4, 8), frozenset({0}), 0.0, 0.5)
    assert [segment["id"] for segment in segments] == [1, 2]
    assert ids[0].tolist() == [1] * 4 + [2] * 4


def test_void_lowers_all_classes_but_is_never_predicted() -> None:
    logits = torch.tensor([[1.0, 2.0, 50.0]])
    found = ClassifiedMasks(SoftMasks(torch.ones(1, 2, 2)), logits, 2)
    assert found.classes.tolist() == [1]
    assert found.probabilities.sum() < 1e-6
    assert (postprocess.semantic_labels(found, (4, 4)) == 1).all()


def test_half_precision_masks_give_float_scores() -> None:
    masks, logits = smooth_masks(3, (6, 6)), torch.randn(3, 4)
    found = ClassifiedMasks(SoftMasks(masks.bfloat16()), logits.bfloat16(), 4)
    scores = postprocess.semantic_scores(found, (12, 12))
    assert scores.dtype == torch.float32
    expected = plain.semantic_scores(
        masks.bfloat16().float(), logits.bfloat16().float(), 4, (12, 12)
    )
    assert_close(scores, expected)


@pytest.mark.parametrize("output", [(10, 12), (23, 31), (5, 6)])
def test_binary_masks_are_resized_masks_above_one_half(kind: str, output: tuple[int, int]) -> None:
    masks = make_masks(kind, 4, (10, 12))
    expected = plain.resize(masks, output) > 0.5
    assert torch.equal(postprocess.binary_masks(SoftMasks(masks), output), expected)


def test_boxes_are_exclusive_and_zero_for_empty_masks() -> None:
    masks = torch.zeros(2, 6, 9, dtype=torch.bool)
    masks[0, 2:5, 3:8] = True
    assert postprocess.mask_boxes(masks).tolist() == [[3, 2, 8, 5], [0, 0, 0, 0]]

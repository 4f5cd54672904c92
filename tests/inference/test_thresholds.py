"""Results at the very thresholds, and their precision."""

import pytest
import torch

from maskclippp.inference.postprocess import (
    ClassifiedMasks,
    binary_masks,
    image_results,
    instance_segmentation,
    panoptic_segmentation,
)
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.soft_masks import SoftMasks

SIZE = (2, 4)


def classified(
    values: torch.Tensor, logits: list[list[float]], classes: int = 2
) -> ClassifiedMasks:
    return ClassifiedMasks(SoftMasks(values), torch.tensor(logits), classes)


@pytest.mark.parametrize(("threshold", "segments"), [(0.499, 1), (0.5, 0)])
def test_a_score_must_exceed_the_object_mask_threshold(threshold: float, segments: int) -> None:
    found = classified(torch.ones(1, *SIZE), [[0.0, 0.0]])  # probabilities 0.5 and 0.5
    settings = InferenceSettings(object_mask_threshold=threshold)
    assert len(panoptic_segmentation(found, SIZE, frozenset(), settings)[1]) == segments


@pytest.mark.parametrize(("threshold", "classes"), [(0.5, [0, 1]), (0.501, [1])])
def test_a_mask_may_keep_just_the_overlap_threshold(threshold: float, classes: list[int]) -> None:
    masks = torch.zeros(2, *SIZE)
    masks[0, :, :2] = 1  # 4 pixels, of which the better mask takes 2
    masks[1, :, 1:] = 1
    found = classified(masks, [[1.0, 0.0], [0.0, 5.0]])
    settings = InferenceSettings(overlap_threshold=threshold)
    _, segments = panoptic_segmentation(found, SIZE, frozenset({0, 1}), settings)
    assert [segment["category_id"] for segment in segments] == classes


def test_a_value_of_one_half_is_solid_in_panoptic_results_only() -> None:
    found = classified(torch.full((1, *SIZE), 0.5), [[5.0, 0.0]])
    ids, segments = panoptic_segmentation(found, SIZE, frozenset({0}), InferenceSettings())
    assert len(segments) == 1
    assert (ids == 1).all()
    instances = instance_segmentation(found, SIZE, None, InferenceSettings())
    assert not instances.pred_masks.any()
    assert not binary_masks(found.masks, SIZE).any()


@pytest.mark.parametrize("output", ["labels", "scores"])
def test_results_are_exact_within_autocast(output: str) -> None:
    """Half precision cannot separate classes with nearly equal scores."""
    torch.manual_seed(0)
    found = ClassifiedMasks(SoftMasks(torch.rand(20, 16, 16)), torch.randn(20, 60) / 10, 60)
    settings = InferenceSettings(
        panoptic_on=True, instance_on=True, semantic_output=output, max_instances=30
    )
    expected = image_results(found, (31, 29), frozenset(range(60)), settings)
    with torch.autocast("cpu", torch.bfloat16):
        results = image_results(found, (31, 29), frozenset(range(60)), settings)
    key = "sem_seg_labels" if output == "labels" else "sem_seg"
    assert torch.equal(results[key], expected[key])
    assert torch.equal(results["panoptic_seg"][0], expected["panoptic_seg"][0])
    assert torch.equal(results["instances"].scores, expected["instances"].scores)


@pytest.mark.parametrize(("panoptic_on", "expected"), [(False, [1, 0]), (True, [0])])
def test_only_panoptic_data_have_classes_without_instances(
    panoptic_on: bool, expected: list[int]
) -> None:
    found = classified(torch.ones(1, *SIZE), [[0.0, 1.0]])
    settings = InferenceSettings(panoptic_on=panoptic_on, instance_on=True)
    instances = image_results(found, SIZE, frozenset({0}), settings)["instances"]
    assert instances.pred_classes.tolist() == expected

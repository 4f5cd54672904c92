"""Boxes, masks and instances."""

import numpy as np
import pytest
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    pairwise_iou,
    polygons_to_bitmask,
)


def test_boxes_know_their_geometry() -> None:
    boxes = Boxes(torch.tensor([[1.0, 2.0, 5.0, 8.0], [0.0, 0.0, 0.0, 4.0]]))
    assert boxes.area().tolist() == [24, 0]
    assert boxes.nonempty().tolist() == [True, False]


def test_a_selection_of_boxes_is_boxes() -> None:
    boxes = Boxes(torch.tensor([[1.0, 2.0, 5.0, 8.0], [0.0, 0.0, 0.0, 4.0]]))
    assert len(boxes[0]) == 1
    assert len(boxes[torch.tensor([True, True])]) == 2
    assert Boxes.cat([boxes, boxes[1]]).tensor.shape == (3, 4)
    assert Boxes.cat([]).tensor.shape == (0, 4)


def test_pairwise_iou() -> None:
    first = Boxes(torch.tensor([[0.0, 0.0, 2.0, 2.0]]))
    second = Boxes(torch.tensor([[0.0, 0.0, 2.0, 1.0], [5.0, 5.0, 6.0, 6.0]]))
    assert pairwise_iou(first, second).tolist() == [[0.5, 0.0]]


def test_box_modes_convert_and_keep_the_type() -> None:
    xywh, xyxy = BoxMode.XYWH_ABS, BoxMode.XYXY_ABS
    assert BoxMode.convert([1, 2, 3, 4], xywh, xyxy) == [1, 2, 4, 6]
    assert BoxMode.convert((1.0, 2.0, 4.0, 6.0), xyxy, xywh) == (1.0, 2.0, 3.0, 4.0)
    array = BoxMode.convert(np.array([[1, 2, 3, 4]]), xywh, xyxy)
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [[1, 2, 4, 6]]
    with pytest.raises(AssertionError):
        BoxMode.convert([1, 2, 3, 4], BoxMode.XYXY_REL, xyxy)


def test_bounding_boxes_of_masks_are_tight_and_exclusive() -> None:
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, 1:3, 2:4] = True
    masks[1, 3, 4] = True
    bit_masks = BitMasks(masks)
    assert bit_masks.get_bounding_boxes().tensor.tolist() == [
        [2, 1, 4, 3],
        [4, 3, 5, 4],
        [0, 0, 0, 0],
    ]
    assert bit_masks.nonempty().tolist() == [True, True, False]
    assert len(bit_masks[0]) == 1


def test_no_masks_have_no_boxes() -> None:
    assert BitMasks(torch.zeros(0, 4, 5)).get_bounding_boxes().tensor.shape == (0, 4)


def test_polygons_become_a_mask() -> None:
    mask = polygons_to_bitmask([np.array([0.0, 0, 3, 0, 3, 2, 0, 2])], 4, 5)
    assert mask.tolist() == [[True] * 3 + [False] * 2] * 2 + [[False] * 5] * 2
    assert not polygons_to_bitmask([], 4, 5).any()


def instances() -> Instances:
    return Instances((4, 5), scores=torch.tensor([0.1, 0.9]), names=["a", "b"])


def test_fields_of_instances_have_one_length() -> None:
    with pytest.raises(AssertionError, match="length 3 to a Instances of length 2"):
        instances().extra = torch.zeros(3)


def test_an_unknown_field_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nope"):
        _ = instances().nope


def test_instances_are_selected_together() -> None:
    best = instances()[torch.tensor([False, True]).nonzero()[0].item()]
    assert (len(best), best.names if isinstance(best.names, str) else list(best.names)) == (
        1,
        ["b"],
    )
    with pytest.raises(IndexError):
        instances()[2]


def test_instances_are_joined() -> None:
    joined = Instances.cat([instances(), instances()])
    assert joined.names == ["a", "b", "a", "b"]
    assert joined.scores.shape == (4,)
    assert joined.image_size == (4, 5)


def test_instances_without_fields_have_no_length() -> None:
    with pytest.raises(NotImplementedError):
        len(Instances((1, 1)))


def test_moving_instances_leaves_the_original() -> None:
    original = instances()
    moved = original.to(torch.float64)
    assert moved.scores.dtype == torch.float64
    assert original.scores.dtype == torch.float32
    assert moved.names == original.names


def test_fields_can_be_removed_and_listed() -> None:
    record = instances()
    record.remove("names")
    assert list(record.get_fields()) == ["scores"]
    assert record.has("scores")
    assert not record.has("names")

"""The masks of a training record."""

import pytest
import torch

from maskclippp.masks.training_masks import ground_truth_masks
from tests.tiny_models import train_record


def test_annotated_masks_come_with_their_classes() -> None:
    masks = torch.rand(2, 5, 6) > 0.5
    found = ground_truth_masks(train_record((5, 6), [2, 0], masks), 3)
    assert torch.equal(found.masks.values, masks)
    assert found.labels.tolist() == [2, 0]


def test_an_image_may_have_no_masks() -> None:
    empty = torch.zeros(0, 5, 6, dtype=torch.bool)
    assert len(ground_truth_masks(train_record((5, 6), [], empty), 3).masks) == 0


@pytest.mark.parametrize("label", [3, -1])
def test_a_class_that_the_training_set_does_not_have_is_named(label: int) -> None:
    record = train_record((5, 6), [label], torch.ones(1, 5, 6, dtype=torch.bool))
    message = rf"some/image\.jpg: annotated class {label}, .* \(0\.\.2\)"
    with pytest.raises(ValueError, match=message):
        ground_truth_masks(record, 3)

"""An image has the same results in a batch as alone, whatever the sizes of the others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from maskclippp.meta_arch import MaskCLIPpp
from tests.generators.tiny_generators import fcclip_config, mask2former_config
from tests.tiny_models import ALL_TASKS, labeled_record

_SIZES = [(64, 96), (96, 64), (64, 96), (80, 80), (96, 64)]


def results(make: Callable[..., CfgNode], *, pad_alone: bool) -> list[tuple[Any, Any]]:
    """Per image its results in a batch of several sizes, and alone."""
    torch.manual_seed(0)
    model = MaskCLIPpp(make(*ALL_TASKS, ".TEXT_CACHE", False, ".TEST.PAD_ALONE", pad_alone)).eval()
    records: list[Any] = [labeled_record(size, 0, 1, 3) for size in _SIZES]
    together: list[Any] = model(records)
    alone: list[Any] = [model([record])[0] for record in records]
    return list(zip(together, alone, strict=True))


@pytest.mark.parametrize("make", [fcclip_config, mask2former_config])
def test_results_do_not_depend_on_the_batch(make: Callable[..., CfgNode]) -> None:
    for size, (found, alone) in zip(_SIZES, results(make, pad_alone=True), strict=True):
        assert found["sem_seg_labels"].shape == size
        assert torch.equal(found["sem_seg_labels"], alone["sem_seg_labels"])
        torch.testing.assert_close(found["panoptic_seg"], alone["panoptic_seg"])
        assert found["instances"].pred_classes.tolist() == alone["instances"].pred_classes.tolist()
        assert torch.equal(found["instances"].pred_masks, alone["instances"].pred_masks)
        torch.testing.assert_close(found["instances"].scores, alone["instances"].scores)


def test_padding_to_a_common_size_changes_scores() -> None:
    found, alone = results(fcclip_config, pad_alone=False)[0]
    assert (found["instances"].scores - alone["instances"].scores).abs().max() > 1e-3

"""Post-processing gives the published implementation's maps, segments and instances."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.inference import postprocess
from maskclippp.inference.postprocess import ClassifiedMasks
from maskclippp.inference.settings import InferenceSettings
from maskclippp.masks.soft_masks import SoftMasks
from tests.golden_cases import GoldenCase, cases


def size_of(masks: Tensor) -> tuple[int, int]:
    return masks.shape[-2], masks.shape[-1]


def variants(family: str) -> list[Any]:
    return [
        pytest.param(case, variant, id=f"{case}-{variant['name']}")
        for case in cases(family)
        for variant in case.info["variants"]
    ]


@pytest.mark.parametrize("name", ["void", "novoid"])
@pytest.mark.parametrize("case", cases("inference_semantic"), ids=str)
def test_semantic(case: GoldenCase, name: str) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    masks, logits = inputs["masks"], inputs["logits_with_void" if name == "void" else "logits"]
    found = ClassifiedMasks(SoftMasks(masks), logits, case.info["config"]["K"])
    scores = postprocess.semantic_scores(found, size_of(masks))
    assert_close(scores, outputs[name], **case.tolerance)
    labels = postprocess.semantic_labels(found, size_of(masks))
    best = outputs[name].gather(0, labels[None])[0]
    assert_close(best, outputs[name].max(dim=0).values, **case.tolerance)
    assert torch.equal(found.classes, outputs[f"mask_class_{name}"])


@pytest.mark.parametrize(("case", "variant"), variants("inference_panoptic"))
def test_panoptic(case: GoldenCase, variant: dict[str, Any]) -> None:
    inputs, outputs, config = case.tensors("inputs"), case.tensors("outputs"), case.info["config"]
    settings = InferenceSettings(
        object_mask_threshold=variant["object_mask_threshold"],
        overlap_threshold=variant["overlap_threshold"],
    )
    ids, segments = postprocess.panoptic_segmentation(
        ClassifiedMasks(SoftMasks(inputs["masks"]), inputs[variant["logits"]], config["K"]),
        size_of(inputs["masks"]),
        frozenset(config["thing_classes"]),
        settings,
    )
    expected = next(v for k, v in outputs.items() if k.split("/")[0] == variant["name"])
    assert torch.equal(ids, expected.int())
    assert segments == variant["segments_info"]


@pytest.mark.parametrize(("case", "variant"), variants("inference_instance"))
def test_instance(case: GoldenCase, variant: dict[str, Any]) -> None:
    inputs, outputs, config = case.tensors("inputs"), case.tensors("outputs"), case.info["config"]
    instances = postprocess.instance_segmentation(
        ClassifiedMasks(SoftMasks(inputs["masks"]), inputs[variant["logits"]], config["K"]),
        size_of(inputs["masks"]),
        frozenset(config["thing_classes"]) if variant["panoptic_on"] else None,
        InferenceSettings(
            max_instances=variant["topk"], instance_box_on=variant["instance_box_on"]
        ),
    )
    assert len(instances) == variant["num_instances"]
    shared = variant["name"].replace("box1", "box0")
    assert_close(instances.scores, outputs[f"{shared}/scores"], **case.tolerance)
    assert torch.equal(instances.pred_classes, outputs[f"{shared}/classes"])
    assert torch.equal(instances.pred_masks, outputs[f"{shared}/masks"].bool())
    boxes = outputs.get(f"{variant['name']}/boxes", torch.zeros(len(instances), 4))
    assert torch.equal(instances.pred_boxes.tensor, boxes)

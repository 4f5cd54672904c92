"""The whole model: a training step with its gradients, and evaluation with true masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from torch import Tensor
from torch.testing import assert_close

from maskclippp.config import get_cfg
from maskclippp.meta_arch import MaskCLIPpp
from tests.golden_cases import GoldenCase, cases
from tests.golden_models import dense_rows, register_models

TRAIN = cases("meta_arch_train")
EVAL = cases("meta_arch_eval_gt")


def build_model(case: GoldenCase, folder: Path) -> MaskCLIPpp:
    """The model of the case's config, with the case's weights under their published names."""
    config = case.info["config"]
    register_models(config, folder)
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.merge_from_other_cfg(CfgNode(config["config_overrides_on_reference_defaults"]))
    names = f"{case}_train_{folder.name}", f"{case}_test_{folder.name}"
    train_classes = config["train_classes"]
    test_classes = config.get("test_classes", train_classes)
    MetadataCatalog.get(names[0]).set(stuff_classes=train_classes)
    things = {i: i for i in config.get("thing_class_indices_of_test", [])}
    MetadataCatalog.get(names[1]).set(
        stuff_classes=test_classes, thing_dataset_id_to_contiguous_id=things, ignore_label=255
    )
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (names[0],), (names[1],)
    cfg.MODEL.DEVICE = "cpu"
    node = cfg.MODEL.MASKCLIPPP
    node.VISUAL_ENCODER.PRETRAINED = node.TEXT_ENCODER.PRETRAINED = "random"
    node.TEST.MASK_ACC = False
    node.TEST.SEMANTIC_OUTPUT = "scores"
    model = MaskCLIPpp(cfg)
    shapes = {k: v.shape for k, v in model.state_dict().items()}
    state = dense_rows(case.tensors("weights"), shapes)
    if model.logit_scale is not None and "_logit_scale" in state:
        state["logit_scale"] = state.pop("_logit_scale")
    result = model.load_state_dict(state, strict=False)
    assert result.missing_keys in ([], ["text_encoder.logit_scale"])
    return model


def per_image(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    return [tensors[f"{name}/{i}"] for i in range(sum(k.startswith(f"{name}/") for k in tensors))]


@pytest.mark.parametrize("case", TRAIN, ids=str)
def test_training_step(case: GoldenCase, tmp_path: Path) -> None:
    model = build_model(case, tmp_path).train()
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    records = []
    for image, masks, labels in zip(
        *(per_image(inputs, name) for name in ("image", "masks", "labels")), strict=True
    ):
        instances = Instances((image.shape[-2], image.shape[-1]))
        instances.gt_masks, instances.gt_classes = masks, labels
        records.append({"image": image, "instances": instances})
    (loss,) = model(records).values()
    limits = case.info["tolerance"]
    assert_close(loss, outputs["loss"], rtol=limits["rtol"], atol=limits["atol"])
    loss.backward()
    weights = case.tensors("weights")
    checked = 0
    for key, expected in outputs.items():
        if not key.startswith("grad/"):
            continue
        name = key.removeprefix("grad/").removesuffix("#rows")
        parameter = model.get_parameter("logit_scale" if name == "_logit_scale" else name)
        gradient = parameter.grad
        assert gradient is not None, name
        if key.endswith("#rows"):
            gradient = gradient[weights[f"{name}#row_ids"].long()]
        bound = max(limits["rtol"] * expected.abs().max().item(), limits["atol"])
        assert (gradient - expected).abs().max().item() <= bound, name
        checked += 1
    assert checked > 10


@pytest.mark.parametrize("case", EVAL, ids=str)
def test_evaluation_with_true_masks(case: GoldenCase, tmp_path: Path) -> None:
    model = build_model(case, tmp_path).eval()
    inputs = case.tensors("inputs")
    sizes = case.info["config"]["output_sizes"]
    records = [
        {"image": image, "sem_seg": labels.long(), "height": size[0], "width": size[1]}
        for image, labels, size in zip(
            per_image(inputs, "image"), per_image(inputs, "gt_sem_seg"), sizes, strict=True
        )
    ]
    results = model(records)
    outputs, limits = case.tensors("outputs"), case.info["tolerance"]
    check = {"rtol": limits["rtol"], "atol": limits["atol"]}
    assert_close(model._get_test_text(), outputs["test_t_embs"], **check)
    for index, result in enumerate(results):
        seen = outputs["category_overlapping_mask"]
        assert torch.equal(result["category_overlapping_mask"], seen)
        assert_close(result["sem_seg"], outputs[f"sem_seg/{index}"], **check)
        ids, segments = result["panoptic_seg"]
        differing = (ids != outputs[f"panoptic_seg/{index}"]).float().mean()
        assert differing <= 0.005
        assert segments == case.info["segments_info"][index]
        instances = result["instances"]
        assert torch.equal(instances.pred_classes, outputs[f"instances_classes/{index}"])
        assert_close(instances.scores, outputs[f"instances_scores/{index}"], rtol=0, atol=1e-3)
        masks = outputs[f"instances_masks/{index}"].bool()
        assert (instances.pred_masks != masks).float().mean() <= 0.005


@pytest.mark.parametrize("case", EVAL, ids=str)
def test_mask_classes(case: GoldenCase, tmp_path: Path) -> None:
    model = build_model(case, tmp_path).eval()
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    model.inference = type(model.inference)(mask_acc=True)
    images, labels = per_image(inputs, "image"), per_image(inputs, "gt_sem_seg")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (result,) = model([{"image": image, "sem_seg": label.long()}])
        assert np.array_equal(result["mask_cls"], outputs[f"mask_class/{index}"])

"""The whole model: a training step with its gradients, and evaluation with true masks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.golden_cases import GoldenCase, cases
from tests.golden_evaluations import (
    build_model,
    check_evaluation_with_a_generator,
    check_evaluation_with_true_masks,
    check_training_step,
    per_image,
    records_of,
    use_generator,
)

TRAIN = cases("meta_arch_train")
EVAL = cases("meta_arch_eval_gt")
GENERATED = cases("meta_arch_eval_fcclip") + cases("meta_arch_eval_m2f")


@pytest.mark.parametrize("case", TRAIN, ids=str)
def test_training_step(case: GoldenCase, tmp_path: Path) -> None:
    check_training_step(case, tmp_path)


@pytest.mark.parametrize("case", EVAL, ids=str)
def test_evaluation_with_true_masks(case: GoldenCase, tmp_path: Path) -> None:
    check_evaluation_with_true_masks(case, tmp_path)


@pytest.mark.parametrize("case", GENERATED, ids=str)
def test_evaluation_with_a_generator(case: GoldenCase, tmp_path: Path) -> None:
    check_evaluation_with_a_generator(case, tmp_path)


@pytest.mark.parametrize("case", GENERATED, ids=str)
def test_masks_and_logits_of_the_generator(case: GoldenCase, tmp_path: Path) -> None:
    model = build_model(case, tmp_path).eval()
    use_generator(model, case)
    outputs, limits = case.tensors("outputs"), case.info["tolerance"]
    check = {"rtol": limits["rtol"], "atol": limits["atol"]}
    generator = model._get_generator()
    generator.set_vocabulary(model.requested_words.vocabulary)
    generated = generator(records_of(case))
    masks = torch.stack([found.masks.values for found in generated])
    assert_close(masks, outputs["segmentor/pred_masks"], **check)
    logits = torch.stack([found.logits for found in generated])
    assert_close(logits, outputs["segmentor/pred_logits"], **check)
    with torch.no_grad():
        encoded = model.visual_encoder(
            [record["image"] for record in records_of(case)], [found.masks for found in generated]
        )
    assert_close(encoded.mask_areas, outputs["visual_encoder/areas"], **check)
    assert_close(encoded.mask_embeddings, outputs["visual_encoder/m_embs"], **check)


@pytest.mark.parametrize("case", GENERATED, ids=str)
def test_masks_of_the_generator_alone(case: GoldenCase, tmp_path: Path) -> None:
    model = build_model(case, tmp_path).eval()
    use_generator(model, case)
    model.inference = dataclasses.replace(model.inference, segmentor_only=True)
    outputs = case.tensors("outputs")
    for index, result in enumerate(model(records_of(case))):
        key = f"segmentor_only_masks/{index}"
        if key in outputs:
            assert (result["pred_masks"] != outputs[key].bool()).float().mean() <= 0.005


@pytest.mark.parametrize("case", EVAL, ids=str)
def test_mask_classes(case: GoldenCase, tmp_path: Path) -> None:
    model = build_model(case, tmp_path).eval()
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    model.inference = type(model.inference)(mask_acc=True)
    images, labels = per_image(inputs, "image"), per_image(inputs, "gt_sem_seg")
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (result,) = model([{"image": image, "sem_seg": label.long()}])
        assert np.array_equal(result["mask_cls"], outputs[f"mask_class/{index}"])

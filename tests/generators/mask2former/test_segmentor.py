"""Mask2Former classifies its masks into the classes that it was trained on."""

import pytest
import torch
from torch.testing import assert_close

from maskclippp.meta_arch import MaskCLIPpp
from maskclippp.words.vocabulary import Vocabulary
from tests.generators.tiny_generators import NUM_QUERIES, mask2former_config, tiny_generator
from tests.tiny_models import TEST_CLASSES, TRAIN_CLASSES, random_image


def test_logits_are_over_the_training_classes_and_void() -> None:
    generated = tiny_generator("Mask2FormerSegmentor")([{"image": random_image(50, 70)}] * 2)
    for found in generated:
        assert found.own_classes is not None
        assert found.own_classes == Vocabulary.from_class_names(TRAIN_CLASSES)
        assert found.logits is not None
        assert found.logits.shape == (NUM_QUERIES, len(TRAIN_CLASSES) + 1)


def test_words_do_not_matter() -> None:
    model = MaskCLIPpp(mask2former_config()).eval()
    record = {"image": random_image(50, 70)}
    generator = model._get_generator()
    generator.set_vocabulary(model.requested_words.vocabulary)
    (before,) = generator([record])
    generator.set_vocabulary(Vocabulary.from_class_names(["something", "else"]))
    (after,) = generator([record])
    assert before.logits is not None
    assert after.logits is not None
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.masks.values, after.masks.values)


def test_logits_are_finite_in_bfloat16() -> None:
    generator = tiny_generator("Mask2FormerSegmentor")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = generator([{"image": random_image(64, 64)}])
    assert found.logits is not None
    assert found.logits.dtype == torch.float32
    assert found.logits.isfinite().all()


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_model_runs_on_its_masks(ensemble: bool) -> None:
    model = MaskCLIPpp(
        mask2former_config(
            *(".TEST.ENSEMBLE_ON", ensemble, ".TEST.GEOMETRIC_ENSEMBLE_ALPHA", 0.6),
            *(".TEST.SEMANTIC_OUTPUT", "scores", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", True),
        )
    ).eval()
    (result,) = model([{"image": random_image(40, 60), "height": 77, "width": 101}])
    assert result["sem_seg"].shape == (len(TEST_CLASSES), 77, 101)
    assert result["sem_seg"].isfinite().all()
    assert result["panoptic_seg"][0].shape == (77, 101)


def test_void_takes_its_share_of_every_score() -> None:
    """Probabilities of the words are those of the mask classifier times what void leaves."""
    model = MaskCLIPpp(mask2former_config(".TEST.SEMANTIC_OUTPUT", "scores")).eval()
    record = {"image": random_image(40, 60)}
    (found,) = model([record])
    (generated,) = model._get_generator()([record])
    assert generated.logits is not None
    left = 1 - generated.logits.softmax(dim=-1)[:, -1]
    masks = generated.masks.resized((40, 60))
    expected = torch.einsum("q,qhw->hw", left, masks)
    assert_close(found["sem_seg"].sum(dim=0), expected, rtol=1e-4, atol=1e-5)

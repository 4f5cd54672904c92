"""Similarity modules: folded maps, ragged batches, options."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.alignment import PSM, DummyPSM, LinearPSM, PseudoTextPSM, build_psm
from maskclippp.clip import EncodedImages
from maskclippp.masks.batching import PaddedBatch
from maskclippp.masks.soft_masks import SoftMasks
from tests.tiny_models import tiny_config

WIDTH, NAMES, TEMPLATES = 16, 5, 3


def encoded(counts: list[int]) -> EncodedImages:
    masks = [SoftMasks(torch.zeros(count, 2, 2)) for count in counts]
    batch = PaddedBatch(torch.zeros(len(counts), 3, 2, 2), [(2, 2)] * len(counts), masks)
    maps = {"p_embs": torch.randn(len(counts), WIDTH, 3, 4)}
    return EncodedImages(batch, torch.randn(sum(counts), WIDTH), None, maps)


def pseudo_text(**options: object) -> PseudoTextPSM:
    arguments = {"in_features": ["p_embs"], "in_width": WIDTH, "width": WIDTH, "num_heads": 4}
    return PseudoTextPSM(**{**arguments, **options}).eval()  # type: ignore[arg-type]


def words() -> Tensor:
    return torch.nn.functional.normalize(torch.randn(NAMES, TEMPLATES, WIDTH), dim=-1)


@pytest.mark.parametrize("shape", [(0, 4, 14), (1, 1, 14), (20, 50, 14)])
def test_folded_linear_maps_equal_two_linear_maps(shape: tuple[int, ...]) -> None:
    # In double precision: the sums of the gradients have up to 1000 terms.
    psm = LinearPSM(num_templates=14, corr_width=640).double()
    inner, outer = psm.corr_proj_in[0], psm.corr_proj_out[0]
    parameters = [inner.weight, inner.bias, outer.weight, outer.bias]
    correlation = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(shape[:2], dtype=torch.float64)
    logits = psm(correlation, encoded([shape[0]]), words())
    expected = plain.linear_psm(correlation, inner, outer)
    assert_close(logits, expected)
    found = torch.autograd.grad((logits * cotangent).sum(), [correlation, *parameters])
    wanted = torch.autograd.grad((expected * cotangent).sum(), [correlation, *parameters])
    assert_close(found, wanted)


def test_linear_psm_treats_every_class_alike() -> None:
    """Reordering the words reorders the logits: no class has parameters of its own."""
    psm, correlation, order = LinearPSM(num_templates=3, corr_width=8), torch.randn(4, 6, 3), [3, 0]
    logits = psm(correlation, encoded([4]), words())
    assert_close(psm(correlation[:, order], encoded([4]), words()), logits[:, order])


def test_dummy_psm_is_the_mean_over_templates() -> None:
    correlation = torch.randn(4, 6, 3)
    assert_close(DummyPSM()(correlation, encoded([4]), words()), correlation.mean(dim=2))


@pytest.mark.parametrize("counts", [[2, 0, 3], [1], [0, 4]])
@torch.no_grad()
def test_pseudo_text_of_a_batch_equals_its_images_one_by_one(counts: list[int]) -> None:
    psm, text, images = pseudo_text(), words(), encoded(counts)
    correlation = torch.randn(sum(counts), NAMES, TEMPLATES)
    together = psm(correlation, images, text)
    assert images.mask_embeddings is not None
    alone = []
    for index, rows in enumerate(torch.arange(sum(counts)).split(counts)):
        one = encoded([len(rows)])
        one.mask_embeddings = images.mask_embeddings[rows]
        one.maps["p_embs"] = images.maps["p_embs"][index : index + 1]
        alone.append(psm(correlation[rows], one, text))
    assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("name", ["DummyPSM", "LinearPSM", "PseudoTextPSM"])
def test_no_masks_give_no_logits(name: str) -> None:
    psms: dict[str, PSM] = {
        "DummyPSM": DummyPSM(),
        "LinearPSM": LinearPSM(num_templates=TEMPLATES, corr_width=8),
        "PseudoTextPSM": pseudo_text(),
    }
    images, correlation = encoded([0, 0]), torch.zeros(0, NAMES, TEMPLATES)
    assert psms[name](correlation, images, words()).shape == (0, NAMES)


@torch.no_grad()
def test_logit_scale_multiplies_and_is_clamped() -> None:
    images, text, correlation = encoded([3]), words(), torch.zeros(3, NAMES, TEMPLATES)
    psm = pseudo_text(use_logit_scale=True)
    assert psm.logit_scale is not None
    psm.logit_scale.fill_(0.0)
    base = psm(correlation, images, text)
    psm.logit_scale.fill_(20.0)
    assert_close(psm(correlation, images, text), base * 100)


def test_detached_conditions_send_no_gradient_to_the_image() -> None:
    for detach in (False, True):
        images = encoded([3])
        images.maps["p_embs"].requires_grad_()
        psm = pseudo_text(detach=detach)
        psm(torch.zeros(3, NAMES, TEMPLATES), images, words()).square().sum().backward()
        assert (images.maps["p_embs"].grad is None) == detach


def test_a_feature_that_is_not_computed_is_named() -> None:
    psm = pseudo_text(in_features=["stage4"])
    with pytest.raises(ValueError, match=r"IN_FEATURES: 'stage4' is not computed; .*\['p_embs'\]"):
        psm(torch.zeros(3, NAMES, TEMPLATES), encoded([3]), words())


def test_pseudo_text_needs_features() -> None:
    with pytest.raises(ValueError, match=r"PSM\.IN_FEATURES is empty"):
        pseudo_text(in_features=[])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("DummyPSM", DummyPSM), ("LinearPSM", LinearPSM), ("PseudoTextPSM", PseudoTextPSM)],
)
def test_modules_are_built_by_name(name: str, expected: type[PSM]) -> None:
    psm = build_psm(tiny_config(".PSM.NAME", name, ".PSM.IN_FEATURES", ["p_embs"]))
    assert type(psm) is expected


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"PSM\.NAME: 'LinearPsm' is not one of .*'LinearPSM'"):
        build_psm(tiny_config(".PSM.NAME", "LinearPsm"))

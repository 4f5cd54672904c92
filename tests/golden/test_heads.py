"""Similarity modules, loss and class logits compute what the published implementation computes."""

import hashlib
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from maskclippp.alignment import PSM, DummyPSM, LinearPSM, PseudoTextPSM, ReweightCELoss
from maskclippp.clip import EncodedImages
from maskclippp.inference.class_logits import (
    append_void,
    geometric_ensemble,
    max_over_synonyms,
    train_to_test_logits,
)
from maskclippp.masks.batching import PaddedBatch
from maskclippp.masks.soft_masks import SoftMasks
from maskclippp.words.templates import TEMPLATES
from maskclippp.words.text_classifier import TextClassifier
from maskclippp.words.vocabulary import Vocabulary
from tests.golden_cases import GoldenCase, cases
from tests.tiny_models import tiny_text_tower


def variants(family: str) -> list[Any]:
    return [
        pytest.param(case, variant, id=f"{case}-{variant['name']}")
        for case in cases(family)
        for variant in case.info["variants"]
    ]


def encoded_images(counts: list[int], embeddings: Tensor, maps: dict[str, Tensor]) -> EncodedImages:
    """The part of an encoder's result that a similarity module reads."""
    masks = [SoftMasks(torch.zeros(count, 1, 1)) for count in counts]
    batch = PaddedBatch(torch.zeros(len(counts), 3, 1, 1), [(1, 1)] * len(counts), masks)
    return EncodedImages(batch, mask_embeddings=embeddings, maps=maps)


def check_simple_psm(case: GoldenCase, psm: PSM) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    correlation = inputs["corrs"].requires_grad_()
    encoded = encoded_images([len(correlation)], torch.zeros(len(correlation), 1), {})
    logits = psm(correlation, encoded, torch.zeros(1))
    assert_close(logits, outputs["out"], **case.tolerance)
    (logits * inputs["cotangent"]).sum().backward()
    assert_close(correlation.grad, outputs["grad/corrs"], **case.tolerance)
    for name, parameter in psm.named_parameters():
        assert_close(parameter.grad, outputs[f"grad/weights/{name}"], **case.tolerance)


@pytest.mark.parametrize("case", cases("psm_dummy"), ids=str)
def test_dummy_psm(case: GoldenCase) -> None:
    check_simple_psm(case, DummyPSM())


@pytest.mark.parametrize("case", cases("psm_linear"), ids=str)
def test_linear_psm(case: GoldenCase) -> None:
    config = case.info["config"]
    psm = LinearPSM(num_templates=config["T"], corr_width=config["corr_width"])
    psm.load_state_dict(case.tensors("weights"))
    check_simple_psm(case, psm)


@pytest.mark.parametrize(("case", "variant"), variants("psm_pseudotext"))
def test_pseudo_text_psm(case: GoldenCase, variant: dict[str, Any]) -> None:
    config = case.info["config"]
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    psm = PseudoTextPSM(
        in_features=config["keys"],
        in_width=config["C_img"],
        width=config["D"],
        num_heads=config["heads"],
        normalize=variant["NORM_VISUAL_COND"],
        detach=variant["DETACH_VISUAL_COND"],
        use_logit_scale=variant["USE_LOGIT_SCALE"],
        residual_templates=config["T"] if variant["CORR_RESIDUAL"] else 0,
        residual_width=config["corr_width"],
    )
    weights = case.tensors("weights")
    state = {key: weights[key] for key in variant["weight_keys"]}
    if variant["logit_scale_override"] is not None:
        state["logit_scale"] = torch.tensor(variant["logit_scale_override"])
    psm.load_state_dict(state)
    psm.eval()
    leaves = {
        name: tensor.requires_grad_()
        for name, tensor in inputs.items()
        if tensor.is_floating_point() and name != "cotangent"
    }
    maps = {name: leaves[f"feature/{name}"] for name in config["keys"]}
    embeddings = leaves["m_embs"]
    encoded = encoded_images(config["masks"], embeddings, maps)
    logits = psm(leaves["corrs"], encoded, leaves["t_embs"])
    prefix = f"{variant['name']}/"
    assert_close(logits, outputs[f"{prefix}out"], **case.tolerance)
    (logits * inputs["cotangent"]).sum().backward()
    for key, expected in outputs.items():
        if not key.startswith(f"{prefix}grad/"):
            continue
        name = key.removeprefix(f"{prefix}grad/")
        if name.startswith("weights/"):
            gradient = psm.get_parameter(name.removeprefix("weights/")).grad
        else:
            gradient = leaves[name].grad
        gradient = torch.zeros_like(expected) if gradient is None else gradient
        bound = case.info["tolerance"]["grad_relative_to_max"]
        limit = max(bound * expected.abs().max().item(), case.info["tolerance"]["atol"])
        assert (gradient - expected).abs().max() <= limit, name


@pytest.mark.parametrize(("case", "variant"), variants("criterion_reweight_ce"))
def test_reweighted_cross_entropy(case: GoldenCase, variant: dict[str, Any]) -> None:
    inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
    num_images = len(case.info["config"]["masks"])
    image_of_mask = inputs["mask2batch"]
    chosen = torch.ones_like(image_of_mask, dtype=torch.bool)
    if variant.get("zero_masks"):
        chosen[:] = False
    if variant.get("one_image"):
        chosen = image_of_mask == image_of_mask[0]
    leaf = inputs[variant["logits"]].requires_grad_()
    areas = inputs[variant["areas"]][chosen] if "areas" in variant else None
    criterion = ReweightCELoss(
        temperature=variant["temperature"],
        balance_cls=variant["balance_cls"],
        ignore_empty=variant.get("ignore_empty", False),
        ignore_index=variant["ignore_index"],
        ignore_nan=variant.get("ignore_nan", False),
    )
    labels = inputs[variant["labels"]][chosen]
    loss = criterion(leaf[chosen], labels, image_of_mask[chosen], num_images, areas)
    # Without masks the published loss has no gradient; ours has one, of zeros.
    assert loss.requires_grad or not variant["loss_is_differentiable"]
    expected = {
        k.split("/")[1]: v for k, v in outputs.items() if k.startswith(variant["name"] + "/")
    }
    assert_close(loss, expected["loss"], **case.tolerance)
    loss.backward()
    if "grad_logits" in expected and len(labels):
        assert_close(leaf.grad[chosen], expected["grad_logits"], equal_nan=True, **case.tolerance)


@pytest.mark.parametrize("case", cases("templates"), ids=str)
def test_templates(case: GoldenCase) -> None:
    for name, expected in case.info["templates"].items():
        lines = "\n".join(TEMPLATES[name])
        assert len(TEMPLATES[name]) == expected["count"]
        digest = hashlib.sha256(lines.encode()).hexdigest()
        assert digest == expected["sha256_of_lines_joined_with_newline"]


class TestClassLogits:
    """Golden case class_logits: synonyms, overlap, ensemble, void."""

    @pytest.fixture(params=cases("class_logits"), ids=str)
    def case(self, request: pytest.FixtureRequest) -> GoldenCase:
        case: GoldenCase = request.param
        return case

    @staticmethod
    def vocabularies(case: GoldenCase) -> tuple[Vocabulary, Vocabulary]:
        config = case.info["config"]
        return (
            Vocabulary.from_class_names(config["train_classes"]),
            Vocabulary.from_class_names(config["test_classes"]),
        )

    def test_words(self, case: GoldenCase) -> None:
        train, test = self.vocabularies(case)
        config, outputs = case.info["config"], case.tensors("outputs")
        assert [list(synonyms) for synonyms in test.classes] == config["test_synonyms"]
        assert [list(synonyms) for synonyms in train.classes] == config["train_synonyms"]
        assert torch.equal(test.seen_in(train), outputs["overlap"])
        assert torch.equal(test.class_of_train_class(train), outputs["lut"].long())
        assert list(test.num_synonyms) == outputs["num_synonyms"].tolist()
        classifier = TextClassifier(tiny_text_tower(), config["templates"])
        assert classifier.sentences(test.synonyms) == config["sentences"]

    def test_maximum_over_synonyms(self, case: GoldenCase) -> None:
        _, test = self.vocabularies(case)
        inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
        counts = case.info["config"]["masks_per_image"]
        for name, expected_name in (
            ("corrs", "class_logits"),
            ("corrs_with_void", "class_logits_with_void"),
        ):
            result = max_over_synonyms(inputs[name], test.class_of_synonym, len(test))
            for index, logits in enumerate(result.split(counts)):
                expected = outputs.get(f"{expected_name}/{index}")
                if expected is not None:
                    assert_close(logits, expected, **case.tolerance)

    def test_void_without_ensemble(self, case: GoldenCase) -> None:
        inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
        for kind, index in itertools.product(("open", "closed"), (0, 1, 2)):
            logits = append_void(outputs[f"class_logits/{index}"], inputs[f"{kind}_logits/{index}"])
            assert_close(logits, outputs[f"void_only_{kind}/{index}"], **case.tolerance)
        logits = append_void(outputs["class_logits/0"][:2], inputs["saturated_logits"])
        assert_close(logits, outputs["void_saturated"], **case.tolerance)

    def test_ensemble_and_void(self, case: GoldenCase) -> None:
        train, test = self.vocabularies(case)
        inputs, outputs = case.tensors("inputs"), case.tensors("outputs")
        seen, table = test.seen_in(train), test.class_of_train_class(train)
        for variant in case.info["variants"]:
            kind = "closed" if variant["closed"] else "open"
            for index in range(len(case.info["config"]["masks_per_image"])):
                ours = outputs[f"class_logits/{index}"]
                original = inputs[f"{kind}_logits/{index}"]
                theirs = original[:, :-1]
                if variant["closed"]:
                    theirs = train_to_test_logits(original, table, len(test))
                result = geometric_ensemble(ours, theirs, seen, variant["alpha"], variant["beta"])
                prefix = f"{variant['name']}/"
                assert_close(result, outputs[f"{prefix}ensembled/{index}"], **case.tolerance)
                assert_close(
                    append_void(result, original),
                    outputs[f"{prefix}with_void/{index}"],
                    **case.tolerance,
                )


def test_half_precision_ensemble_is_finite() -> None:
    """In float16 the published constant 1e-8 vanishes and gives NaN."""
    logits = torch.tensor([[30.0, -30.0]], dtype=torch.float16)
    theirs = torch.tensor([[-30.0, 30.0]], dtype=torch.float16)
    seen = torch.tensor([True, False])
    assert geometric_ensemble(logits, theirs, seen, 0.0, 1.0).isfinite().all()

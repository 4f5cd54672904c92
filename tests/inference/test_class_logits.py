"""Logits per name -> logits per class: synonyms, ensemble and void."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from benchmarks.plain import model as plain
from maskclippp.inference.class_logits import (
    EPSILON,
    append_void,
    combine_with_generator,
    geometric_ensemble,
    max_over_synonyms,
    train_to_test_logits,
)
from maskclippp.inference.settings import InferenceSettings
from maskclippp.words.vocabulary import Vocabulary


def random_vocabulary(num_classes: int) -> Vocabulary:
    counts = torch.randint(1, 5, (num_classes,)).tolist()
    return Vocabulary(tuple(tuple(f"{c}.{s}" for s in range(n)) for c, n in enumerate(counts)))


@pytest.mark.parametrize("num_masks", [0, 1, 7])
@pytest.mark.parametrize("num_classes", [1, 2, 30])
@pytest.mark.parametrize("void", [0, 1])
def test_maximum_over_synonyms_equals_loop_over_classes(
    num_masks: int, num_classes: int, void: int
) -> None:
    words = random_vocabulary(num_classes)
    logits = torch.randn(num_masks, len(words.synonyms) + void)
    found = max_over_synonyms(logits, words.class_of_synonym, num_classes)
    assert torch.equal(found, plain.class_logits(logits, words))


def test_each_mask_trains_the_best_name_of_a_class_alone() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    max_over_synonyms(logits, torch.tensor([0, 0, 1]), 2).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 1.0, 1.0]]


def test_train_logits_are_averaged_per_test_class() -> None:
    table = torch.tensor([1, 3, 1, 0, 3])  # 3: no test class; the last entry is void
    found = train_to_test_logits(torch.tensor([[2.0, 9.0, 4.0, -1.0, 7.0]]), table, 3)
    assert found.tolist() == [[-1.0, 3.0, 0.0]]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("beta", [0.0, 0.8, 1.0])
def test_ensemble_is_the_weighted_geometric_mean(alpha: float, beta: float) -> None:
    ours, theirs, seen = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([1, 0, 1, 0]).bool()
    p, g = ours.softmax(dim=1), theirs.softmax(dim=1)
    weight = torch.tensor([alpha if known else beta for known in seen])
    expected = (g ** (1 - weight) * p**weight + EPSILON).log()
    assert_close(geometric_ensemble(ours, theirs, seen, alpha, beta), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype: torch.dtype) -> None:
    ours, theirs = (torch.randn(5, 4).mul(30).to(dtype) for _ in range(2))
    seen = torch.tensor([True, False, True, False])
    for weight in (0.0, 0.5, 1.0):
        logits = geometric_ensemble(ours, theirs, seen, weight, weight)
        assert logits.dtype == torch.float32
        assert append_void(logits, theirs).isfinite().all()


def test_mixed_precisions_are_accepted() -> None:
    table = torch.tensor([0, 1, 2])
    theirs: Tensor = train_to_test_logits(torch.randn(5, 3).half(), table, 2)
    logits = geometric_ensemble(torch.randn(5, 2), theirs, torch.tensor([True, False]), 0.3, 0.7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_an_impossible_class_with_weight_zero_does_no_harm(weight: float) -> None:
    """Of the generator if the weight of the mask classifier is 1, else of the latter."""
    impossible, even = torch.tensor([[float("-inf"), 0.0]]), torch.zeros(1, 2)
    ours, theirs = (even, impossible) if weight else (impossible, even)
    logits = geometric_ensemble(ours, theirs, torch.tensor([True, True]), weight, weight)
    assert_close(logits.exp(), torch.full((1, 2), 0.5))


def test_void_keeps_its_probability() -> None:
    ours, theirs = torch.randn(5, 4), torch.randn(5, 3)
    chances = append_void(ours, theirs).softmax(dim=1)
    assert_close(chances[:, -1], theirs.softmax(dim=1)[:, -1])
    assert_close(chances[:, :-1].argmax(dim=1), ours.argmax(dim=1))


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_a_confident_classifier_lowers_the_void_probability(ensemble: bool, weight: float) -> None:
    ours, theirs, seen = torch.randn(5, 4) * 4, torch.randn(5, 5), torch.tensor([1, 0, 1, 0]).bool()
    settings = InferenceSettings(
        ensemble_on=ensemble, ensemble_alpha=0.3, ensemble_beta=0.7, clip_trust_weight=weight
    )
    p, v = ours.softmax(dim=1), theirs.softmax(dim=1)[:, -1:]
    v = v * (1 - weight * p.max(dim=1, keepdim=True).values)
    if ensemble:
        p = geometric_ensemble(ours, theirs[:, :-1], seen, 0.3, 0.7).softmax(dim=1)
    expected = (torch.cat([p * (1 - v), v], dim=1) + EPSILON).log()
    assert_close(combine_with_generator(ours, theirs, seen, None, settings), expected)


def test_without_trust_void_is_what_the_generator_says() -> None:
    ours, theirs, seen = torch.randn(50, 4), torch.randn(50, 5), torch.ones(4).bool()
    found = combine_with_generator(ours, theirs, seen, None, InferenceSettings())
    assert torch.equal(found, append_void(ours, theirs))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_trust_is_a_share(weight: float) -> None:
    with pytest.raises(ValueError, match=r"CLIP_TRUST_WEIGHT: expected a number from 0 to 1"):
        InferenceSettings(clip_trust_weight=weight)


def test_what_is_impossible_has_the_probability_of_the_paper() -> None:
    """1e-8, as published: other constants reorder classes that are nearly impossible."""
    ours, theirs = torch.tensor([[0.0, -1000.0]]), torch.tensor([[0.0, -1000.0]])
    chances = geometric_ensemble(ours, theirs, torch.tensor([True, True]), 0.5, 0.5).exp()
    assert chances[0, 1].item() == pytest.approx(1e-8, rel=1e-5)
    assert append_void(ours, theirs)[0, 2].exp().item() == pytest.approx(1e-8, rel=1e-5)


def test_of_a_generator_whose_classes_have_no_names_only_void_is_used() -> None:
    ours, theirs = torch.randn(5, 4), torch.randn(5, 8)
    seen, settings = torch.ones(4).bool(), InferenceSettings(ensemble_on=True, ensemble_alpha=0.5)
    found = combine_with_generator(ours, theirs, seen, torch.tensor([4]), settings)
    assert torch.equal(found, append_void(ours, theirs))

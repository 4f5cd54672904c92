"""What does not fit a module is named, all of it or with a count."""

import pytest
import torch
from torch import nn

from maskclippp.files.state_dicts import compare, describe_keys, load_exactly, not_finite


def test_long_lists_of_keys_are_shortened_with_a_count() -> None:
    text = describe_keys(["psm.weight", *(f"tower.{index}" for index in range(300))])
    assert text == "1 in psm: weight; 300 in tower: 0, 1, 2, 3, 4 and 295 more"


def test_a_state_dict_is_compared_by_keys_and_shapes() -> None:
    found = compare({"weight": torch.ones(2, 3), "extra": torch.ones(1)}, nn.Linear(2, 2))
    assert found.fitting == {}
    assert found.missing == ["bias"]
    assert found.unexpected == ["extra"]
    assert found.misshapen == ["weight: expected shape [2, 2], found [2, 3]"]


def test_a_state_dict_that_does_not_fit_exactly_is_refused_as_a_whole() -> None:
    module = nn.Linear(2, 2)
    before = module.weight.clone()
    with pytest.raises(
        ValueError, match=r"(?s)'w\.pt' do not fit 'linear' \(1 disagree.*missing bias"
    ):
        load_exactly(module, {"weight": torch.ones(2, 2)}, source="w.pt", model_name="linear")
    assert torch.equal(module.weight, before)


def test_unexpected_keys_are_refused_as_well() -> None:
    state = {**nn.Linear(2, 2).state_dict(), "extra": torch.ones(1)}
    with pytest.raises(ValueError, match=r"(?s)1 disagree.*unexpected extra"):
        load_exactly(nn.Linear(2, 2), state, source="w.pt", model_name="linear")


def test_large_numbers_whose_sum_overflows_are_finite() -> None:
    large, infinite = torch.full((9,), 3e38), torch.tensor([1.0, float("inf")])
    assert not_finite({"large": large, "infinite": infinite, "count": torch.ones(2).int()}) == [
        "infinite"
    ]

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


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_numbers_of_another_kind_do_not_fit(dtype: torch.dtype) -> None:
    """Quantized weights without their scale would load as other weights."""
    state = {"weight": torch.ones(2, 2, dtype=dtype), "bias": torch.ones(2, dtype=torch.float16)}
    found = compare(state, nn.Linear(2, 2))
    assert list(found.fitting) == ["bias"]
    assert found.misshapen == [f"weight: expected real numbers (torch.float32), found {dtype}"]


def test_counters_may_be_of_any_type() -> None:
    norm = nn.BatchNorm1d(2)
    state = {**norm.state_dict(), "num_batches_tracked": torch.tensor(3.0)}
    assert not compare(state, norm).misshapen


def test_a_file_of_another_model_is_told_from_one_that_lacks_tensors() -> None:
    """At a tenth of the keys, what is missing is listed."""
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(5)))
    for state, message in (
        ({"0.weight": torch.ones(1, 1)}, r"(?s)disagreements\):\n  missing 0\.bias"),
        ({"weight": torch.ones(1, 1)}, "only 0 of the model's 10 tensors are in the file"),
    ):
        with pytest.raises(ValueError, match=message):
            load_exactly(module, state, source="w.pt", model_name="chain")

"""Copies that need not be waited for, the precision of float32, and the cores of a process."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch.overrides import TorchFunctionMode

from maskclippp.devices import copied_to, set_float32_precision, share_cores
from maskclippp.errors import InputError


@pytest.mark.parametrize(("kind", "waits"), [("cuda", False), ("mps", True), ("cpu", True)])
def test_only_copies_to_gpus_that_are_safe_are_not_waited_for(kind: str, waits: bool) -> None:
    """No such device is needed: the copy is only asked for."""
    asked = []

    class Requests(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function is torch.Tensor.to:
                asked.append(kwargs["non_blocking"])
                return args[0]
            return function(*args, **(kwargs or {}))

    with Requests():
        copied_to(torch.ones(1), torch.device(kind))
    assert asked == [not waits]


@pytest.fixture
def precision() -> Iterator[None]:
    """Restore the settings of PyTorch."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize(
    ("asked", "products", "convolutions"),
    [("", "highest", False), ("highest", "highest", False), ("medium", "medium", True)],
)
def test_one_key_sets_the_precision_of_products_and_convolutions(
    asked: str, products: str, convolutions: bool
) -> None:
    set_float32_precision("high")
    set_float32_precision(asked)
    assert torch.get_float32_matmul_precision() == products
    assert torch.backends.cudnn.allow_tf32 == convolutions


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="FLOAT32_PRECISION: 'tf32' is not one of"):
        set_float32_precision("tf32")


@pytest.mark.parametrize(
    ("processes", "set_before", "expected"),
    [(1, None, None), (2, None, "share"), (10**6, None, "1"), (2, "7", "7")],
)
def test_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, processes: int, set_before: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_before:
        monkeypatch.setenv("OMP_NUM_THREADS", set_before)
    share_cores(processes)
    if expected == "share":
        expected = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert os.environ.get("OMP_NUM_THREADS") == expected
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

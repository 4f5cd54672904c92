"""Copies between devices that need not be waited for."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from maskclippp.devices import copied_to


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

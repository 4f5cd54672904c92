"""Copies between the host and a device."""

import torch
from torch import Tensor


def copied_to(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; the host does not wait for a GPU of which it is safe.

    To the host, a copy that is not waited for may be read before it is complete. Apple's GPUs read
    the memory of the source later, when it may belong to something else (PyTorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))

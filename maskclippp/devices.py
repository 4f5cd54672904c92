"""What the devices of a run are asked for: copies, precision and cores."""

import os

import torch
from torch import Tensor

from maskclippp.errors import check_choice

PRECISIONS = ("", "highest", "high", "medium")


def copied_to(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on ``device``; the host does not wait for a GPU of which it is safe.

    To the host, a copy that is not waited for may be read before it is complete. Apple's GPUs read
    the memory of the source later, when it may belong to something else (PyTorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type not in ("cpu", "mps"))


def set_float32_precision(precision: str) -> None:
    """What FLOAT32_PRECISION allows this process to do with float32.

    Args:
        precision: "" or "highest" for float32 everywhere, also in convolutions of GPUs, where
            PyTorch allows TensorFloat-32 by default; "high" or "medium" to allow it there and in
            matrix products, which "medium" may compute in bfloat16, also on CPUs that can.

    Raises:
        InputError: another precision.
    """
    check_choice("FLOAT32_PRECISION:", precision, PRECISIONS)
    torch.set_float32_matmul_precision(precision or "highest")
    torch.backends.cudnn.allow_tf32 = precision in ("high", "medium")


def share_cores(processes: int) -> None:
    """Give each process that is started from here its share of the cores for PyTorch's threads.

    A share that is set, as OMP_NUM_THREADS, is kept.
    """
    if processes > 1:
        has_affinity = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))

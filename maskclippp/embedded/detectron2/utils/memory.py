"""Retries when GPU memory is exhausted."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["retry_if_cuda_oom"]


def retry_if_cuda_oom(func: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``func``: if GPU memory runs out, retry with an emptied cache, then on the CPU.

    For the CPU, tensors among the arguments, but not those in containers, are copied; the result is
    on the CPU. Repeated calls of ``func`` must be harmless.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for prepare in (None, torch.cuda.empty_cache):
            if prepare is not None:
                prepare()
            try:
                return func(*args, **kwargs)
            except torch.cuda.OutOfMemoryError:
                continue
        logging.getLogger(__name__).warning(
            "GPU memory is exhausted in %s: running it on the CPU", getattr(func, "__name__", func)
        )
        on_cpu = [_to_cpu(value) for value in args]
        return func(*on_cpu, **{name: _to_cpu(value) for name, value in kwargs.items()})

    return wrapped


def _to_cpu(value: Any) -> Any:
    is_gpu_tensor = isinstance(value, torch.Tensor) and value.device.type == "cuda"
    return value.to("cpu") if is_gpu_tensor else value

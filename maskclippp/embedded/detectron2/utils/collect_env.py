"""Describes the software and hardware of this machine, for logs and bug reports."""

import importlib.metadata
import os
import platform
import sys

import torch
from tabulate import tabulate

__all__ = ["collect_env_info"]

_PACKAGES = ("torch", "torchvision", "numpy", "fvcore", "iopath", "open_clip_torch", "timm")


def collect_env_info() -> str:
    """A two-column text table: platform, Python, package versions, GPUs."""
    import detectron2

    rows = [
        ("platform", platform.platform()),
        ("python", sys.version.replace("\n", " ")),
        ("detectron2", f"{detectron2.__version__} ({os.path.dirname(detectron2.__file__)})"),  # noqa: PTH120
    ]
    rows += [(name, _version(name)) for name in _PACKAGES]
    rows.append(("CUDA of torch", str(torch.version.cuda)))
    if torch.cuda.is_available():
        rows += [
            (f"GPU {index}", torch.cuda.get_device_name(index))
            for index in range(torch.cuda.device_count())
        ]
    else:
        rows.append(("GPU", "none available"))
    return tabulate(rows)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

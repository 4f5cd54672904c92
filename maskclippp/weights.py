"""Reads weight files without ever running code from them."""

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

# Entries under which the state dict may sit in a file, in the order in which they are tried.
_WRAPPERS = ("state_dict", "model", "module")


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` or PyTorch file, on the CPU.

    The dictionary may sit under ``state_dict``, ``model`` or ``module``, and its keys may have
    the prefix ``module.`` of data-parallel training; both are removed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds pickled code, or holds no tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain containers and was not loaded, because "
            f"unpickling could run code ({_first_line(error)}). Ask its author for a safetensors "
            "file or a plain state dict"
        ) from error
    except (RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged or no weights file: {_first_line(error)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors, found {type(content)}")
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not state:
        raise ValueError(f"{path} holds no tensors; its entries are {sorted(content)[:5]}")
    return {k.removeprefix("module."): v for k, v in state.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

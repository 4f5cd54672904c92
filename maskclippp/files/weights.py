"""Reads weights and checkpoints as data: tensors and plain containers, never code."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.pickles import ForbiddenPickleError, read_numpy_pickle
from maskclippp.files.torchscript import ARCHIVE_DAMAGE, is_torchscript, read_torchscript

# Where other projects keep the state dict, in the order in which the entries are tried.
_WRAPPERS = ("state_dict", "model", "module")


class CheckpointError(InputError):
    """A checkpoint cannot be used; the message names the file, the reason and the remedy."""


class UnreadableCheckpointError(CheckpointError):
    """The file is damaged: truncated, or not a checkpoint."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, with the model's tensors under ``"model"``.

    Accepts torch files (a state dict, or a dictionary with ``model`` and more), TorchScript
    archives, safetensors, and pickles of NumPy arrays (``.pkl``, as Detectron wrote them).

    Raises:
        FileNotFoundError: no such file.
        UnreadableCheckpointError: the file is damaged.
        CheckpointError: the file contains pickled code or no state dict, or has another format.
    """
    content = _read_dictionary(path)
    wrapped: dict[str, Any] = (
        content if isinstance(content.get("model"), dict) else {"model": content}
    )
    foreign = sorted(
        str(key) for key, value in wrapped["model"].items() if not isinstance(value, Tensor)
    )
    if foreign:
        raise CheckpointError(
            f"checkpoint {path} contains no state dict of tensors, neither at the top level nor "
            f"under 'model': entries {foreign[:5]} are not tensors"
        )
    return wrapped


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of any project, on the CPU.

    It may be nested under ``state_dict``, ``model`` or ``module``, and its keys may have the prefix
    ``module.`` of data-parallel training; both are removed. Entries that are not tensors are
    skipped. Raises the errors of :func:`read_checkpoint`.
    """
    content = _read_dictionary(path)
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{path} contains no tensors; its entries are {sorted(content)[:5]}")
    return strip_common_prefix(state, "module.")


def strip_common_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The state dict without ``prefix`` if every key has it, else unchanged."""
    if not all(key.startswith(prefix) for key in state):
        return state
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _read_dictionary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(
            f"checkpoint {path} does not exist: check MODEL.WEIGHTS, PRETRAINED or LOAD_FROM (a "
            "path relative to the working directory, or an absolute one)"
        )
    content = _read(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"checkpoint {path}: expected a dictionary, found {type(content).__name__}"
        )
    return content


def _read(path: Path) -> Any:
    is_pickle, is_archive = path.suffix == ".pkl", is_torchscript(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if is_pickle:
            return read_numpy_pickle(path)
        if is_archive:
            return read_torchscript(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except ForbiddenPickleError as error:
        kind = (
            "a pickle that contains more than NumPy arrays and plain containers"
            if is_pickle
            else "a TorchScript archive that contains more than modules and tensors"
        )
        raise CheckpointError(
            f"checkpoint {path} is {kind}: {error}. Reading that could execute code, so it is "
            "refused: convert it to .safetensors or to a .pth state dict"
        ) from error
    except (*ARCHIVE_DAMAGE, safetensors.SafetensorError, AssertionError) as error:
        # torch raises the same type for forbidden content and for damaged pickles.
        refused = isinstance(error, pickle.UnpicklingError) and not (is_pickle or is_archive)
        if refused and (zipfile.is_zipfile(path) or "nsupported" in str(error)):
            raise CheckpointError(
                f"checkpoint {path} contains pickled code or objects and is refused, because "
                f"reading it could execute anything ({_first_line_about_code(str(error))}): save "
                "a state dict of tensors only"
            ) from error
        reason = str(error).strip().split("\n", maxsplit=1)[0] or "it is empty"
        raise UnreadableCheckpointError(
            f"checkpoint {path} is damaged, probably truncated, or not a checkpoint: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _first_line_about_code(message: str) -> str:
    """The line of torch's long message that names what was refused."""
    lines = [line.strip() for line in message.splitlines()]
    return next((line for line in lines if "nsupported" in line), lines[0])

"""Reads weights and checkpoints as data: tensors and plain containers, never code."""

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from maskclippp.errors import InputError, MissingFileError
from maskclippp.files.archives import ARCHIVE_DAMAGE
from maskclippp.files.pickles import ForbiddenPickleError, read_numpy_pickle
from maskclippp.files.seal import is_sealed, verify_seal
from maskclippp.files.shards import index_of, read_index
from maskclippp.files.signatures import (
    LEGACY_TORCH,
    ZIP,
    first_bytes,
    foreign_kind,
    is_safetensors,
)
from maskclippp.files.torch_files import read_legacy_torch, read_torch_zip

logger = logging.getLogger(__name__)

# Where projects keep the state dict, in the order in which the entries are tried. Averaged weights
# (EMA) are taken if there are no others.
_WRAPPERS = (
    *("state_dict", "model", "module", "model_state_dict", "model_state", "net", "params"),
    *("model_ema", "ema_model", "ema", "state_dict_ema", "ema_state_dict", "module_ema"),
    *("params_ema", "shadow_params", "teacher"),
)
# What training puts before all keys, or before one of several copies of the weights.
_PREFIXES = ("module.", "model.", "clip.", "clip_model.", "net.")
_AVERAGED_PREFIXES = ("model_ema.", "ema_model.", "ema.", "module_ema.", "teacher.")
_COMPILED = "_orig_mod."
_COUNTERS = frozenset({"n_averaged", "num_updates", "decay", "step"})  # of averaged weights


class CheckpointError(InputError):
    """A checkpoint cannot be used; the message names the file, the reason and the remedy."""


class UnreadableCheckpointError(CheckpointError):
    """The file is damaged: truncated, or not a checkpoint."""


def read_checkpoint(path: Path, *, known: Collection[str] = ()) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU, with the model's tensors under ``"model"``.

    Formats, layouts and ``known`` as in :func:`read_weights`. Other entries of the file, such as
    ``iteration`` and ``trainer``, are kept.

    Raises:
        MissingFileError: no such file.
        UnreadableCheckpointError: the file is damaged, or does not hold what it held when we wrote
            it.
        CheckpointError: the file contains pickled code or no tensors, or has another format.
    """
    content = _read_dictionary(path)
    state, wrapper = _find_state(content, path, known)
    others = {key: value for key, value in content.items() if wrapper and key != wrapper}
    return {**others, "model": state}


def read_weights(path: Path, *, known: Collection[str] = ()) -> dict[str, Tensor]:
    """The state dict in a file of any project, on the CPU.

    Formats, recognized by content: torch files of all versions, TorchScript archives, safetensors,
    pickles of NumPy arrays, as Detectron wrote them, and the index file of sharded weights, or the
    folder that contains them.

    The tensors may be nested under ``state_dict``, ``model``, ``module`` and similar names, and
    their keys may have the prefixes of data-parallel training, compilation and averaging; all are
    removed. Entries that are not tensors are skipped. The log says what was taken.

    Args:
        path: the file.
        known: keys that the caller expects, or their beginnings; no prefix of them is removed.

    Raises:
        the errors of :func:`read_checkpoint`.
    """
    return _find_state(_read_dictionary(path), path, known)[0]


def _find_state(
    content: Mapping[Any, Any], path: Path, known: Collection[str]
) -> tuple[dict[str, Tensor], str]:
    """The tensors by name, and the name of the outermost wrapper ("" if there is none)."""
    wrappers: list[str] = []
    while not wrappers or wrappers[-1]:
        found = [name for name in _WRAPPERS if isinstance(content.get(name), dict)]
        wrappers.append(found[0] if found else "")
        content = content[found[0]] if found else content
        if found[1:]:
            logger.info("%s: took %r, not %s", path, found[0], ", ".join(map(repr, found[1:])))
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    state, removed = _without_prefixes(
        {key: value for key, value in tensors.items() if isinstance(key, str)}, known
    )
    if not state:
        entries = [str(key)[:40] for key in list(content)[:5]]
        raise CheckpointError(f"checkpoint {path} contains no tensors; its entries are {entries}")
    names = ".".join(name for name in wrappers if name)
    if names not in ("", "model") or removed:
        logger.info(
            "%s: took the %d tensors %s%s",
            *(path, len(state), f"under {names!r}" if names else "of the file"),
            f", without the prefixes {removed}" if removed else "",
        )
    if len(tensors) < len(content):
        others = [str(key)[:40] for key in content if key not in tensors]
        logger.info(
            "%s: skipped %d entries that are not tensors: %s", path, len(others), others[:5]
        )
    return state, wrappers[0]


def _without_prefixes(
    state: dict[str, Tensor], known: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict without the prefixes of wrappers, and those that were removed."""
    removed: list[str] = []
    if any(_COMPILED in key for key in state):
        state = {key.replace(_COMPILED, ""): value for key, value in state.items()}
        removed.append(_COMPILED)
    while True:
        keys = [key for key in state if key not in _COUNTERS]
        averaged = [key for key in keys if key.startswith(_AVERAGED_PREFIXES)]
        others = [key for key in keys if not key.startswith(_AVERAGED_PREFIXES)] or averaged
        prefix = next((p for p in _PREFIXES + _AVERAGED_PREFIXES if _all_have(others, p)), None)
        if prefix is None or any(key.startswith(prefix) for key in known):
            return state, removed
        state = {key.removeprefix(prefix): state[key] for key in others}
        removed.append(prefix)


def _all_have(keys: Collection[str], prefix: str) -> bool:
    return bool(keys) and all(key.startswith(prefix) for key in keys)


def _read_dictionary(path: Path) -> dict[Any, Any]:
    index = index_of(path)
    if index is not None:
        content: Any = {}
        for shard, keys in read_index(index).items():
            part = _read_dictionary(shard)
            lacking = sorted(keys - part.keys())
            if lacking:
                raise UnreadableCheckpointError(
                    f"checkpoint {shard} is damaged: it lacks {lacking[:3]}, which {index} expects"
                )
            content |= part
        return dict(content)
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


def _read_zip(path: Path) -> Any:
    """Read a file of torch, and verify its seal at the same time or else its members' checksums."""
    if not is_sealed(path):
        return read_torch_zip(path)
    with ThreadPoolExecutor(1) as executor:
        verified = executor.submit(verify_seal, path)
        content = read_torch_zip(path, verify=False)
        verified.result()
    return content


def _read(path: Path) -> Any:
    try:
        head = first_bytes(path)
        foreign = foreign_kind(head)
        if foreign:
            raise UnreadableCheckpointError(
                f"checkpoint {path} is damaged, or not a checkpoint: it is {foreign}"
            )
        if is_safetensors(head):
            return safetensors.torch.load_file(path)
        if head.startswith(ZIP):
            return _read_zip(path)
        if head.startswith(LEGACY_TORCH):
            return read_legacy_torch(path)
        return read_numpy_pickle(path)
    except CheckpointError:
        raise
    except PermissionError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except ForbiddenPickleError as error:
        raise CheckpointError(
            f"checkpoint {path} contains pickled code or objects and is refused, because reading "
            f"it could execute anything ({error}): save a state dict of tensors only, as .pth or "
            ".safetensors"
        ) from error
    except (*ARCHIVE_DAMAGE, safetensors.SafetensorError) as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0] or "it is empty"
        raise UnreadableCheckpointError(
            f"checkpoint {path} is damaged, probably truncated, or not a checkpoint: "
            f"{type(error).__name__}: {reason}"
        ) from error

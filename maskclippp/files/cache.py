"""The user's cache: text embeddings, downloaded class lists, and the drawn shapes world."""

import hashlib
import logging
import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from maskclippp.files.atomic import atomic_write, remove_leftovers

logger = logging.getLogger(__name__)

_NAME, _DAY = "tensor", 86_400.0


def cache_folder() -> Path:
    """The absolute path of ``$MASKCLIPPP_CACHE``; by default ``~/.cache/maskclippp``."""
    root = os.environ.get("MASKCLIPPP_CACHE", "~/.cache/maskclippp")
    return Path(root).expanduser().absolute()


def read_cached_tensor(path: Path, rows: int) -> Tensor | None:
    """The tensor [rows, ...] that :func:`write_cached_tensor` wrote; None if there is none.

    One that is damaged or of another shape is reported, and not returned.
    """
    try:
        if not path.is_file():
            return None
        with safetensors.safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(_NAME)
            written = (file.metadata() or {}).get("sha256")
        if len(tensor) == rows and _sha256(tensor) == written:
            return tensor
        reason = "its checksum or shape is wrong"
    except (safetensors.SafetensorError, OSError, RuntimeError, TypeError) as error:
        reason = str(error)
    logger.warning("%s in the cache is damaged (%s): computing it again", path, reason)
    return None


def write_cached_tensor(path: Path, tensor: Tensor) -> None:
    """Write with a checksum, completely or not at all; if it fails, only log a warning."""
    tensor = tensor.cpu().contiguous()
    content = safetensors.torch.save({_NAME: tensor}, {"sha256": _sha256(tensor)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, older_than=_DAY)
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        logger.warning("%s could not be kept in the cache: %s", path, error)


def _sha256(tensor: Tensor) -> str:
    content = tensor.contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().data).hexdigest()

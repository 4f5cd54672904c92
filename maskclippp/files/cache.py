"""The user's cache: text embeddings, downloaded class lists, and the drawn shapes world."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The absolute path of ``$MASKCLIPPP_CACHE``; by default ``~/.cache/maskclippp``."""
    root = os.environ.get("MASKCLIPPP_CACHE", "~/.cache/maskclippp")
    return Path(root).expanduser().absolute()

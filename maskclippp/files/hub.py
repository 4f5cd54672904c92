"""Models of the Hugging Face Hub: a folder for a name, with the files that are data, not code."""

import contextlib
import functools
import logging
import re
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants as settings
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from maskclippp.errors import InputError, MissingFileError

logger = logging.getLogger(__name__)

# Configurations, tokenizers, weights. Python files and pickles are never fetched.
_FILES = ["*.json", "*.txt", "*.safetensors"]
_SUBFOLDERS = ["*/*"]
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_SECONDS = 10
# What can go wrong with a name, an address or the network.
HUB_ERRORS = (HTTPError, HFValidationError, OSError)


def model_folder(name: str, revision: str, key: str) -> Path:
    """The folder of a model: ``name`` itself, or the copy of a Hub model in the user's cache.

    A model of a pinned commit that was fetched before is found without network.

    Args:
        name: a folder, or the name of a model on the Hub, such as ``facebook/sam-vit-base``.
        revision: of a Hub model: a commit, tag or branch.
        key: the config key that holds ``name``, for messages.

    Raises:
        InputError: no such model or revision, a gated model, or a model without safetensors.
        MissingFileError: a folder that does not exist, or the Hub cannot be reached.
    """
    if not name:
        raise MissingFileError(
            f"{key}: no model is named; give its name on the Hugging Face Hub, or the folder that "
            "holds its config.json, preprocessor_config.json and model.safetensors"
        )
    path = Path(name).expanduser()
    if not path.is_dir() and not _NAME.fullmatch(name):
        raise MissingFileError(
            f"{key}: {name!r} is not a folder (looked in {Path.cwd()}), nor a name on the Hugging "
            "Face Hub, which has the form owner/model"
        )
    folder = path if path.is_dir() else _snapshot(name, revision, key)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{key}: {name} has no config.json, so it is no model of the transformers library; "
            f"{folder} has {sorted(file.name for file in folder.iterdir())[:8]}"
        )
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{key}: {name} has no weights in the safetensors format, and pickled weights, which "
            "can execute code, are not read; on the Hub, converted weights are often proposed "
            "under SEGMENTOR.REVISION refs/pr/1; or save the model again by save_pretrained"
        )
    return folder


def _snapshot(name: str, revision: str, key: str) -> Path:
    try:
        return snapshot_folder(name, revision, _FILES, _SUBFOLDERS)
    except GatedRepoError as error:
        raise InputError(
            f"{key}: {name} is gated: accept its license at {settings.ENDPOINT}/{name}, then run "
            "'hf auth login' or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{key}: {name!r} is neither a folder (looked in {Path.cwd()}) nor a public model on "
            f"{settings.ENDPOINT}; check the spelling, or set HF_TOKEN for a private one"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"SEGMENTOR.REVISION: {name} has no revision {revision!r}; "
            f"{settings.ENDPOINT}/{name}/commits/main lists its commits"
        ) from error
    except HUB_ERRORS as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise MissingFileError(
            f"{key}: {name} is not on this machine, and {settings.ENDPOINT} could not be reached "
            f"({reason}); on a machine with network run 'hf download {name} --revision {revision} "
            f"--local-dir FOLDER', copy FOLDER here and give its path as PRETRAINED, or set "
            "HF_HUB_CACHE to a cache that holds it"
        ) from error


def snapshot_folder(
    name: str, revision: str | None, patterns: list[str], ignored: list[str] | None = None
) -> Path:
    """The copy of a model on the Hub in the user's cache, downloaded if the Hub can be reached.

    Args:
        name: of the model.
        revision: commit, tag or branch; None: the main branch.
        patterns: of the files that are fetched.
        ignored: patterns of files that are not.

    Raises:
        Exception: one of ``HUB_ERRORS``; without network it comes at once.
    """
    snapshot = functools.partial(
        huggingface_hub.snapshot_download,
        name,
        revision=revision,
        allow_patterns=patterns,
        ignore_patterns=ignored,
    )
    if revision is not None and _COMMIT.fullmatch(revision):
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot(local_files_only=True))
    try:
        # Without network this fails at once, where the download would try for half a minute.
        info = huggingface_hub.HfApi().model_info(name, revision=revision, timeout=_TIMEOUT_SECONDS)
    except (HTTPError, OSError):
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(snapshot(local_files_only=True))
        raise
    logger.info("%s: revision %s is commit %s", name, revision, info.sha)
    return Path(snapshot())

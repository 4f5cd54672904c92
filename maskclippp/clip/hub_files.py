"""Tokenizers and settings of text towers that a model takes from the Hugging Face Hub."""

from pathlib import Path

from maskclippp.errors import MissingFileError
from maskclippp.files.hub import HUB_ERRORS, snapshot_folder

_FOLDER = Path("pretrained")
# What tokenizers and configurations consist of. Weights come from PRETRAINED, code from nowhere.
_PATTERNS = ["*.json", "*.txt", "*.model"]


def hub_folder(repository: str, what: str) -> Path:
    """A folder with the small files of a repository on the Hub.

    ``pretrained/<repository>`` of the working directory if it exists, else Hugging Face's cache,
    into which the files are downloaded once.

    Args:
        repository: its name, such as ``timm/ViT-B-16-SigLIP2``.
        what: what the files are needed for, for the message of the error.

    Raises:
        MissingFileError: they are not on this machine and cannot be downloaded.
    """
    by_hand = _FOLDER / repository
    if by_hand.is_dir():
        return by_hand
    try:
        return snapshot_folder(repository, None, _PATTERNS)
    except HUB_ERRORS as error:
        reason = str(error).splitlines()[0].rstrip(":. ")
        raise MissingFileError(
            f"MODEL_NAME: {what} is that of {repository} on the Hugging Face Hub, which is not on "
            f"this machine and could not be downloaded ({reason}); download its files "
            f"({', '.join(_PATTERNS)}) elsewhere and put them into {by_hand} in the working "
            "directory"
        ) from error

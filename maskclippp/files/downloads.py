"""Downloads: verified by hash, atomic, and only once.

``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are respected.
"""

import hashlib
import http.client
import logging
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskclippp.errors import InputError
from maskclippp.files.atomic import atomic_write

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


@dataclass(frozen=True)
class RemoteFile:
    """A published file and its place on this machine."""

    url: str
    path: Path
    sha256: str

    def is_here(self) -> bool:
        """Whether the file exists and has the right content."""
        return self.path.is_file() and _sha256(self.path) == self.sha256


class DownloadError(InputError, OSError):
    """Files could not be downloaded; lists what to fetch by hand and where to put it."""


def download_all(files: Sequence[RemoteFile]) -> int:
    """Download the files that are missing or wrong, and return their number.

    The next call continues an interrupted one.

    Raises:
        DownloadError: some could not be fetched, or differ from what was published.
    """
    absent = [file for file in files if not file.is_here()]
    failures = []
    for file in absent:
        try:
            _download(file)
        except (*_NETWORK_ERRORS, ValueError) as error:
            failures.append((file, error))
    if failures:
        listed = "\n".join(
            f"  {file.url}\n    -> {file.path}\n    ({error})" for file, error in failures
        )
        raise DownloadError(
            f"{len(failures)} of {len(files)} files could not be downloaded. If this machine has "
            "no network, download them elsewhere and put them where the arrows point; behind a "
            f"proxy, set HTTPS_PROXY:\n{listed}"
        )
    return len(absent)


def _download(file: RemoteFile) -> None:
    """Download one file; InputError if its content differs from what was published."""
    logger.info("Downloading %s", file.url)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    with (
        # A new opener: the shared one keeps the proxies of its first use.
        urllib.request.build_opener().open(file.url, timeout=_TIMEOUT_SECONDS) as response,
        atomic_write(file.path) as target,
    ):
        shutil.copyfileobj(response, target)
        target.flush()
        found = _sha256(Path(target.name))
        if found != file.sha256:
            raise InputError(f"its SHA-256 is {found}, expected {file.sha256}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()

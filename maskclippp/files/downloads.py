"""Downloads: continued where they broke off, looked at before they are kept, verified by hash.

A file is fetched beside its place, as ``<name>.part``, and moved there when it is complete and of
the right kind. ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` are respected.
"""

import http.client
import json
import logging
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from maskclippp.errors import InputError
from maskclippp.files.atomic import write_json
from maskclippp.files.cache import cache_folder
from maskclippp.files.signatures import first_bytes, foreign_kind, sha256_of_file

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30
_BLOCK = 2**20
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)
_DRIVE = re.compile(r"(https?://[^/]+)/file/d/([\w-]+)")
_SHOWN_TEXT = 100

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class RemoteFile:
    """A published file and its place on this machine; without a hash, the first one is kept."""

    url: str
    path: Path
    sha256: str = ""

    def is_here(self) -> bool:
        """Whether the file exists and has the right content."""
        return self.path.is_file() and self.sha256 in ("", sha256_of_file(self.path))


class DownloadError(InputError, OSError):
    """Files could not be downloaded; lists what to fetch by hand and where to put it."""


def download_all(files: Sequence[RemoteFile], progress: Progress | None = None) -> int:
    """Download the files that are missing or wrong, and return their number.

    The next call continues an interrupted one.

    Args:
        progress: called with the bytes that are here and those of the whole file, if known.

    Raises:
        DownloadError: some could not be fetched, or differ from what was published.
    """
    absent = [file for file in files if not file.is_here()]
    failures = []
    for file in absent:
        try:
            _download(file, progress)
        except (*_NETWORK_ERRORS, OSError, ValueError) as error:
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


def check_recorded(path: Path) -> str:
    """What is wrong with a file that was downloaded before; "" if it is as it was then.

    Size and SHA-256 of every download are recorded in the user's cache.
    """
    recorded = _records().get(str(path.absolute()))
    if recorded is None:
        return ""
    if path.stat().st_size != recorded["size"]:
        return f"it has {path.stat().st_size} bytes, but {recorded['size']} were downloaded"
    found = sha256_of_file(path)
    return "" if found == recorded["sha256"] else f"its SHA-256 is {found}, not as downloaded"


def direct_address(url: str) -> str:
    """The address of the file itself, for the page that shows it on the Hub or on Drive."""
    shared = _DRIVE.match(url)
    if shared:
        return f"{shared[1]}/uc?export=download&id={shared[2]}"
    return url.replace("/blob/", "/resolve/", 1)


def _download(file: RemoteFile, progress: Progress | None) -> None:
    """Download one file; InputError if what arrives is not what was published."""
    logger.info("Downloading %s", file.url)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    part = file.path.with_name(f"{file.path.name}.part")
    _fetch(direct_address(file.url), part, progress)
    problem = foreign_kind(first_bytes(part)) if file.path.suffix != ".txt" else None
    found = sha256_of_file(part)
    if problem is None and file.sha256 not in ("", found):
        problem = f"its SHA-256 is {found}, expected {file.sha256}"
    known = _records().get(str(file.path.absolute()), {}).get("sha256", found)
    if problem is None and known != found:
        problem = (
            f"its SHA-256 is {found}, but an earlier download had {known}; if it was published "
            f"anew, remove its entry in {_records_file()}"
        )
    if problem is not None:
        part.unlink()
        raise InputError(f"what arrived is not kept: {problem}")
    size = part.stat().st_size
    part.replace(file.path)
    _record(file, size, found)


def _fetch(url: str, part: Path, progress: Progress | None) -> None:
    """Fetch an address into a file, behind what is there already if the file is still the same.

    What tells its versions apart, the server's ETag or Last-Modified, is kept beside the file.
    """
    mark = part.with_name(f"{part.name}.version")
    version = mark.read_text() if mark.is_file() else ""
    start = part.stat().st_size if part.is_file() and version else 0
    try:
        response = _open(url, start)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        response, start = _open(url, 0), 0  # more is here than the file has
    if start and _version(response) != version:
        response.close()
        response, start = _open(url, 0), 0
    is_whole = response.status != http.HTTPStatus.PARTIAL_CONTENT
    if is_whole or not start:
        part.unlink(missing_ok=True)  # the new mark must not vouch for what is there
    mark.write_text(_version(response))
    with response:
        if is_whole:
            start = 0
        elif _range_start(response) != start:
            raise InputError("the server continued at another place; delete the .part file")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with part.open("ab" if start else "wb") as target:
            while block := response.read(_BLOCK):
                target.write(block)
                if progress is not None:
                    progress(target.tell(), total)
            done = target.tell()
    if total is not None and done < total:
        raise InputError(
            f"the transfer broke off at {done} of {total} bytes; the same command continues it"
        )
    mark.unlink()


def _version(response: Any) -> str:
    """What tells the versions of a file apart; empty if the server does not say."""
    return response.headers.get("ETag") or response.headers.get("Last-Modified") or ""


def _open(url: str, start: int) -> Any:
    """The response with the file, from a byte on; behind Drive's confirmation page, if any."""
    response = _request(url, start)
    if "/uc?export=download" not in url or "text/html" not in response.headers["Content-Type"]:
        return response
    with response:
        page = _ConfirmationPage(response.read(_BLOCK).decode("utf-8", "replace"))
    if not page.action:
        raise InputError(
            "Drive did not hand out the file; its page says: "
            f"{' '.join(page.text.split())[:_SHOWN_TEXT]!r}; try again later, or in a browser"
        )
    target = urllib.parse.urljoin(response.url, page.action)
    return _request(f"{target}?{urllib.parse.urlencode(page.inputs)}", start)


def _request(url: str, start: int) -> Any:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"{url} is no web address")
    headers = {"User-Agent": "maskclippp", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(url, headers=headers)
    # A new opener: the shared one keeps the proxies of its first use.
    return urllib.request.build_opener().open(request, timeout=_TIMEOUT_SECONDS)


def _range_start(response: Any) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


class _ConfirmationPage(HTMLParser):
    """The form by which Drive asks whether an unscanned file shall be downloaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action, self.text = "", ""
        self.inputs: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See ``HTMLParser``."""
        found = dict(attrs)
        if tag == "form" and found.get("id") == "download-form":
            self.action = found.get("action") or ""
        elif tag == "input" and self.action and found.get("name"):
            self.inputs[str(found["name"])] = found.get("value") or ""

    def handle_data(self, data: str) -> None:
        """See ``HTMLParser``."""
        self.text += data


def _records_file() -> Path:
    return cache_folder() / "downloads.json"


def _records() -> dict[str, Any]:
    try:
        records: dict[str, Any] = json.loads(_records_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return records


def _record(file: RemoteFile, size: int, sha256: str) -> None:
    folder = cache_folder()
    entry = {"url": file.url, "size": size, "sha256": sha256}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(_records_file(), {**_records(), str(file.path.absolute()): entry})
    except OSError as error:
        logger.warning("the hash of %s could not be recorded: %s", file.path, error)

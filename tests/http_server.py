"""A real HTTP server for a folder, which also plays a proxy and Drive, and continues transfers.

``/file/d/ID/view`` on Drive is behind ``/uc?export=download&id=ID``, which shows a page that asks
for confirmation; or, for an ID in ``over_quota``, that it has been fetched too often.
``/moved/NAME`` redirects to ``/NAME``.
"""

import hashlib
import threading
import urllib.parse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server:
    """Serves ``root`` within a ``with`` block.

    Attributes:
        requests: the targets asked for.
        ranges: the first byte of every answer.
        cut: the number of bytes after which transfers break off; None: they do not.
        over_quota: files that Drive does not hand out.
        has_versions: whether answers have an ETag.
        shift: by which a continued transfer begins too late.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.ranges: list[int] = []
        self.cut: int | None = None
        self.over_quota: set[str] = set()
        self.has_versions = True
        self.shift = 0
        handler = partial(_Handler, owner=self, directory=str(root))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


_CONFIRM = """<html><title>Drive - Virus scan warning</title>
<form id="download-form" action="/download" method="get">
<input type="hidden" name="id" value="{0}"><input type="hidden" name="confirm" value="t">
<input type="submit" value="Download"></form></html>"""
_QUOTA = "<!DOCTYPE html><body>Too many users have viewed or downloaded this file.</body>"


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, owner: Server, **options: Any) -> None:
        self._owner = owner
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        self._owner.requests.append(self.path)
        parts = urllib.parse.urlsplit(self.path)  # a proxy is asked for whole addresses
        query = dict(urllib.parse.parse_qsl(parts.query))
        if parts.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", parts.path.removeprefix("/moved"))
            self.end_headers()
        elif parts.path == "/uc":
            page = _QUOTA if query["id"] in self._owner.over_quota else _CONFIRM
            self._send(page.format(query["id"]).encode(), "text/html; charset=utf-8")
        elif parts.path == "/download" and query.get("confirm") == "t":
            self._send_file(query["id"])
        else:
            self._send_file(parts.path.lstrip("/"))

    def _send_file(self, name: str) -> None:
        path = self._owner.root / name
        if path.is_file():
            self._send(path.read_bytes(), "application/octet-stream")
        else:
            self.send_error(404)

    def _send(self, content: bytes, kind: str) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and start >= len(content):
            self.send_error(416)
            return
        start += self._owner.shift if start else 0
        self._owner.ranges.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - start))
        if self._owner.has_versions:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self._owner.cut
        self.wfile.write(content[start : None if cut is None else start + cut])

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent."""

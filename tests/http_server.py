"""A real HTTP server for a folder, which also plays the proxy of an address that is not there."""

import threading
import urllib.parse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server:
    """Serves ``root`` within a ``with`` block; ``requests`` are the targets asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        handler = partial(_Handler, requests=self.requests, directory=str(root))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *details: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: Any, requests: list[str], **options: Any) -> None:
        self._requests = requests
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        self._requests.append(self.path)
        self.path = urllib.parse.urlsplit(self.path).path  # a proxy is asked for whole addresses
        super().do_GET()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent."""

"""A model by its name on the Hugging Face Hub: fetched once, as data, and told in one sentence."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from maskclippp.errors import InputError
from maskclippp.files.hub import model_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "onnx/model.json": b"{}",
}
NOWHERE = "http://127.0.0.1:9"


class _Hub(BaseHTTPRequestHandler):
    """The answers of the Hub to the questions about three models."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/owner/"):
            name, _, rest = path.removeprefix("/api/models/owner/").partition("/")
            self._describe(name, rest)
        else:
            _, _, name, _, revision, file = path.split("/", 5)
            self._send_file(name, revision, file)

    def _describe(self, name: str, rest: str) -> None:
        kind, _, revision = rest.partition("/")
        if name not in ("public", "gated"):
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif kind == "tree":
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": f"{index:040x}"}
                for index, (file, content) in enumerate(FILES.items())
            ]
            self._answer(200, json.dumps(entries).encode())
        else:
            self._answer(200, json.dumps({"id": f"owner/{name}", "sha": COMMIT}).encode())

    def _send_file(self, name: str, revision: str, file: str) -> None:
        if name == "gated":
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        etag = f'"{list(FILES).index(file):040x}"'
        return self._answer(200, FILES[file], {"ETag": etag, "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)


def ask(name: str, revision: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a model, or the error, with ``endpoint`` as HF_ENDPOINT."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    try:
        return str(model_folder(name, revision, "SEGMENTOR.PRETRAINED"))
    except InputError as error:
        return f"{type(error).__name__} {error}"


def test_data_is_fetched_and_found_again_without_network(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ask("owner/public", "main", hub, monkeypatch)
    files = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}
    assert files == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert (Path(folder) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    for revision in ("main", COMMIT):
        assert ask("owner/public", revision, NOWHERE, monkeypatch) == folder


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("owner/absent", "main", "InputError SEGMENTOR.PRETRAINED: 'owner/absent' is neither a"),
        ("owner/public", "v9", "InputError SEGMENTOR.REVISION: owner/public has no revision 'v9'"),
        ("owner/gated", "main", "InputError SEGMENTOR.PRETRAINED: owner/gated is gated: accept"),
        ("a/b/c", "main", "MissingFileError SEGMENTOR.PRETRAINED: 'a/b/c' is not a folder"),
        ("random", "main", "MissingFileError SEGMENTOR.PRETRAINED: 'random' is not a folder"),
        ("", "main", "MissingFileError SEGMENTOR.PRETRAINED: no model is named"),
    ],
)
def test_what_is_wrong_with_a_name_is_told(
    name: str, revision: str, message: str, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ask(name, revision, hub, monkeypatch)
    assert found.startswith(message)
    assert "\n" not in found


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_without_network_it_is_told_what_to_fetch_at_once(
    revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    found = ask("owner/public", revision, NOWHERE, monkeypatch)
    assert time.monotonic() - start < 10  # several tries take longer
    assert found.startswith("MissingFileError SEGMENTOR.PRETRAINED: owner/public is not on this")
    assert f"hf download owner/public --revision {revision} --local-dir FOLDER" in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("config.json", "pytorch_model.bin"), "has no weights in the safetensors format"),
        (("model.safetensors",), "has no config.json, so it is no model"),
    ],
)
def test_a_folder_that_lacks_something_is_told_apart(
    files: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        model_folder(str(tmp_path), "main", "SEGMENTOR.PRETRAINED")

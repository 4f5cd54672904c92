"""Downloads from a local server: whole or absent, checked, continued."""

import hashlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskclippp.files.downloads import DownloadError, RemoteFile, download_all
from tests.http_server import Server

CONTENT = {"a.txt": b"first", "sub/b.bin": b"second" * 100_000}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "remote"
    for name, content in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    with Server(root) as running:
        yield running


def remote_files(server: Server, folder: Path) -> list[RemoteFile]:
    return [
        RemoteFile(f"{server.url}/{name}", folder / name, hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    ]


def test_files_arrive_in_their_places(server: Server, tmp_path: Path) -> None:
    assert download_all(remote_files(server, tmp_path / "here")) == len(CONTENT)
    for name, content in CONTENT.items():
        assert (tmp_path / "here" / name).read_bytes() == content


def test_only_what_is_absent_or_wrong_is_fetched(server: Server, tmp_path: Path) -> None:
    files = remote_files(server, tmp_path / "here")
    assert download_all(files) == 2
    files[0].path.write_bytes(b"damaged")
    server.requests.clear()
    assert download_all(files) == 1
    assert server.requests == ["/a.txt"]
    assert files[0].path.read_bytes() == CONTENT["a.txt"]


def test_another_content_is_refused_and_leaves_no_file(server: Server, tmp_path: Path) -> None:
    files = remote_files(server, tmp_path / "here")
    (server.root / "a.txt").write_bytes(b"changed")
    with pytest.raises(DownloadError, match="SHA-256") as error:
        download_all(files)
    assert files[0].url in str(error.value)
    assert not files[0].path.exists()
    # The others are there, so that the next call has less to do.
    assert [path.name for path in (tmp_path / "here").rglob("*.*")] == ["b.bin"]


def test_an_absent_file_is_named_with_its_place(server: Server, tmp_path: Path) -> None:
    lost = RemoteFile(f"{server.url}/lost.txt", tmp_path / "lost.txt", "0" * 64)
    with pytest.raises(DownloadError, match="1 of 1 files") as error:
        download_all([lost])
    assert f"{lost.url}\n    -> {lost.path}\n    (HTTP Error 404" in str(error.value)


def test_without_network_every_address_and_place_is_listed(tmp_path: Path) -> None:
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        files = [RemoteFile(f"{url}/{name}", tmp_path / name, "0" * 64) for name in "xy"]
        with pytest.raises(DownloadError, match="2 of 2 files could not be downloaded") as error:
            download_all(files)
    for file in files:
        assert f"{file.url}\n    -> {file.path}" in str(error.value)


def test_a_proxy_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    file = remote_files(server, tmp_path / "here")[0]
    elsewhere = RemoteFile("http://words.example/a.txt", file.path, file.sha256)
    download_all([elsewhere])
    assert server.requests == ["http://words.example/a.txt"]


def test_downloads_are_logged(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "maskclippp.files.downloads"):
        download_all(remote_files(server, tmp_path / "here"))
    assert f"Downloading {server.url}/a.txt" in caplog.text

"""Downloads from a local server: whole or absent, checked, continued."""

import hashlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskclippp.files.downloads import DownloadError, RemoteFile, check_recorded, download_all
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


def test_a_broken_transfer_is_continued(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(f"{server.url}/sub/b.bin", tmp_path / "b.bin")
    server.cut = 250_000
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"broke off at \d+ of 600000 bytes; the same"):
            download_all([file])
        assert not file.path.exists()
    server.cut = None
    download_all([file])
    assert file.path.read_bytes() == CONTENT["sub/b.bin"]
    assert server.ranges == [0, 250_000, 500_000]
    assert [path.name for path in tmp_path.glob("b.bin*")] == ["b.bin"]


def test_a_part_that_is_no_part_of_the_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt.part").write_bytes(b"more than there is")
    file = remote_files(server, tmp_path)[0]
    download_all([file])
    assert file.path.read_bytes() == CONTENT["a.txt"]


@pytest.mark.parametrize("page", ["file/d/b_bin/view?usp=sharing", "moved/b.bin", "blob/b.bin"])
def test_pages_of_drive_and_the_hub_and_redirects_lead_to_the_file(
    page: str, server: Server, tmp_path: Path
) -> None:
    (server.root / "resolve").mkdir()
    for place in ("b.bin", "b_bin", "resolve/b.bin"):
        (server.root / place).write_bytes(CONTENT["sub/b.bin"])
    file = RemoteFile(f"{server.url}/{page}", tmp_path / "b.bin")
    download_all([file])
    assert file.path.read_bytes() == CONTENT["sub/b.bin"]


def test_a_transfer_from_drive_is_continued(server: Server, tmp_path: Path) -> None:
    (server.root / "b_bin").write_bytes(CONTENT["sub/b.bin"])
    file = RemoteFile(f"{server.url}/file/d/b_bin/view", tmp_path / "b.bin")
    server.cut = 350_000
    with pytest.raises(DownloadError, match="broke off at 350000 of 600000"):
        download_all([file])
    server.cut = None
    download_all([file])
    assert file.path.read_bytes() == CONTENT["sub/b.bin"]


def test_what_drive_says_instead_of_the_file_is_shown(server: Server, tmp_path: Path) -> None:
    server.over_quota.add("b_bin")
    file = RemoteFile(f"{server.url}/file/d/b_bin/view", tmp_path / "b.bin")
    with pytest.raises(DownloadError, match="its page says: 'Too many users have viewed"):
        download_all([file])
    assert list(tmp_path.glob("b.bin*")) == []


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"version https://git-lfs", b""])
def test_a_web_page_is_not_kept_as_weights(content: bytes, server: Server, tmp_path: Path) -> None:
    (server.root / "w.pth").write_bytes(content)
    file = RemoteFile(f"{server.url}/w.pth", tmp_path / "w.pth")
    with pytest.raises(DownloadError, match="what arrived is not kept"):
        download_all([file])
    assert list(tmp_path.glob("w.pth*")) == []


def test_size_and_hash_are_recorded_and_checked_afterwards(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(f"{server.url}/sub/b.bin", tmp_path / "b.bin")
    download_all([file])
    assert check_recorded(file.path) == ""
    file.path.write_bytes(CONTENT["sub/b.bin"].replace(b"s", b"S", 1))
    assert "not as downloaded" in check_recorded(file.path)
    file.path.write_bytes(b"short")
    assert "it has 5 bytes, but 600000 were downloaded" in check_recorded(file.path)
    file.path.unlink()
    (server.root / "sub/b.bin").write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"an earlier download had .* remove its entry"):
        download_all([file])


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


@pytest.mark.parametrize("has_versions", [True, False])
def test_a_part_of_another_version_is_fetched_anew(
    has_versions: bool, server: Server, tmp_path: Path
) -> None:
    file = RemoteFile(f"{server.url}/sub/b.bin", tmp_path / "b.bin")
    server.cut, server.has_versions = 250_000, has_versions
    with pytest.raises(DownloadError, match="broke off"):
        download_all([file])
    changed = CONTENT["sub/b.bin"][::-1]
    (server.root / "sub" / "b.bin").write_bytes(changed)
    server.cut = None
    download_all([file])
    assert file.path.read_bytes() == changed
    assert [path.name for path in tmp_path.glob("b.bin*")] == ["b.bin"]


def test_a_server_that_continues_elsewhere_is_noticed(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(f"{server.url}/sub/b.bin", tmp_path / "b.bin")
    server.cut = 250_000
    with pytest.raises(DownloadError, match="broke off"):
        download_all([file])
    server.cut, server.shift = None, 7
    with pytest.raises(DownloadError, match="the server continued at another place"):
        download_all([file])
    assert not file.path.exists()

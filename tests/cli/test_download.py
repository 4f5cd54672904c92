"""The command ``download`` as users call it, against a local server."""

import subprocess
import sys
import urllib.parse
from pathlib import Path

import huggingface_hub
import pytest

from maskclippp.cli.fetching import entries_of_config
from maskclippp.cli.main import main
from maskclippp.files.downloads import direct_address
from maskclippp.files.published import published
from maskclippp.words.openseg import openseg_lists
from tests.golden_cases import REPOSITORY
from tests.http_server import Server
from tests.words.test_sources import published_lists


def run(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maskclippp", "download", *arguments],
        cwd=REPOSITORY,
        env={"MASKCLIPPP_CACHE": str(cache), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_published_lists_are_kept_and_others_refused(tmp_path: Path) -> None:
    """The server has the real lists where they are available, and always one wrong one."""
    remote, cache = tmp_path / "remote", tmp_path / "cache"
    remote.mkdir()
    folder = published_lists()
    published = [] if folder is None else sorted(folder.glob("*.txt"))
    for file in published:
        (remote / file.name).write_bytes(file.read_bytes())
    wrong = remote / openseg_lists()[0].file
    wrong.write_text("1:person")
    with Server(remote) as server:
        result = run("vocabularies", "--origin", server.url, cache=cache)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert f"{server.url}/{wrong.name}\n    -> {cache / 'vocabularies' / wrong.name}" in (
            result.stderr
        )
        assert "SHA-256" in result.stderr
        kept = {path.name for path in (cache / "vocabularies").iterdir()}
        assert kept == {path.name for path in published} - {wrong.name}


def test_the_weights_of_a_config_are_found() -> None:
    config = REPOSITORY / "configs" / "shapes" / "linear_psm.yaml"
    result = run("weights", str(config), cache=Path("unused"))
    assert result.returncode == 0, result.stderr
    assert "VISUAL_ENCODER: " in result.stderr
    assert "shapes_clip.safetensors" in result.stderr


@pytest.mark.parametrize(("kind", "message"), [("absent.yaml", "absent.yaml' does not exist")])
def test_a_wrong_config_is_named(kind: str, message: str) -> None:
    result = run("weights", kind, cache=Path("unused"))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_all_missing_files_of_a_config_are_named(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "MODEL: {WEIGHTS: a.pth, MASKCLIPPP: {VISUAL_ENCODER: {PRETRAINED: random, LOAD_FROM: b}}}"
    )
    result = run("weights", str(config), cache=Path("unused"))
    assert result.returncode == 2
    assert "MODEL.WEIGHTS: a.pth does not exist" in result.stderr
    assert "VISUAL_ENCODER.LOAD_FROM: b does not exist" in result.stderr


def test_published_models_arrive_where_configs_expect_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a server that is Drive, the Hub and a plain one."""
    remote = tmp_path / "remote"
    names = ["coco-pan_clip-convnext-base", "eva-clip-vit-b-16", "mask2former-swin-tiny"]
    for name in names:
        address = urllib.parse.urlsplit(direct_address(published()[name].url))
        file = dict(urllib.parse.parse_qsl(address.query)).get("id", address.path.lstrip("/"))
        (remote / file).parent.mkdir(parents=True, exist_ok=True)
        (remote / file).write_bytes(b"weights of " + name.encode())
    monkeypatch.chdir(tmp_path)
    with Server(remote) as server:
        main(["download", *names, "--origin", server.url])
        asked = len(server.requests)
        main(["download", *names, "--origin", server.url])
        assert len(server.requests) == asked
    for name in names:
        assert Path(published()[name].path).read_bytes() == b"weights of " + name.encode()


def test_all_that_a_published_model_needs_is_fetched_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "coco-pan_clip-convnext-base"
    query = urllib.parse.urlsplit(direct_address(published()[name].url)).query
    remote = tmp_path / "remote"
    remote.mkdir()
    (remote / urllib.parse.parse_qs(query)["id"][0]).write_bytes(b"weights")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with Server(remote) as server, pytest.raises(SystemExit):
        main(["download", "--for", name, "--origin", server.url])
    assert Path(published()[name].path).read_bytes() == b"weights"
    assert "fcclip" in capsys.readouterr().err  # its generator, which is not on the server


def test_all_that_a_config_needs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    config = REPOSITORY / published()["coco-pan_eva-clip-vit-b-16"].config_file
    names = {entry.name for entry in entries_of_config(str(config))}
    assert names == {
        "coco-pan_eva-clip-vit-b-16",
        "eva-clip-vit-b-16",
        "fcclip-convnext-base",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco-pan_clip-convnext-bas"], "did you mean coco-pan_clip-convnext-base"),
        (["maftp-l-pano"], "has no address: download it by the link on https://github.com"),
        ([], "name something to download"),
    ],
)
def test_wrong_names_are_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["download", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err

"""The command ``download`` as users call it, against a local server."""

import subprocess
import sys
from pathlib import Path

import pytest

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

"""The command ``doctor``: what a bug report needs, without downloads."""

from pathlib import Path

import pytest

from maskclippp.cli.doctor import main
from tests.golden_cases import REPOSITORY


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an empty cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    main(arguments)
    return capsys.readouterr().out.splitlines()


def line(lines: list[str], name: str) -> str:
    return next(text for text in lines if text.startswith(f"  {name}"))


def test_versions_devices_folders_datasets_and_weights_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pretrained").mkdir()
    (folder / "pretrained" / "a.pt").touch()
    lines = lines_of(capsys)
    titles = [text for text in lines if not text.startswith(" ")]
    assert titles == ["versions", "devices", "caches and space", "datasets", "weights"]
    assert "not installed" not in line(lines, "torch ")
    assert "version" in line(lines, "detectron2")
    assert "cores" in line(lines, "CPU")
    assert "GiB free" in line(lines, "shared memory")
    assert f"{folder}/cache (does not exist)" in line(lines, "cache")
    assert "0 of " in line(lines, "OpenSeg")
    assert "missing" in line(lines, "openvocab_ade20k_panoptic_val")
    assert line(lines, "pretrained/a.pt").endswith("0.0 GiB")


def test_the_files_of_a_config_are_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    config = REPOSITORY / "configs" / "shapes" / "plain_clip.yaml"
    lines = lines_of(capsys, "--config-file", str(config))
    assert "found" in line(lines, "VISUAL_ENCODER.PRETRAINED")


def test_a_missing_checkpoint_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("MODEL: {WEIGHTS: absent.pth}")
    lines = lines_of(capsys, "--config-file", "config.yaml")
    assert line(lines, "MODEL.WEIGHTS").endswith("missing absent.pth")


def test_a_wrong_config_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", "absent.yaml"])
    assert stopped.value.code == 2
    assert "absent.yaml' does not exist" in capsys.readouterr().err

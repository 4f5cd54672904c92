"""The command ``doctor``: what a bug report needs, without downloads."""

import socket
from pathlib import Path

import huggingface_hub
import open_clip
import pytest

from maskclippp.cli.doctor import main
from tests.golden_cases import REPOSITORY


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an empty cache."""
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
    assert line(lines, "MODEL.WEIGHTS").endswith(
        "missing: MODEL.WEIGHTS: absent.pth does not exist"
    )


@pytest.mark.parametrize("settings", [{"url": "https://x/a.pt"}, {"hf_hub": "x/y/a.pt"}])
def test_nothing_is_downloaded(
    settings: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even if the libraries were imported with a network."""

    def connect(*_: object, **__: object) -> None:
        pytest.fail("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["RN50"], "openai", settings)
    (tmp_path / "config.yaml").write_text(
        "MODEL: {MASKCLIPPP: {VISUAL_ENCODER: {MODEL_NAME: RN50, PRETRAINED: openai, "
        "LOAD_FROM: absent.pt}}}"
    )
    lines = lines_of(capsys, "--config-file", "config.yaml")
    assert "missing: PRETRAINED: the weights 'openai'" in line(lines, "VISUAL_ENCODER.PRETRAINED")
    assert line(lines, "VISUAL_ENCODER.LOAD_FROM").endswith("absent.pt does not exist")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_wrong_config_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", "absent.yaml"])
    assert stopped.value.code == 2
    assert "absent.yaml' does not exist" in capsys.readouterr().err

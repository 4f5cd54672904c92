"""DATASETS.VOCABULARY on the command line: what is wrong with words is said before a run starts."""

from pathlib import Path

import pytest

import train_maskclippp
from maskclippp.engine.arguments import argument_parser
from maskclippp.engine.setup import build_config

ARGUMENTS = ["--num-gpus", "0", "--eval-only", "DATASETS.TEST", "('shapes_val',)"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKCLIPPP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["DATASETS.VOCABULARY", "openseq"], "did you mean openseg"),
        (["DATASETS.VOCABULARY", "words.txt"], "words.txt does not exist"),
        (["DATASETS.VOCABULARY", "circle, square"], "has 2 classes, but dataset shapes_val"),
        (
            [
                *("DATASETS.TEST", "('openvocab_ade20k_sem_seg_val',)"),
                *("DATASETS.VOCABULARY", "openseg"),
            ],
            "run maskclippp download vocabularies",
        ),
    ],
)
def test_wrong_words_end_the_command(
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("sys.argv", ["train_maskclippp.py", *ARGUMENTS, *options])
    with pytest.raises(SystemExit):
        train_maskclippp.command_line()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_the_default_needs_no_download() -> None:
    cfg = build_config(argument_parser().parse_args(ARGUMENTS))
    assert cfg.DATASETS.VOCABULARY == "auto"

"""The commands ``models`` and ``config``."""

from pathlib import Path

import pytest

from maskclippp.cli.main import main
from tests.golden_cases import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "shapes" / "linear_psm.yaml")


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out


def test_models_shows_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "ckpts" / "maftp").mkdir(parents=True)
    (tmp_path / "output" / "ckpts" / "maftp" / "maftp_b.pth").touch()
    lines = output_of(capsys, "models").splitlines()
    state = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  ")}
    assert len(state) == 21
    assert {name for name, word in state.items() if word == "here"} == {"maftp-b"}
    assert any("coco-pan_eva-clip-vit-l-14-336" in line and "PQ 27.3" in line for line in lines)


def test_config_prints_what_files_and_options_set(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output_of(capsys, "config", CONFIG, "SOLVER.BASE_LR", "0.25")
    assert "  BASE_LR: 0.25" in shown
    assert "  MAX_ITER: 300" in shown


@pytest.mark.parametrize("key", ["PSM.NAME", "MODEL.MASKCLIPPP.PSM.NAME"])
def test_config_explains_a_key(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = output_of(capsys, "config", key)
    assert shown.startswith("MODEL.MASKCLIPPP.PSM.NAME (default: 'CorrelationDecoderV1')")
    assert "LinearPSM" in shown


def test_an_unknown_key_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["config", "TEMPLATE"])
    assert stopped.value.code == 2
    assert "did you mean TEMPLATES" in capsys.readouterr().err

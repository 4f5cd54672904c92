"""The benchmark runs on any config, compares only equal results, and writes valid JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import MODEL_NAME

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.append(str(REPOSITORY / "tools"))

import benchmark  # noqa: E402
import measure  # noqa: E402

CPU = torch.device("cpu")
TINY = [
    *("--classes", "7", "--image-size", "64", "96", "--masks", "5", "--train-masks", "3"),
    *("--repeats", "1", "--device", "cpu"),
]
OPTIONS = [
    *("MODEL.MASKCLIPPP.VISUAL_ENCODER.MODEL_NAME", MODEL_NAME),
    *("MODEL.MASKCLIPPP.TEXT_ENCODER.MODEL_NAME", MODEL_NAME),
]


def run(tmp_path: Path, *arguments: str, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    output = tmp_path / "report" / "benchmark.json"
    benchmark.main([*arguments, *TINY, "--output", str(output), *OPTIONS, *options])
    report = json.loads(output.read_text())
    assert report["environment"]["torch"] == torch.__version__
    results: list[dict[str, Any]] = report["results"]
    return results


def test_all_parts_against_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(tmp_path, "--against", "plain")
    assert {result["part"] for result in results} == {"text", "encoder", "postprocess", "train"}
    for result in results:
        assert result["ours"]["seconds"] > 0
        assert result["ours"]["peak_memory_mib"] >= 0
        if result["part"] != "encoder":
            assert result["time_over_ours"]["plain"] > 0
    (text,) = [result for result in results if result["part"] == "text"]
    assert text["time_over_ours"]["cached"] > 0
    table = capsys.readouterr().out
    assert "sentences/s" in table
    assert table.count("postprocess") == 11


def test_parts_can_be_chosen_and_compared_with_nothing(tmp_path: Path) -> None:
    (encoder, *post) = run(tmp_path, "--parts", "encoder", "postprocess")
    assert encoder["part"] == "encoder"
    assert all("plain" not in result for result in (encoder, *post))


@pytest.mark.parametrize("text", ["none", "all"])
def test_training_with_and_without_the_text_tower(text: str, tmp_path: Path) -> None:
    options = ("MODEL.MASKCLIPPP.TEXT_ENCODER.FINETUNE_TYPE", text)
    (train,) = run(tmp_path, "--parts", "train", "--against", "plain", options=options)
    assert train["plain"]["seconds"] > 0


def test_bfloat16_and_channels_last(tmp_path: Path) -> None:
    results = run(
        tmp_path,
        *("--parts", "encoder", "train", "--against", "plain"),
        *("--dtype", "bfloat16", "--channels-last"),
    )
    assert [result["part"] for result in results] == ["encoder", "train"]


def test_a_config_file_and_options_choose_the_model(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "INPUT: {FORMAT: RGB}\n"
        "MODEL:\n"
        "  MASKCLIPPP:\n"
        "    VISUAL_ENCODER:\n"
        "      {NAME: CLIPConvNeXt, MASK_PRIOR_BEG: 5, OUT_FEATURES: [p_embs], PRETRAINED: some}\n"
        "    TEXT_ENCODER: {NAME: CLIPTextEncoder, PRETRAINED: some}\n"
        "    PSM: {NAME: PseudoTextPSM, IN_FEATURES: [p_embs]}\n"
    )
    run(tmp_path, "--config-file", str(config), "--parts", "train", "--against", "plain")


def test_the_command_runs_from_any_folder(tmp_path: Path) -> None:
    tool = REPOSITORY / "tools" / "benchmark.py"
    done = subprocess.run(
        [
            sys.executable,
            str(tool),
            "--parts",
            "postprocess",
            "--against",
            "plain",
            *TINY,
            *OPTIONS,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "postprocess" in done.stdout


def test_unequal_results_are_not_timed() -> None:
    def check(results: dict[str, Any]) -> None:
        assert results["a"] == results["b"], "the results differ"

    runs: list[str] = []
    functions = {"a": lambda: runs.append("a") or 1, "b": lambda: runs.append("b") or 2}
    with pytest.raises(AssertionError, match="the results differ"):
        measure.measure(functions, 3, CPU, check)
    assert runs == ["a", "b"]


def test_functions_take_turns() -> None:
    runs: list[str] = []
    functions = {"a": lambda: runs.append("a"), "b": lambda: runs.append("b")}
    measured = measure.measure(functions, 2, CPU)
    assert runs == ["a", "b", "a", "b", "a", "b"]
    assert len(measured["a"].seconds) == 2


def test_peak_memory_counts_what_is_freed_again() -> None:
    def temporary() -> None:
        torch.ones(64 * 2**18)  # 64 MiB

    (measured,) = measure.measure({"temporary": temporary}, 1, CPU).values()
    assert measured.peak_memory is not None
    assert 60 * 2**20 < measured.peak_memory < 90 * 2**20

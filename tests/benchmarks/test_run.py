"""The benchmark runs on any config, compares only equal results, and writes valid JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import tests.tiny_eva  # noqa: F401  (registers models)
from benchmarks import measure, run, tables
from maskclippp.alignment.psm import PseudoTextPSM
from maskclippp.clip.convnext import CLIPConvNeXt
from maskclippp.errors import INPUT_ERROR_STATUS
from tests.tiny_models import MODEL_NAME, tiny_model

STRIDE = 32  # of MODEL_NAME
CPU = torch.device("cpu")
TINY = [
    *("--classes", "7", "--image-size", "64", "96", "--masks", "5", "--train-masks", "3"),
    *("--repeats", "1", "--device", "cpu"),
]
OPTIONS = [
    *("MODEL.MASKCLIPPP.VISUAL_ENCODER.MODEL_NAME", MODEL_NAME),
    *("MODEL.MASKCLIPPP.TEXT_ENCODER.MODEL_NAME", MODEL_NAME),
]


def run_benchmark(
    tmp_path: Path, *arguments: str, options: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    output = tmp_path / "report" / "benchmark.json"
    run.main([*arguments, *TINY, "--output", str(output), *OPTIONS, *options])
    report = json.loads(output.read_text())
    assert report["environment"]["torch"] == torch.__version__
    results: list[dict[str, Any]] = report["results"]
    return results


VISUAL, TEXT = "MODEL.MASKCLIPPP.VISUAL_ENCODER", "MODEL.MASKCLIPPP.TEXT_ENCODER"
# Vision transformers of three blocks, of which the last two have mask tokens.
TRANSFORMERS = {
    name: (
        *(f"{VISUAL}.NAME", name, f"{VISUAL}.MODEL_NAME", model),
        *(f"{VISUAL}.MASK_PRIOR_BEG", "2", f"{VISUAL}.SIZE_DIVISIBILITY", "8"),
    )
    for name, model in (("EVACLIPViT", "EVA02-tiny"), ("CLIPViT", "ViT-tiny"))
}


def test_all_parts_against_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run_benchmark(tmp_path, "--against", "plain")
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
    assert table.count("postprocess") == 10


def test_parts_can_be_chosen_and_compared_with_nothing(tmp_path: Path) -> None:
    (encoder, *post) = run_benchmark(tmp_path, "--parts", "encoder", "postprocess")
    assert encoder["part"] == "encoder"
    assert all("plain" not in result for result in (encoder, *post))


def test_encoder_tells_what_it_measured(tmp_path: Path) -> None:
    (encoder,) = run_benchmark(tmp_path, "--parts", "encoder")
    assert encoder["input_size"] == [64, 96]
    assert encoder["grid"] == [64 // STRIDE, 96 // STRIDE]
    model = tiny_model()
    for name, tower in (("image", model.visual_encoder), ("text", model.text_encoder)):
        count = sum(parameter.numel() for parameter in tower.parameters())
        assert encoder["parameters_millions"][name] == pytest.approx(count / 1e6)


def test_encoder_in_other_ways(tmp_path: Path) -> None:
    (encoder,) = run_benchmark(
        tmp_path, "--parts", "encoder", "--variants", "bfloat16", "channels_last", "eager"
    )
    assert set(encoder["time_over_ours"]) == {"bfloat16", "channels_last", "eager"}


@pytest.mark.parametrize("kind", sorted(TRANSFORMERS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mask_tokens_against_one_dense_sequence(kind: str, dtype: str, tmp_path: Path) -> None:
    blocks, attention = run_benchmark(
        tmp_path,
        *("--parts", "masktokens", "--against", "plain", "--grid", "5", "7", "--dtype", dtype),
        options=TRANSFORMERS[kind],
    )
    assert blocks["what"] == "blocks 2 to 3, 5 x 7 cells, 5 masks"
    for result in (blocks, attention):
        assert set(result["time_over_ours"]) == {"plain", "dense_fused"}
        assert set(result["memory_over_ours"]) == {"plain", "dense_fused"}


def test_mask_tokens_need_an_encoder_that_has_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CLIPConvNeXt has no mask tokens"):
        run_benchmark(tmp_path, "--parts", "masktokens")


def test_attention_of_mask_tokens_needs_less_memory(tmp_path: Path) -> None:
    _, attention = run_benchmark(
        tmp_path,
        *("--parts", "masktokens", "--against", "plain", "--grid", "24", "24", "--masks", "100"),
        options=TRANSFORMERS["CLIPViT"],
    )
    assert attention["memory_over_ours"]["plain"] > 4


@pytest.mark.parametrize("text", ["none", "all"])
def test_training_with_and_without_the_text_tower(text: str, tmp_path: Path) -> None:
    options = ("MODEL.MASKCLIPPP.TEXT_ENCODER.FINETUNE_TYPE", text)
    train, *text_alone = run_benchmark(
        tmp_path, "--parts", "train", "--against", "plain", options=options
    )
    assert train["plain"]["seconds"] > 0
    assert len(text_alone) == (text == "all")


def test_training_both_towers_of_eva_clip(tmp_path: Path) -> None:
    options = (
        *TRANSFORMERS["EVACLIPViT"],
        *(f"{VISUAL}.FINETUNE_TYPE", "attention", f"{TEXT}.FINETUNE_TYPE", "attention"),
        *(f"{TEXT}.NAME", "EVACLIPTextEncoder", f"{TEXT}.MODEL_NAME", "EVA02-tiny"),
    )
    step, text = run_benchmark(tmp_path, "--parts", "train", "--against", "plain", options=options)
    assert step["plain"]["seconds"] > 0
    assert text["what"] == "text tower alone"


@contextmanager
def running_modules() -> Iterator[list[tuple[nn.Module, Any]]]:
    """The modules that are called in this block, and what they return."""
    calls: list[tuple[nn.Module, Any]] = []
    handle = register_module_forward_hook(
        lambda module, inputs, output: calls.append((module, output))
    )
    yield calls
    handle.remove()


def test_bfloat16_and_channels_last(tmp_path: Path) -> None:
    with running_modules() as calls:
        results = run_benchmark(
            tmp_path,
            *("--parts", "encoder", "train"),
            *("--dtype", "bfloat16", "--channels-last"),
        )
    assert [result["part"] for result in results] == ["encoder", "train"]
    outputs = [(module.weight, out) for module, out in calls if isinstance(module, nn.Conv2d)]
    assert {output.dtype for _, output in outputs} == {torch.bfloat16}
    weights = [weight for weight, _ in outputs]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert not all(weight.is_contiguous() for weight in weights)


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
    arguments = ("--config-file", str(config), "--parts", "train", "--against", "plain")
    with running_modules() as calls:
        run_benchmark(tmp_path, *arguments, options=(f"{VISUAL}.SIZE_DIVISIBILITY", "64"))
    modules = {type(module): module for module, _ in calls}
    assert PseudoTextPSM in modules
    assert modules[CLIPConvNeXt].input_format.size_divisibility == 64


@pytest.mark.processes
def test_the_table_of_encoders_has_a_row_per_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the command runs from any folder
    config = tmp_path / "some-encoder" / "config.yaml"
    config.parent.mkdir()
    config.write_text(
        "INPUT: {FORMAT: RGB}\n"
        "MODEL:\n"
        "  MASKCLIPPP:\n"
        "    VISUAL_ENCODER: {NAME: CLIPConvNeXt, MASK_PRIOR_BEG: 5, TEST_RESIZE_TYPE: short,\n"
        f"      TEST_IMAGE_SIZE: 64, MODEL_NAME: {MODEL_NAME}}}\n"
        f"    TEXT_ENCODER: {{NAME: CLIPTextEncoder, MODEL_NAME: {MODEL_NAME}}}\n"
    )
    tables.main(
        [
            "encoders",
            *("--config-files", str(config), "--output", str(tmp_path / "table.md")),
            *("--masks", "5", "--repeats", "1", "--device", "cpu", "--against", "plain"),
        ]
    )
    table = (tmp_path / "table.md").read_text()
    (row,) = table.splitlines()[2:]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "some-encoder"
    assert cells[2:4] == ["64 x 96", f"{64 // STRIDE} x {96 // STRIDE}"]
    assert table in capsys.readouterr().out


@pytest.mark.processes
def test_a_table_ends_with_the_sentence_of_a_refused_config(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "some-encoder" / "config.yaml"
    config.parent.mkdir()
    config.write_text("MODEL: {MASKCLIPPP: {VISUAL_ENCODER: {NAME: no_such_encoder}}}\n")
    with pytest.raises(SystemExit) as ended:
        tables.main(["encoders", "--config-files", str(config), "--device", "cpu"])
    assert ended.value.code == INPUT_ERROR_STATUS
    assert "no_such_encoder" in capfd.readouterr().err


@pytest.mark.processes  # builds an image tower of 94 million parameters
def test_an_encoder_is_measured_without_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)  # a folder without pretrained/
    config = tables.CONFIGS.glob("coco-pan/siglip2-vit-b-16-512/*.yaml")
    output = tmp_path / "report.json"
    run.main(
        [
            *("--config-file", str(next(config)), "--parts", "encoder", *TINY),
            *("--output", str(output), "MODEL.MASKCLIPPP.VISUAL_ENCODER.TEST_IMAGE_SIZE", "64"),
        ]
    )
    (result,) = json.loads(output.read_text())["results"]
    millions = {tower: round(count) for tower, count in result["parameters_millions"].items()}
    assert millions == {"image": 94, "text": 282}


def test_the_table_of_encoders_knows_all_published_ones() -> None:
    names = [path.parent.name for path in tables.PUBLISHED["encoders"]]
    assert len(names) == len(set(names))
    assert {"clip-convnext-base", "clip-rn50x16", "eva-clip-vit-g-14-plus"} <= set(names)


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

"""Decoders are compared with their plain formulation, and whole models timed stage by stage."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tests.tiny_eva  # noqa: F401  (registers models)
from benchmarks import run, tables
from benchmarks.model_stages import STAGES, StageTimer
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from tests.tiny_models import MODEL_NAME

NODE = "MODEL.MASKCLIPPP"
TINY = [
    *("--classes", "7", "--image-size", "48", "72", "--generator-size", "72", "100"),
    *("--masks", "5", "--repeats", "1", "--device", "cpu"),
]
MODELS = (
    *(f"{NODE}.VISUAL_ENCODER.MODEL_NAME", MODEL_NAME, f"{NODE}.TEXT_ENCODER.MODEL_NAME"),
    *(MODEL_NAME, f"{NODE}.VISUAL_ENCODER_F.MODEL_NAME", MODEL_NAME),
    *(f"{NODE}.TEXT_ENCODER_F.MODEL_NAME", MODEL_NAME),
    *("MODEL.SWIN.EMBED_DIM", "8", "MODEL.SWIN.DEPTHS", "[1, 1, 1, 1]"),
    *("MODEL.SWIN.NUM_HEADS", "[1, 1, 2, 2]", "MODEL.SWIN.WINDOW_SIZE", "4"),
)
SMALL = (
    *(f"{NODE}.VISUAL_ENCODER.TEST_IMAGE_SIZE", "64", "INPUT.MIN_SIZE_TEST", "64"),
    *(f"{NODE}.VISUAL_ENCODER_F.TEST_IMAGE_SIZE", "64"),
    *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "9", "MODEL.MASK_FORMER.HIDDEN_DIM", "32"),
    *("MODEL.MASK_FORMER.DIM_FEEDFORWARD", "16", "MODEL.SEM_SEG_HEAD.MASK_DIM", "32"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "32", "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", "2"),
    *("MODEL.MASK_FORMER.DEC_LAYERS", "4"),
)
CONFIGS = {path.stem.removeprefix("maskclippp_"): path for path in tables.PUBLISHED["generators"]}
FCCLIP = "coco-pan_clip-convnext-large_fcclip-l"
MASK2FORMER = "coco-pan_clip-convnext-base_m2f-swin-t"
GENERATORS = {"open": FCCLIP, "closed": MASK2FORMER}
# Small models of the other kinds that published configs name.
CLASSIFIERS = {"EVACLIPViT": "EVA02-tiny", "CLIPResNet": "RN-tiny", "CLIPViT": "ViT-tiny"}


def options_of(config: Path) -> tuple[str, ...]:
    """What makes a published config small."""
    cfg = get_cfg()
    merge_config_file(cfg, config)
    name = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER.NAME
    if name not in CLASSIFIERS:
        return (*MODELS, *SMALL)
    classifier = (
        *(f"{NODE}.VISUAL_ENCODER.MODEL_NAME", CLASSIFIERS[name]),
        *(f"{NODE}.TEXT_ENCODER.MODEL_NAME", CLASSIFIERS[name]),
        *(f"{NODE}.VISUAL_ENCODER.MASK_PRIOR_BEG", "2"),
        *(f"{NODE}.VISUAL_ENCODER.SIZE_DIVISIBILITY", "32"),
    )
    return (*MODELS, *SMALL, *classifier)


def run_benchmark(
    tmp_path: Path, config: Path, *arguments: str, options: tuple[str, ...] = ()
) -> Any:
    output = tmp_path / "run.json"
    command = ["--config-file", str(config), *arguments, *TINY, "--output", str(output)]
    run.main([*command, *options_of(config), *options])
    return json.loads(output.read_text())["results"]


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoders_against_plain(kind: str, dtype: str, tmp_path: Path) -> None:
    config = CONFIGS[GENERATORS[kind]]
    pixel_decoder, decoder = run_benchmark(
        *(tmp_path, config, "--parts", "pixeldecoder", "decoder"),
        *("--against", "plain", "--dtype", dtype),
    )
    classes = {"open": 7, "closed": 133}[kind]
    assert pixel_decoder["what"] == "1 x 72 x 100, 2 layers"
    assert decoder["what"] == f"1 x 72 x 100, 3 layers, 9 queries, {classes} classes"
    for result in (pixel_decoder, decoder):
        assert result["time_over_ours"]["plain"] > 0


def test_decoders_can_be_compared_with_nothing(tmp_path: Path) -> None:
    results = run_benchmark(tmp_path, CONFIGS[FCCLIP], "--parts", "pixeldecoder", "decoder")
    assert all("plain" not in result for result in results)


def test_the_goal_is_the_default() -> None:
    args = run.parse_arguments(["--parts", "decoder"])
    cfg = run.build_config(args, args.classes)
    assert (args.classes, args.generator_size) == (847, (800, 1216))
    assert cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 250
    assert cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER_F.MODEL_NAME == "convnext_large_d_320"


def test_a_generator_without_decoders_is_named(tmp_path: Path) -> None:
    options = (f"{NODE}.SEGMENTOR.NAME", "SuperpixelSegmentor")
    with pytest.raises(ValueError, match="SuperpixelSegmentor decodes no feature maps"):
        run_benchmark(tmp_path, CONFIGS[FCCLIP], "--parts", "decoder", options=options)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_published_model_runs_stage_by_stage(name: str, tmp_path: Path) -> None:
    whole, *stages = run_benchmark(tmp_path, CONFIGS[name], "--parts", "inference")
    assert whole["input_size"] == [64, 96]
    assert whole["masks"] == 9
    assert whole["ours"]["peak_memory_mib"] >= 0
    assert tuple(stage["what"] for stage in stages) == STAGES
    assert 0.5 < sum(stage["share"] for stage in stages) <= 1  # the rest: the loaded machine


@pytest.mark.parametrize("generator", ["SuperpixelSegmentor", "GTSegmentor", "PanGTSegmentor"])
def test_a_generator_without_decoders_is_one_stage(generator: str, tmp_path: Path) -> None:
    options = (
        *(f"{NODE}.SEGMENTOR.NAME", generator),
        *(f"{NODE}.VISUAL_ENCODER_F.NAME", "none"),
    )
    whole, *stages = run_benchmark(
        tmp_path, CONFIGS[FCCLIP], "--parts", "inference", options=options
    )
    assert whole["masks"] >= 5
    assert [stage["what"] for stage in stages] == ["generator", *STAGES[3:]]


def test_unused_parts_are_no_stages(tmp_path: Path) -> None:
    options = (f"{NODE}.TEST.SEGMENTOR_ONLY", "True")
    _, *stages = run_benchmark(tmp_path, CONFIGS[FCCLIP], "--parts", "inference", options=options)
    assert [stage["what"] for stage in stages] == [*STAGES[:3], STAGES[-1]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_images_of_a_batch_are_counted(dtype: str, tmp_path: Path) -> None:
    whole, *_ = run_benchmark(
        *(tmp_path, CONFIGS[MASK2FORMER], "--parts", "inference"),
        *("--batch-size", "2", "--dtype", dtype),
    )
    assert whole["masks"] == 2 * 9
    assert whole["ours"]["per_second"] == pytest.approx(2 / whole["ours"]["seconds"])


def test_what_people_wait_for_is_measured_per_task(tmp_path: Path) -> None:
    results = run_benchmark(tmp_path, CONFIGS[FCCLIP], "--parts", "folder", "words", "--cpu-time")
    tasks = ["semantic", "panoptic", "instance"]
    assert [result["what"].partition(",")[0] for result in results] == tasks * 2
    for result in results:
        ratios = result["time_over_ours"]
        folder = result["part"] == "folder"
        assert set(ratios) == ({"evaluation", "index", "overlay"} if folder else {"image"})
        assert all(ratio > 0 for ratio in ratios.values())


@pytest.mark.parametrize("name", [tables.MAFT_B, tables.FCCLIP_B], ids=lambda path: path.stem)
def test_a_whole_model_finds_what_the_published_way_finds(name: Path, tmp_path: Path) -> None:
    """Masks, logits and similarities of both are compared before anything is timed."""
    ways = ("--against", "plain", "--variants", "bfloat16")
    whole, *stages = run_benchmark(tmp_path, name, "--parts", "inference", *ways)
    assert set(whole["time_over_ours"]) == {"plain", "bfloat16"}
    assert sum(stage["share"] for stage in stages) <= 1  # of ours alone


def test_a_step_is_compared_with_the_published_one(tmp_path: Path) -> None:
    ways = ("--against", "plain", "--variants", "bfloat16", "--train-masks", "3")
    (step,) = run_benchmark(tmp_path, tables.MAFT_B, "--parts", "train", *ways)
    assert set(step["time_over_ours"]) == {"plain", "bfloat16"}


@pytest.mark.processes
def test_the_published_way_has_a_row_per_kind_of_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "table.md"
    kept = {name: row for name, row in tables.END_TO_END.items() if "847" in name}
    monkeypatch.setattr(tables, "END_TO_END", kept)
    tables.main(["end-to-end", "--output", str(table), *TINY, *options_of(tables.MAFT_B)])
    (row,) = table.read_text().splitlines()[2:]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "ConvNeXt-B + MAFT+-B, 847 classes"
    plain, ours, half = map(float, cells[1:4])
    assert min(plain, ours, half) > 0
    assert cells[4].endswith("x")


class Clock:
    """No load on the machine moves it."""

    def __init__(self) -> None:
        self.now = 0


class Pause(nn.Module):
    def __init__(self, clock: Clock, seconds: int) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, value: int) -> int:
        self.clock.now += self.seconds
        return value


def test_time_belongs_to_the_stage_that_ends_next() -> None:
    clock = Clock()
    first, second, third = Pause(clock, 1), Pause(clock, 3), Pause(clock, 5)
    model = nn.Sequential(first, second, third)
    ends = {"one": first, "two": second, "unused": Pause(clock, 0)}
    timer = StageTimer(model, ends, "rest", torch.device("cpu"), lambda: clock.now)
    assert model(1) == model(1)
    assert len(timer.calls) == 2
    for call in timer.calls:
        assert list(call) == ["one", "two", "unused", "rest"]
        assert call == {"one": 1, "two": 3, "unused": 0, "rest": 5}


@pytest.mark.processes
def test_the_table_has_a_row_per_config(tmp_path: Path) -> None:
    config, table = CONFIGS[FCCLIP], tmp_path / "table.md"
    files = ("--config-files", str(config), "--output", str(table))
    tables.main(["generators", *files, *TINY, *options_of(config)])
    (row,) = table.read_text().splitlines()[2:]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == [FCCLIP, "64 x 96", "9"]
    assert all(float(cell) > 0 for cell in cells[3 : 3 + len(STAGES) + 2])


def test_the_table_knows_all_published_generators() -> None:
    folders = {path.parent.name for path in tables.PUBLISHED["generators"]}
    assert {"fcclip-b", "fcclip-l", "m2f-swin-t", "maft-b", "maft-l", "maft-l-pan"} <= folders

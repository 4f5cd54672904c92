"""Markdown tables of all published encoders, of whole models with a mask generator, or of the
published way of computing against ours.

    python -m benchmarks.tables encoders [--config-files configs/...yaml ...] [--output encoders.md]
    python -m benchmarks.tables generators [options of benchmarks.run, KEY VALUE ...]
    python -m benchmarks.tables end-to-end [options of benchmarks.run, KEY VALUE ...]

Every model runs in its own process, with random weights. Encoders get 2:3 images whose short side
is TEST_IMAGE_SIZE, and 100 masks unless --masks says otherwise; whole models get one image at the
test size of their config. All other options go to ``benchmarks.run``: --device, --dtype, --repeats,
--threads, MODEL.MASKCLIPPP.VISUAL_ENCODER.COMPILE inductor, and so on.

``end-to-end`` takes half an hour of one CPU core, on which it measures CPU time: whole models on an
image of 427 x 640 pixels, and a training step, ours in float32 and bfloat16 and the published way
(``benchmarks.plain.whole``) in turns.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.model_stages import STAGES
from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file
from maskclippp.errors import INPUT_ERROR_STATUS, exit_on_bad_input

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# A mask classifier lies one folder below its dataset, a config with a generator two.
PUBLISHED = {
    "encoders": sorted(CONFIGS.glob("coco-pan/*/*.yaml")),
    # Those of the Hub have no random weights to measure.
    "generators": sorted(
        path
        for path in CONFIGS.glob("coco-*/*/*/*.yaml")
        if re.fullmatch(r"(fcclip|maft|m2f)-(?!.*-hub).*", path.parent.name)
    ),
}
_MAFT = CONFIGS / "coco-stuff/clip-convnext-base/maft-b"
MAFT_B = _MAFT / "maskclippp_coco-stuff_clip-convnext-base_maft-b_ens.yaml"
_FCCLIP = CONFIGS / "coco-pan/eva-clip-vit-b-16/fcclip-b"
FCCLIP_B = _FCCLIP / "maskclippp_coco-pan_eva-clip-vit-b-16_fcclip-b.yaml"
_IMAGE = ("--image-size", 427, 640)
# Config, part, and sizes by the name of a row.
END_TO_END: dict[str, tuple[Path, str, tuple[Any, ...]]] = {
    "ConvNeXt-B + MAFT+-B, 150 classes": (MAFT_B, "inference", (*_IMAGE, "--classes", 150)),
    "ConvNeXt-B + MAFT+-B, 847 classes": (MAFT_B, "inference", (*_IMAGE, "--classes", 847)),
    "EVA-B/16 + FC-CLIP-B, 150 classes, semantic + panoptic + instances": (
        FCCLIP_B,
        "inference",
        (*_IMAGE, "--classes", 150),
    ),
    "training step, ConvNeXt-B, 2 x 640 x 640, 12 masks": (
        MAFT_B,
        "train",
        (
            *("--image-size", 640, 640, "--batch-size", 2),
            *("--train-masks", 12, "--classes", 171),
        ),
    ),
}
WAYS = ("plain", "ours", "bfloat16")
SPEED = ("s / image", "images / s", "peak without weights")
HEADERS = {
    "end-to-end": (
        *("work", "published way, s", "ours, s", "bfloat16, s", "float32", "bfloat16"),
        "peak, GiB",
    ),
    "encoders": ("model", "parameters of image / text tower", "input", "grid", *SPEED),
    "generators": ("config", "input", "masks", *(f"{stage}, s" for stage in STAGES), *SPEED),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for; print the table, and write it to --output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=HEADERS)
    parser.add_argument("--config-files", type=Path, nargs="+", help="default: all published ones")
    parser.add_argument("--output", type=Path, help="Markdown file")
    args, options = parser.parse_known_args(arguments)
    if args.table == "end-to-end":
        rows = [end_to_end_row(name, options) for name in END_TO_END]
    else:
        row = encoder_row if args.table == "encoders" else generator_row
        rows = [row(path, options) for path in args.config_files or PUBLISHED[args.table]]
    table = tabulate(rows, HEADERS[args.table], tablefmt="github", disable_numparse=True) + "\n"
    sys.stdout.write(table)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(table)


def encoder_row(path: Path, options: Sequence[str]) -> list[str]:
    """One encoder at the test size of its config."""
    cfg = get_cfg()
    merge_config_file(cfg, path)
    side = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER.TEST_IMAGE_SIZE
    size = ("--image-size", side, side * 3 // 2)
    (result,) = run_benchmark(path, "encoder", *size, "--masks", 100, *options)
    parameters = result["parameters_millions"]
    return [
        path.parent.name,
        f"{parameters['image']:.0f} M / {parameters['text']:.0f} M",
        " x ".join(map(str, result["input_size"])),
        " x ".join(map(str, result["grid"])),
        *speed_cells(result),
    ]


def generator_row(path: Path, options: Sequence[str]) -> list[str]:
    """A whole model, stage by stage; times are per image."""
    whole, *stages = run_benchmark(path, "inference", *options)
    seconds = {stage["what"]: f"{1 / stage['ours']['per_second']:.3g}" for stage in stages}
    return [
        path.stem.removeprefix("maskclippp_"),
        " x ".join(map(str, whole["input_size"])),
        str(whole["masks"]),
        *(seconds.get(stage, "-") for stage in STAGES),
        *speed_cells(whole),
    ]


def end_to_end_row(name: str, options: Sequence[str]) -> list[str]:
    """The published way and ours in float32 and bfloat16: CPU seconds, ratios, peaks."""
    config, part, sizes = END_TO_END[name]
    ways = (
        "--against",
        "plain",
        "--variants",
        "bfloat16",
        "--threads",
        1,
        "--cpu-time",
        "--device",
        "cpu",
    )
    result, *_ = run_benchmark(config, part, *ways, *sizes, *options)
    seconds = {way: result[way]["seconds"] for way in WAYS}
    peaks = [result[way]["peak_memory_mib"] for way in WAYS]
    return [
        name,
        *(f"{seconds[way]:.3g}" for way in WAYS),
        *(f"{seconds['plain'] / seconds[way]:.2f}x" for way in WAYS[1:]),
        " / ".join("-" if peak is None else f"{peak / 1024:.1f}" for peak in peaks),
    ]


def speed_cells(result: dict[str, Any]) -> list[str]:
    """The columns ``SPEED``."""
    speed, peak = result["ours"]["per_second"], result["ours"]["peak_memory_mib"]
    return [f"{1 / speed:.3g}", f"{speed:.3g}", "-" if peak is None else f"{peak:.0f} MiB"]


def run_benchmark(config: Path, part: str, *options: Any) -> list[dict[str, Any]]:
    """The results of one part of a config, measured in its own process.

    Raises:
        SystemExit: it refused its input; its sentence is on standard error.
        subprocess.CalledProcessError: it failed otherwise.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        module = [sys.executable, "-m", "benchmarks.run"]
        command = [*module, "--config-file", config, "--parts", part, "--output", report, *options]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        if done.returncode == INPUT_ERROR_STATUS:
            sys.exit(INPUT_ERROR_STATUS)
        done.check_returncode()
        sys.stderr.write(done.stdout)  # progress
        results: list[dict[str, Any]] = json.loads(report.read_text())["results"]
        return results


if __name__ == "__main__":
    with exit_on_bad_input():
        main()

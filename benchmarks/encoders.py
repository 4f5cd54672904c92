"""A Markdown table of all encoders, each measured at the test size of its published config.

    python -m benchmarks.encoders [--config-files configs/...yaml ...] [--masks 100]
        [--output encoders.md] [other options of benchmark.py, KEY VALUE ...]

Every model runs in a process of its own, on images of 2:3 whose short side is TEST_IMAGE_SIZE, in
evaluation mode, with random weights. Options that are not listed here go to ``benchmark.py``:
--device, --dtype, --channels-last, --repeats, --threads, MODEL.MASKCLIPPP.VISUAL_ENCODER.COMPILE
inductor, and so on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from maskclippp.config.keys import get_cfg
from maskclippp.config.merging import merge_config_file

REPOSITORY = Path(__file__).resolve().parents[1]

HEADERS = (
    *("model", "parameters of image / text tower", "input", "grid"),
    *("s / image", "images / s", "peak beside weights"),
)


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for; print the table, and write it if asked."""
    args, others = parse_arguments(arguments)
    rows = [measure_config(path, args.masks, others) for path in args.config_files]
    write_table(HEADERS, rows, args.output)


def parse_arguments(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The command line, see --help, and what goes to benchmark.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-files",
        type=Path,
        nargs="+",
        default=published_classifiers(),
        help="default: all of configs/coco-pan without a mask generator",
    )
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--output", type=Path, help="Markdown file")
    return parser.parse_known_args(arguments)


def published_classifiers() -> list[Path]:
    """Mask classifiers lie one folder below the dataset; with a generator they lie deeper."""
    return sorted((REPOSITORY / "configs" / "coco-pan").glob("*/*.yaml"))


def measure_config(path: Path, masks: int, options: Sequence[str]) -> list[str]:
    """One row of the table.

    Raises:
        subprocess.CalledProcessError: the measurement failed; it has said why.
    """
    cfg = get_cfg()
    merge_config_file(cfg, path)
    side = cfg.MODEL.MASKCLIPPP.VISUAL_ENCODER.TEST_IMAGE_SIZE
    size = ("--image-size", side, side * 3 // 2)
    (result,) = run_benchmark(path, "encoder", *size, "--masks", masks, *options)
    return as_row(path.parent.name, result)


def run_benchmark(config: Path, part: str, *options: Any) -> list[dict[str, Any]]:
    """The results of one part of a config, measured in a process of its own.

    Raises:
        subprocess.CalledProcessError: the measurement failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(sys.executable, "-m", "benchmarks.run"),
            *("--config-file", config, "--parts", part, "--output", report),
            *options,
        ]
        words = [str(word) for word in command]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
        sys.stderr.write(done.stdout)  # shows how far this has come
        results: list[dict[str, Any]] = json.loads(report.read_text())["results"]
        return results


def write_table(headers: Sequence[str], rows: Sequence[Sequence[str]], path: Path | None) -> None:
    """Write a Markdown table to standard output, and to a file if there is to be one."""
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True) + "\n"
    sys.stdout.write(table)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table)


def as_row(name: str, result: dict[str, Any]) -> list[str]:
    """What ``benchmark.py`` reports of an encoder, for the reader."""
    parameters, measured = result["parameters_millions"], result["ours"]
    peak = measured["peak_memory_mib"]
    return [
        name,
        f"{parameters['image']:.0f} M / {parameters['text']:.0f} M",
        " x ".join(map(str, result["input_size"])),
        " x ".join(map(str, result["grid"])),
        f"{1 / measured['per_second']:.3g}",
        f"{measured['per_second']:.3g}",
        "-" if peak is None else f"{peak:.0f} MiB",
    ]


if __name__ == "__main__":
    main()

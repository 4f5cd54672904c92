"""A Markdown table of all mask generators: where the time of the whole model goes, per config.

    python -m benchmarks.generators [--config-files configs/...yaml ...]
        [--output generators.md] [other options of benchmark.py, KEY VALUE ...]

Every model runs in a process of its own, with random weights, on an image at the test size of its
config. Options that are not listed here go to ``benchmark.py``: --image-size (of the results),
--classes, --batch-size, --device, --dtype, --repeats, --threads, and so on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.encoders import run_benchmark, write_table
from benchmarks.model_stages import STAGES

REPOSITORY = Path(__file__).resolve().parents[1]

HEADERS = (
    *("config", "input", "masks", *(f"{stage}, s" for stage in STAGES)),
    *("s / image", "images / s", "peak beside weights"),
)


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for; print the table, and write it if asked."""
    args, others = parse_arguments(arguments)
    rows = [
        as_row(path.stem.removeprefix("maskclippp_"), run_benchmark(path, "inference", *others))
        for path in args.config_files
    ]
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
        default=published_generators(),
        help="default: all of configs/coco-* with a mask generator",
    )
    parser.add_argument("--output", type=Path, help="Markdown file")
    return parser.parse_known_args(arguments)


def published_generators() -> list[Path]:
    """Configs with a generator lie two folders below the dataset."""
    return sorted((REPOSITORY / "configs").glob("coco-*/*/*/*.yaml"))


def as_row(name: str, results: Sequence[dict[str, Any]]) -> list[str]:
    """What ``benchmark.py`` reports of a whole model, for the reader; times are per image."""
    whole, *stages = results
    speed, peak = whole["ours"]["per_second"], whole["ours"]["peak_memory_mib"]
    seconds = {stage["what"]: f"{1 / stage['ours']['per_second']:.3g}" for stage in stages}
    return [
        *(name, " x ".join(map(str, whole["input_size"])), str(whole["masks"])),
        *(seconds.get(stage, "-") for stage in STAGES),
        *(f"{1 / speed:.3g}", f"{speed:.3g}", "-" if peak is None else f"{peak:.0f} MiB"),
    ]


if __name__ == "__main__":
    main()

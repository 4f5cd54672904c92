"""``maskclippp label``."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskclippp.cli.model_arguments import add_model_arguments, model_options, words_of
from maskclippp.engine.arguments import Parser

if TYPE_CHECKING:
    from maskclippp.engine.layout import Layout

_EXAMPLES = """examples:
  maskclippp label photos --classes "cat, kitten; grass" --output labels
  maskclippp label 'shards/*.tar' --vocabulary ade20k_150 --task panoptic --output labels
  torchrun --nproc-per-node 8 -m maskclippp label photos --classes "car; road" --output labels

Any number of processes may work on one output folder, however and whenever they are started. The
same command continues a stopped job. Semicolons separate classes, commas their synonyms; without a
semicolon, commas separate classes."""


def main(arguments: Sequence[str]) -> None:
    """Label any number of images."""
    _run(_parser().parse_args(arguments))


def _parser() -> Parser:
    parser = Parser(
        prog="maskclippp label",
        description="Label any number of images, by any number of processes, resumable.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("input", help="folder, pattern, text file with a path per line, or tar file")
    add_model_arguments(parser)
    add("--output", type=Path, required=True, help="folder of the labels")
    add("--shard-size", type=int, default=1000, help="images per file (default: %(default)s)")
    add(
        "--format", choices=("jsonl", "parquet"), default="jsonl", help="of the files (%(default)s)"
    )
    add("--index-png", action="store_true", help="also write the class of every pixel")
    return parser


def _run(args: argparse.Namespace) -> None:
    from maskclippp.engine.interruption import Interrupted, interruptible
    from maskclippp.engine.layout import external_layout

    # The processes never meet: no address is needed.
    layout = external_layout({"MASTER_ADDR": "localhost", **os.environ})
    prefix = "" if layout is None else f"[{layout.rank}] "

    def write(line: str) -> None:
        sys.stdout.write(f"{prefix}{line}\n")
        sys.stdout.flush()

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        with interruptible(at_once=True):
            _label(args, layout, write)
    except Interrupted:
        write("stopped: the same command continues")
        raise


def _label(args: argparse.Namespace, layout: "Layout | None", write: Callable[[str], None]) -> None:
    from maskclippp.labeling import Job, Labeler

    job = Job(
        args.input,
        args.output,
        shard_size=args.shard_size,
        file_format=args.format,
        index_png=args.index_png,
        write=write,
    )
    options = model_options(args)
    options["device"] = args.device or _device(layout)
    labeler = Labeler(
        words_of(args),
        task=args.task,
        threshold=args.threshold,
        batch_size=args.batch_size,
        **options,
    )
    job.run(labeler, start=0.0 if layout is None else layout.rank / layout.world_size)


def _device(layout: "Layout | None") -> str | None:
    """The GPU of this process, where the launcher shows it several."""
    import torch

    visible = torch.cuda.device_count()
    return f"cuda:{layout.local_rank % visible}" if layout is not None and visible > 1 else None

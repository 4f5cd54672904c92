"""``maskclippp export``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from maskclippp.cli.model_arguments import add_model, add_words, build_predictor
from maskclippp.engine.arguments import Parser

_EXAMPLES = """examples:
  maskclippp export --model shapes --classes "red circle; gray brick wall" --output exported
  maskclippp export --vocabulary ade20k_150 --graphs classifier --output exported
  maskclippp export --vocabulary coco_panoptic --graphs none --output exported

The last one writes other words for the graphs of before. docs/export.md describes the files, and
segments a picture with nothing but numpy, onnxruntime and Pillow."""


def main(arguments: Sequence[str]) -> None:
    """Write a model as files that other programs run."""
    _run(_parser().parse_args(arguments))


def _parser() -> Parser:
    parser = Parser(
        prog="maskclippp export",
        description="Write a model for other programs: mask generator and mask classifier as ONNX "
        "or torch.export, the words as matrices.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add_words(parser)
    add_model(parser)
    add("--output", type=Path, required=True, help="folder of the files")
    add(
        "--graphs",
        nargs="+",
        choices=("generator", "classifier", "none"),
        default=["generator", "classifier"],
        metavar="GRAPH",
        help="generator, classifier, none (default: both)",
    )
    add(
        "--format",
        nargs="+",
        choices=("onnx", "pt2"),
        default=["onnx"],
        metavar="FORMAT",
        help="onnx, pt2: a program of torch.export (default: onnx)",
    )
    add(
        "--image-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of all images (default: any size)",
    )
    return parser


def _run(args: argparse.Namespace) -> None:
    from maskclippp.errors import InputError
    from maskclippp.export import check_packages, export_model
    from maskclippp.files.atomic import make_folder

    if args.image_size is not None and min(args.image_size) < 1:
        raise InputError(f"--image-size: expected positive numbers, found {args.image_size}")
    check_packages(args.format)
    make_folder(args.output, "--output")
    predictor = build_predictor(args, device="cpu", dtype="float32")
    written = export_model(
        predictor.model,
        predictor.words,
        args.output,
        graphs=[graph for graph in args.graphs if graph != "none"],
        formats=args.format,
        image_size=None if args.image_size is None else tuple(args.image_size),
        test_size=(predictor.min_size, predictor.max_size),
    )
    for path in written:
        sys.stdout.write(f"{path}  {path.stat().st_size / 1e6:.1f} MB\n")

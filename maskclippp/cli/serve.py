"""``maskclippp serve``."""

import argparse
import importlib.metadata
import logging
import signal
import sys
import threading
from collections.abc import Sequence

from maskclippp.engine.arguments import Parser
from maskclippp.errors import InputError, MissingPackageError

_EXAMPLES = """examples:
  maskclippp serve
  maskclippp serve --model default --device cuda
  maskclippp serve --model shapes output/linear_psm/mine --port 8000

The page is for this machine only, unless --host says otherwise; it has no password. It asks no
other host for anything. Ctrl-C ends it, and deletes what was uploaded."""
_LOCAL = ("127.0.0.1", "localhost", "::1")
_OLDEST_GRADIO = 6


def main(arguments: Sequence[str]) -> None:
    """Serve a web page that segments pictures into words."""
    _run(argument_parser().parse_args(arguments))


def argument_parser() -> Parser:
    """The options of the command."""
    parser = Parser(
        prog="maskclippp serve",
        description="Serve a web page: upload a picture, type words, look at the segments.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        default=["shapes"],
        metavar="MODEL",
        help="models to choose from: names, configs, run folders or repositories on the Hub "
        "(default: shapes, the built-in world of drawn shapes)",
    )
    add("--weights", metavar="FILE", help="a checkpoint, if there is one model")
    add("--generator", help="mask generator of all models (default: their own)")
    add("--device", help="such as cuda or cpu (default: cuda if it is available)")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    add("--revision", help="commit or tag of a repository on the Hub, if there is one model")
    add("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0: all (%(default)s)")
    add("--port", type=int, default=7860, help="(default: %(default)s)")
    return parser


def _run(args: argparse.Namespace) -> None:
    if not 1 <= args.port <= 65535:
        raise InputError(f"--port: expected a number in 1..65535, found {args.port}")
    models = list(dict.fromkeys(args.model))
    for option in ("weights", "revision"):
        if getattr(args, option) is not None and len(models) > 1:
            raise InputError(f"--{option} is of one model, but --model names {len(models)}")
    _require_gradio()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from maskclippp.app.page import check_address, serving
    from maskclippp.predictor import Predictor

    check_address(args.host, args.port)  # before anything is fetched
    # Also SIGTERM deletes what was uploaded.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        predictors = {
            model: Predictor.from_pretrained(
                model, args.weights, args.generator, args.device, args.dtype, args.revision
            )
            for model in models
        }
        with serving(predictors, args.host, args.port) as url:
            reach = "this machine only" if args.host in _LOCAL else "everyone who can reach it"
            sys.stdout.write(f"The page is at {url} for {reach}; Ctrl-C ends it\n")
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:
        sys.stdout.write("\n")


def _require_gradio() -> None:
    remedy = "pip install 'maskclippp[demo]', or pip install 'gradio>=6'"
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingPackageError(f"the page needs the package gradio: {remedy}") from error
    if int(version.partition(".")[0]) < _OLDEST_GRADIO:
        raise MissingPackageError(f"the page needs gradio 6 or newer, found {version}: {remedy}")

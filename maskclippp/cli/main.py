"""The program ``maskclippp``: finds the command; only that command's imports are paid for."""

import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from maskclippp import __version__
from maskclippp.engine.arguments import Parser
from maskclippp.errors import exit_on_bad_input

# Command -> what it does; the module of the same name in this folder is imported when it is called.
COMMANDS = {
    "train": "fine-tune the model that a config describes",
    "eval": "evaluate a checkpoint",
    "predict": "segment images, folders, videos or a camera into words",
    "label": "label any number of images, by any number of processes",
    "serve": "show a web page that segments pictures into words",
    "export": "write a model as files that other programs run (ONNX, torch.export)",
    "models": "list the published models, and what is here of them",
    "config": "print a resolved config, or explain a key",
    "datasets": "list the registered datasets, and which of them are complete",
    "download": "fetch class lists and pretrained weights ahead of time",
    "doctor": "show versions, devices, caches, datasets and weights: what a bug report needs",
}
_EXAMPLE = """example:
  maskclippp train --config-file configs/shapes/linear_psm.yaml --num-gpus 0

Each command has its own help: maskclippp COMMAND --help"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name (default: those of the process)."""
    listed = "\n".join(f"  {name:<10}{purpose}" for name, purpose in COMMANDS.items())
    parser = Parser(
        prog="maskclippp",
        description=f"Open-vocabulary segmentation with MaskCLIP++.\n\ncommands:\n{listed}",
        epilog=_EXAMPLE,
    )
    parser.add_argument("--version", action="version", version=f"maskclippp {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see above")
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What follows the command belongs to it, --help included.
    command = parser.parse_args(given[:1]).command
    with exit_on_bad_input(), _quiet_ends():
        importlib.import_module(f"maskclippp.cli.{command}").main(given[1:])


@contextmanager
def _quiet_ends() -> Iterator[None]:
    """End quietly on Ctrl-C, and if who reads the output, such as ``head``, has closed it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        sys.exit(128 + signal.SIGINT)

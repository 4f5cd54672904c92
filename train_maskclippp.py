"""Train or evaluate what a config describes, as ``maskclippp train`` and ``maskclippp eval`` do.

python train_maskclippp.py --config-file configs/... [--num-gpus N] [--tag TAG] [KEY VALUE ...]
python train_maskclippp.py --config-file configs/... --resume
python train_maskclippp.py --config-file configs/... --eval-only MODEL.WEIGHTS checkpoint.pth
"""

import maskclippp  # noqa: F401  (makes detectron2 importable)

# isort: split
from maskclippp.engine.arguments import argument_parser
from maskclippp.engine.launch import evaluate_checkpoint, launch_run, main

__all__ = ["command_line", "evaluate_checkpoint", "main"]


def command_line() -> None:
    """Run what ``sys.argv`` asks for."""
    launch_run(argument_parser().parse_args())


if __name__ == "__main__":
    command_line()

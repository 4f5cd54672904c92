"""``maskclippp eval``."""

from collections.abc import Sequence

from maskclippp.engine.arguments import argument_parser

_EXAMPLES = """examples:
  maskclippp eval --config-file configs/shapes/plain_clip.yaml --num-gpus 0
  maskclippp eval --config-file CONFIG --num-gpus 8 MODEL.WEIGHTS checkpoint.pth
  maskclippp eval --config-file CONFIG DATASETS.TEST "('openvocab_ade20k_panoptic_val',)"
"""


def main(arguments: Sequence[str]) -> None:
    """Evaluate a checkpoint, by default the last one of the run."""
    args = argument_parser("maskclippp eval", _EXAMPLES).parse_args(arguments)
    args.eval_only = True
    from maskclippp.engine.launch import launch_run

    launch_run(args)

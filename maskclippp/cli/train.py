"""``maskclippp train``."""

from collections.abc import Sequence

from maskclippp.engine.arguments import argument_parser

_EXAMPLES = """examples:
  maskclippp train --config-file configs/shapes/linear_psm.yaml --num-gpus 0
  maskclippp train --config-file configs/shapes/linear_psm.yaml --num-gpus 0 --resume
  maskclippp train --config-file CONFIG --num-gpus 8 --tag large_batch SOLVER.IMS_PER_BATCH 32
"""


def main(arguments: Sequence[str]) -> None:
    """Fine-tune the model of a config."""
    args = argument_parser("maskclippp train", _EXAMPLES).parse_args(arguments)
    from maskclippp.engine.launch import launch_run

    launch_run(args)

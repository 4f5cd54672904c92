"""The arguments of commands that segment images: words, task and model."""

import argparse
from typing import Any

TASKS = ("semantic", "panoptic", "instance")


def add_model_arguments(parser: argparse.ArgumentParser, *, batch_size: int) -> None:
    """Add the words, the task, the model, and how it computes."""
    add = parser.add_argument
    add_words(parser)
    add("--task", choices=TASKS, default="semantic", help="what is found (default: %(default)s)")
    add_model(parser)
    add("--threshold", type=float, default=0.5, help="least score of an instance (%(default)s)")
    add(
        "--batch-size",
        type=int,
        default=batch_size,
        help="images encoded together (%(default)s)",
    )
    add("--device", help="such as cuda or cpu (default: cuda if it is available)")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16")


def add_words(parser: argparse.ArgumentParser) -> None:
    """Add the words; see :func:`words_of`."""
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--classes", metavar="TEXT", help="the words, as in 'cat, kitten; grass'")
    words.add_argument("--vocabulary", metavar="NAME|FILE", help="a dataset, class list or file")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add what says which model."""
    add = parser.add_argument
    add(
        "--model",
        default="default",
        help="a model's name, a config, a run folder or a repository "
        "on the Hub (default: %(default)s, for photographs; shapes needs no download)",
    )
    add(
        "--weights",
        metavar="FILE",
        help="a checkpoint; 'initial': plain CLIP (default: the model's own)",
    )
    add("--generator", help="'superpixels', a generator's name, a class, a config or a Hub name")
    add("--revision", help="commit or tag of a repository on the Hub")


def words_of(args: argparse.Namespace) -> str | list[str]:
    """The words that the arguments name, as ``set_classes`` takes them."""
    if args.vocabulary is not None:
        return str(args.vocabulary)
    # One word is no name of a list.
    return str(args.classes) if {",", ";"} & set(args.classes) else [args.classes]


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`maskclippp.predictor.models.build_model`."""
    names = ("model", "weights", "generator", "device", "dtype", "revision")
    return {name: getattr(args, name) for name in names}

"""The arguments of commands that segment images: words, task and model."""

import argparse
from typing import TYPE_CHECKING, Any

from maskclippp.engine.arguments import Parser

if TYPE_CHECKING:
    from maskclippp.predictor import Predictor

TASKS = ("semantic", "panoptic", "instance")


def add_model_arguments(parser: Parser) -> None:
    """Add the words, the task, the model, and how it computes."""
    add = parser.add_argument
    add_words(parser)
    add("--task", choices=TASKS, default="semantic", help="what is found (default: %(default)s)")
    add_model(parser)
    add("--threshold", type=float, default=0.5, help="least score of an instance (%(default)s)")
    add("--batch-size", type=int, help="images encoded together (default: 8, on a CPU 1)")
    add("--device", help="such as cuda or cpu (default: cuda if it is available)")
    add("--dtype", default="auto", help="auto, float32, bfloat16 or float16")


def add_words(parser: Parser) -> None:
    """Add the words; see :func:`words_of`."""
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--classes", metavar="TEXT", help="the words, as in 'cat, kitten; grass'")
    words.add_argument("--vocabulary", metavar="NAME|FILE", help="a dataset, class list or file")


def add_model(parser: Parser) -> None:
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
    """The options of :func:`maskclippp.predictor.models.build_model` that the arguments have."""
    names = ("model", "weights", "generator", "device", "dtype", "revision")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def build_predictor(args: argparse.Namespace, **options: Any) -> "Predictor":
    """The predictor that the arguments describe, with its words.

    Wrong words are told before a model is fetched and built.
    """
    from maskclippp.predictor import Predictor
    from maskclippp.words.given import given_words

    words = words_of(args)
    given_words(words)
    return Predictor.from_pretrained(**model_options(args), **options).set_classes(words)

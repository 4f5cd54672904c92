"""The parser of our programs, and the command line of a run: detectron2's arguments and ours.

It imports neither torch nor detectron2, so that help is shown at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from maskclippp.errors import INPUT_ERROR_STATUS


class Parser(argparse.ArgumentParser):
    """A parser that shows texts as they are, and whose errors are one sentence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Exit with the sentence, as for an InputError."""
        self.exit(INPUT_ERROR_STATUS, f"error: {message}; see {self.prog} --help\n")


class RunArguments(Parser):
    """A parser that accepts flags also behind and between the KEY VALUE pairs."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._flags_first(given), namespace)

    def _flags_first(self, given: Sequence[str]) -> list[str]:
        flags: list[str] = []
        pairs: list[str] = []
        words = list(given)
        while words:
            word = words.pop(0)
            if not word.startswith("--") and word != "-h":
                pairs.append(word)
                if words and not words[0].startswith("--"):
                    pairs.append(words.pop(0))  # a value; it may begin with a minus
            elif word != "--" and "--resume".startswith(word):  # argparse takes prefixes
                automatic = bool(words) and words[0] == "auto"
                flags.append("--resume=" + (words.pop(0) if automatic else "always"))
            else:
                flags.append(word)
                if words and "=" not in word and self._takes_value(word):
                    flags.append(words.pop(0))
        return [*flags, *pairs]

    def _takes_value(self, flag: str) -> bool:
        actions = [
            action
            for action in self._actions
            if any(option.startswith(flag) for option in action.option_strings)
        ]
        return len(actions) == 1 and actions[0].nargs is None


class _StoreTag(argparse.Action):
    """Stores the tag, and that there is one: a run may be called "default"."""

    def __call__(self, _: Any, namespace: argparse.Namespace, values: Any, __: Any = None) -> None:
        namespace.tag, namespace.tag_is_told = values, True


def argument_parser(
    program: str | None = None, examples: str | None = None
) -> argparse.ArgumentParser:
    """The arguments of detectron2's scripts, ``--tag``, ``--overwrite`` and ``--resume auto``.

    Args:
        program: its name in the usage; default: of the script.
        examples: shown below the options.
    """
    parser = RunArguments(prog=program, epilog=examples)
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="what to train or to evaluate")
    add(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=lambda text: "auto" if text == "auto" else True,
        metavar="auto",
        help="continue from the last checkpoint of the run; with auto, start if there is none",
    )
    add(
        "--overwrite",
        action="store_true",
        help="delete the run of the same tag, or replace its results in an evaluation",
    )
    add("--eval-only", action="store_true", help="evaluate a checkpoint")
    add("--num-gpus", type=int, help="GPUs per machine (default: 1, or 0 where there is none)")
    add("--num-machines", type=int, default=1, help="(default: %(default)s)")
    add("--machine-rank", type=int, default=0, help="of this machine, from 0")
    add(
        "--dist-url",
        default=default_address(),
        metavar="URL",
        help="where the processes of several machines meet: tcp://HOST:PORT",
    )
    add(
        "--tag",
        action=_StoreTag,
        default="default",
        help="files go to output/<config name>/<tag>; default: date and time, or the newest run if "
        "its checkpoint is needed (--resume, or --eval-only without MODEL.WEIGHTS)",
    )
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override the config file")
    return parser


def default_address() -> str:
    """That of detectron2: a port per user, so that users of one machine do not collide."""
    user = os.getuid() if hasattr(os, "getuid") else 1
    return f"tcp://127.0.0.1:{2**15 + 2**14 + hash(user) % 2**14}"

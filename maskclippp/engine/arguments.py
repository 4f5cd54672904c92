"""The command line of a run: detectron2's arguments and ours, in any order."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class RunArguments(argparse.ArgumentParser):
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

"""What every config key means: the comments in keys.yaml."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

KEYS_FILE = Path(__file__).with_name("keys.yaml")


class Entry(NamedTuple):
    """A key or a section of ``keys.yaml``.

    Attributes:
        name: the full name.
        meaning: the comment above it.
        is_section: whether it has keys of its own.
        twin: the full name of the section whose keys this one repeats, or "".
    """

    name: str
    meaning: str
    is_section: bool
    twin: str = ""

    @property
    def section(self) -> str:
        """The full name of the section that it belongs to."""
        return self.name.rpartition(".")[0]


def entries() -> list[Entry]:
    """The keys and sections of ``keys.yaml`` in their order, without INERT_KEYS."""
    text = KEYS_FILE.read_text()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    found = list(_entries(root, text.splitlines(), "", {}))
    return [entry for entry in found if not entry.name.startswith("INERT_KEYS")]


def _entries(
    node: yaml.MappingNode, lines: list[str], prefix: str, names: dict[int, str]
) -> Iterator[Entry]:
    names[id(node)] = prefix.removesuffix(".")
    for key, value in node.value:
        if key.value == "<<":
            continue
        name = f"{prefix}{key.value}"
        meaning = _comment_above(lines, key.start_mark.line)
        if not isinstance(value, yaml.MappingNode):
            yield Entry(name, meaning, is_section=False)
            continue
        twins = [names[id(other)] for inner, other in value.value if inner.value == "<<"]
        yield Entry(name, meaning, is_section=True, twin="".join(twins))
        yield from _entries(value, lines, f"{name}.", names)


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line > 0 and lines[line - 1].strip().startswith("# "):
        line -= 1
        comment.insert(0, lines[line].strip().removeprefix("# "))
    return " ".join(comment)

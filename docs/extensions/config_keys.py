"""Sphinx extension: writes the list of all config keys from ``keys.yaml`` and the code.

It replaces the line ``{{ config_keys }}`` of a page, and ``{{ detectron2_keys }}``.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config_readers import Readers
from sphinx.application import Sphinx

from maskclippp.config.descriptions import Entry, entries
from maskclippp.config.keys import get_cfg, inert_keys

PACKAGE = Path(__file__).parents[2] / "maskclippp"


def key_list() -> str:
    """Markdown: every section with its keys, defaults, meanings and readers."""
    readers, found = Readers(PACKAGE), entries()
    parts = []
    for section in (entry for entry in found if entry.is_section):
        keys = [e for e in found if e.section == section.name and not e.is_section]
        if keys:
            parts.append(f"## `{section.name}`\n\n{_prose(section.meaning)}")
        if section.twin:
            parts.append(f"All other keys, and their readers, are those of `{section.twin}`.")
        parts.extend(_definition(key, readers) for key in keys)
    return "\n\n".join(parts + _inert())


def _definition(entry: Entry, readers: Readers) -> str:
    default = functools.reduce(getattr, entry.name.split("."), get_cfg())
    key = entry.name.rpartition(".")[2]
    meaning = _prose(entry.meaning) or "Another default than there."
    return (
        f"[`{key}`]{{#{_anchor(entry.name)}}} = `{default!r}`\n"
        f": {meaning}\\\n  Read by {_files(readers.of(entry.name))}"
    )


def detectron2_key_list() -> str:
    """Markdown: the keys of detectron2's own that the package reads, with their defaults."""
    readers = Readers(PACKAGE)
    # Also the keys below a section that repeats another, such as VISUAL_ENCODER_F.
    own = [entry.name for entry in entries() if entry.twin or not entry.is_section]
    lines = ["| key | default | read by |", "|---|---|---|"]
    for name, value in leaves(get_cfg()):
        modules = readers.of(name)
        if modules and not any(f"{name}.".startswith(f"{key}.") for key in own):
            lines.append(f"| `{name}` | `{value!r}` | {_files(modules)} |")
    return "\n".join(lines)


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full name and value of every key of a configuration."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _inert() -> list[str]:
    parts = ["## Keys without effect", "Published configs set them; they are accepted, never read."]
    for reason, keys in inert_keys().items():
        listed = "\n".join(f"- `{name}` = `{default!r}`" for name, default in keys.items())
        parts.append(f"{reason}\n\n{listed}")
    return parts


def _files(modules: list[str]) -> str:
    return ", ".join(f"`{module}`" for module in modules)


def _anchor(name: str) -> str:
    return name.lower().replace(".", "-").replace("_", "-")


def _prose(comment: str) -> str:
    """A comment as Markdown: names of keys and files as code, pages as links."""
    comment = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", comment)
    comment = re.sub(r"(?<![\w/.(])(maskclippp/[\w/.]+\.py)", r"`\1`", comment)
    return re.sub(r"(?<![\w`.])([A-Z][A-Z0-9]*(?:[_.]+[A-Z0-9]+)+)(?![\w`])", r"`\1`", comment)


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    for placeholder, text in (("config_keys", key_list), ("detectron2_keys", detectron2_key_list)):
        line = f"{{{{ {placeholder} }}}}"
        if line in source[0]:
            source[0] = source[0].replace(line, text())


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}

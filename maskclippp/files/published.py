"""The list of what is published, read from published.yaml."""

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from maskclippp.errors import InputError

KINDS = {
    "model": "fine-tuned models",
    "generator": "mask generators",
    "clip": "pretrained CLIPs",
}
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@dataclass(frozen=True)
class Published:
    """One published file; see the head of published.yaml for the fields."""

    name: str
    kind: Literal["clip", "generator", "model"]
    url: str = ""
    path: str = ""
    page: str = ""
    config: str = ""
    model_name: str = ""
    tag: str = ""
    clip: str = ""
    generator: str = ""
    results: Mapping[str, float] = field(default_factory=dict)

    @property
    def local(self) -> Path | None:
        """Where the file belongs; None for a tag of open_clip."""
        return Path(self.path) if self.path else None

    @property
    def config_file(self) -> Path:
        """The config that uses it."""
        return CONFIGS / self.config

    def how_to_get(self) -> str:
        """What to do if the file is missing, as the end of a sentence."""
        if not self.url:
            return f"download it by the link on {self.page} and put it at {self.path}"
        place = f", which puts it at {self.path}" if self.path else ""
        return f"run: maskclippp download {self.name}{place} (or download {self.url} by hand)"


@functools.cache
def published() -> Mapping[str, Published]:
    """All entries by name."""
    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    return {name: Published(name, **entry) for name, entry in yaml.safe_load(text).items()}


def find_published(name: str, *others: str) -> Published:
    """The entry of a name; an InputError lists near ones, ``others`` among them."""
    entry = published().get(name)
    if entry is None:
        near = difflib.get_close_matches(name, [*published(), *others], n=3, cutoff=0.4)
        raise InputError(
            f"{name!r} is not in the list of published models, which 'maskclippp models' shows"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
    return entry


def of_file(path: str | Path) -> Published | None:
    """The entry whose file has this name."""
    name = Path(path).name
    return next(
        (e for e in published().values() if name and e.path and Path(e.path).name == name), None
    )


def of_config(path: str | Path) -> Published | None:
    """The fine-tuned model of a config."""
    name = Path(path).name
    entries = (e for e in published().values() if e.kind == "model")
    return next((e for e in entries if Path(e.config).name == name), None)

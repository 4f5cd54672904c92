"""Reads the project's pages: code blocks, the files they show, and commands."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.golden_cases import REPOSITORY

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "datasets/README.md")
    for path in REPOSITORY.glob(pattern)
)
_BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_PROGRAMS = ("python", "make", "maskclippp")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        file: the file that it shows, named at the end of the line above; or "".
        language: written after the opening fence.
        text: its lines.
    """

    file: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a page, split as a shell splits it."""

    page: Path
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}: {shlex.join(self.words)}"


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The code blocks of a page, in their order."""
    found = [Block(*match) for match in _BLOCK.findall(page.read_text())]
    return [block for block in found if language in (None, block.language)]


def text_without_blocks(page: Path) -> str:
    """The running text of a page."""
    return _BLOCK.sub("", page.read_text())


def commands(page: Path) -> list[Command]:
    """The commands in the bash blocks of a page; lines that end with a backslash are joined."""
    return [
        Command(page, tuple(words))
        for block in blocks(page, "bash")
        for line in block.text.replace("\\\n", " ").splitlines()
        if (words := shlex.split(line, comments=True))
    ]


def mentioned_commands(page: Path) -> list[Command]:
    """The commands in the running text of a page."""
    found = re.findall(r"`([^`]+)`", text_without_blocks(page).replace("\n", " "))
    split = (re.sub(r"^([A-Z_]+=\S+ )+", "", text).split() for text in found if " " in text)
    return [Command(page, tuple(words)) for words in split if words[0] in _PROGRAMS]


def write_files(page: Path, folder: Path) -> None:
    """Make ``folder`` the working directory of a page: its files, next to ``configs``."""
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
    (folder / "configs").symlink_to(REPOSITORY / "configs")

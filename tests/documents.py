"""The files that pages of the manual show."""

import re
from pathlib import Path

from tests.golden_cases import REPOSITORY

# A code block whose file is named at the end of the line above it.
_NAMED_BLOCK = re.compile(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)


def write_files_of(page: str, folder: Path) -> None:
    """Write the named code blocks of a page of docs/ into a folder, with a link to configs/."""
    for name, content in _NAMED_BLOCK.findall((REPOSITORY / "docs" / page).read_text()):
        (folder / name).write_text(content)
    (folder / "configs").symlink_to(REPOSITORY / "configs")

"""The tables of published models in the manual are those of the data file."""

import sys

from maskclippp.files.published import published
from tests.golden_cases import REPOSITORY

sys.path.append(str(REPOSITORY / "docs" / "extensions"))

import published_models


def test_every_entry_is_a_row_with_its_address_and_numbers() -> None:
    rows = published_models.tables().splitlines()
    for entry in published().values():
        (row,) = [row for row in rows if f"[`{entry.name}`]({entry.url or entry.page})" in row]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if entry.kind == "model":
            header = next(r for r in rows if all(f" {name} |" in r for name in entry.results))
            assert len(cells) == header.count("|") - 1
            assert cells[-len(entry.results) :] == [str(v) for v in entry.results.values()]
        else:
            assert entry.path in row

"""The tables of published models in manual and README are those of the data file."""

from maskclippp.files.published import published
from tests.golden_cases import REPOSITORY
from tools import published_tables


def test_every_entry_is_a_row_with_its_address_and_numbers() -> None:
    rows = published_tables.tables().splitlines()
    for entry in published().values():
        (row,) = [row for row in rows if f"[`{entry.name}`]({entry.url or entry.page})" in row]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if entry.kind == "model":
            header = next(r for r in rows if all(f" {name} |" in r for name in entry.results))
            assert len(cells) == header.count("|") - 1
            assert cells[-len(entry.results) :] == [str(v) for v in entry.results.values()]
        else:
            assert entry.path in row


def test_the_readme_has_the_numbers_of_the_data_file() -> None:
    """If not: python -m tools.published_tables."""
    page = (REPOSITORY / "README.md").read_text()
    assert page == published_tables.with_tables(page)
    for entry in published().values():
        if entry.kind == "model":
            numbers = " | ".join(map(str, entry.results.values()))
            assert f"| `{entry.name}` | {entry.clip} | {entry.generator} | {numbers} |" in page

"""What was written to a journal is read again, up to the first entry that is not whole."""

import resource
from pathlib import Path

import pytest

from maskclippp.files.journal import Journal

ENTRIES = [b"first", b"", b"third " * 40]


def written(path: Path) -> bytes:
    journal = Journal(path)
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return path.read_bytes()


def test_entries_are_found_again_and_more_are_added(tmp_path: Path) -> None:
    written(tmp_path / "new" / "a.journal")
    journal = Journal(tmp_path / "new" / "a.journal")
    assert journal.entries == ENTRIES
    journal.append(b"last")
    assert Journal(journal.path).entries == [*ENTRIES, b"last"]


def test_a_file_that_breaks_off_anywhere_has_its_whole_entries(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    content = written(path)
    seen = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        journal = Journal(path)
        count = len(journal.entries)
        seen.add(count)
        assert journal.entries == ENTRIES[:count]
        journal.append(b"next")
        assert Journal(path).entries == [*ENTRIES[:count], b"next"]
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("position", [0, 7, 8, 20, 41])
def test_nothing_behind_a_damaged_entry_is_used(position: int, tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    content = bytearray(written(path))
    content[position] ^= 1
    path.write_bytes(content)
    assert Journal(path).entries == []


def test_a_cleared_journal_is_empty(tmp_path: Path) -> None:
    written(tmp_path / "a.journal")
    journal = Journal(tmp_path / "a.journal")
    journal.clear()
    journal.append(b"new")
    assert Journal(journal.path).entries == [b"new"]


def test_what_a_full_disk_refused_is_not_written_later(tmp_path: Path) -> None:
    """The entries before it stay, and closing is no second failure."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path / "a.journal")
    journal.append(b"first")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append(b"second" * 100)
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert Journal(journal.path).entries == [b"first"]

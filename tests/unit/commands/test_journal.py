"""commands.journal: what `move` writes down before it deletes anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.commands.journal import read_journal
from provisioner.core.errors import InvalidSettings


def test_written_and_read(tmp_path: Path) -> None:
    """Each volume is in the file as it was and as it becomes, until its move has ended."""
    path = str(tmp_path / "journal.json")
    journal = read_journal(path, "old:/x", "new:/y")
    assert journal.unfinished() == {}
    journal.write("one", "begun", was={"a": 1}, now={"a": 2})
    journal.write("two", "begun", was={}, now={})
    journal.write("two", "done", was={}, now={})
    again = read_journal(path, "old:/x", "new:/y")
    assert again.unfinished() == {"one": {"state": "begun", "was": {"a": 1}, "now": {"a": 2}}}
    assert set(again.entries) == {"one", "two"}


def test_of_another_move(tmp_path: Path) -> None:
    """A file of another move, or one that is no journal, is refused and stays as it is."""
    path = tmp_path / "journal.json"
    read_journal(str(path), "old:/x", "new:/y").write("one", "begun", was={}, now={})
    text = path.read_text()
    with pytest.raises(InvalidSettings, match="is of the move from old:/x to new:/y"):
        read_journal(str(path), "old:/x", "other:/z")
    assert path.read_text() == text
    for damaged in ("{", "[]", "{}"):
        path.write_text(damaged)
        with pytest.raises(InvalidSettings, match="cannot be read"):
            read_journal(str(path), "old:/x", "new:/y")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a journal nothing begins."""
    journal = read_journal(str(tmp_path / "nothere" / "journal.json"), "old:/x", "new:/y")
    with pytest.raises(InvalidSettings, match="name a file that can be written with --journal"):
        journal.write("one", "begun", was={}, now={})

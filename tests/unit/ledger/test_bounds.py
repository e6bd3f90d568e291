"""Limits on what an export reads of its server's directories, and the errors beyond them."""

from __future__ import annotations

import pytest

from provisioner.core.locations import Location
from provisioner.core.paths import PathIndex
from provisioner.ledger import trash
from provisioner.ledger.export import Export
from provisioner.ledger.unknown import unknown_directories
from provisioner.ports import endless
from provisioner.ports.tree import ExportError, Ownership
from tests.support.fakes.tree import MemoryTree

PLAIN = Ownership(mode=0o755)


async def test_a_ledger_of_too_much_text_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening fails with the directory's name if its symbolic links hold more than the limit together."""
    monkeypatch.setattr(endless, "TARGETS_LIMIT_BYTES", 1 << 20)
    tree = MemoryTree()
    opened = Export(Location("nas", "/x"), tree)
    await opened.open()
    for number in range(1100):
        await tree.make_symlink((".provisioner", "volumes", f"pvc-{number}"), "x" * 1000)
    with pytest.raises(ExportError) as caught:
        await opened.open()
    assert "directory .provisioner/volumes holds symbolic links of more than 1 MiB in total" in caught.value.advice


async def test_a_trash_of_many_is_seen_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trash lists a limited number of names, and the others once those are removed."""
    monkeypatch.setattr(trash, "TRASH_LIMIT", 3)
    tree = MemoryTree()
    opened = Export(Location("nas", "/x"), tree)
    await opened.open()
    for number in range(5):
        await tree.make_directory((".provisioner", "trash", f"v{number}"), PLAIN)
    seen: list[str] = []
    while names := await opened.trash.names():
        assert len(names) <= 3
        for name in names:
            await opened.trash.purge(name)
        seen += names
    assert sorted(seen) == [f"v{number}" for number in range(5)]


async def test_too_many_directories_end_the_look_for_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for unknown directories fails if the directories on the way have more entries than the limit."""
    monkeypatch.setattr(endless, "LISTING_LIMIT", 10)
    tree, known = MemoryTree(), PathIndex()
    for team in range(4):
        known.add((f"team-{team}", "known"), f"pvc-{team}")
        for number in range(4):
            await tree.make_directory((f"team-{team}", f"{number}"), PLAIN)
    with pytest.raises(ExportError, match="more than 10 entries"):
        await unknown_directories(tree, known, limit=1000)

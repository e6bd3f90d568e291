"""What an export holds of its server's directories: limits, and words where they are passed."""

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
    """Symbolic links that take more than a ledger's limit together end the opening, with the directory's name."""
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
    """The trash gives so many names at a time, and the others once those have gone."""
    monkeypatch.setattr(trash, "TRASH_LIMIT", 3)
    tree = MemoryTree()
    opened = Export(Location("nas", "/x"), tree)
    await opened.open()
    for number in range(5):
        await tree.make_directory((".provisioner", "trash", f"v{number}"), PLAIN)
    seen: list[str] = []
    while names := await opened.trash():
        assert len(names) <= 3
        for name in names:
            await opened.purge(name)
        seen += names
    assert sorted(seen) == [f"v{number}" for number in range(5)]


async def test_too_many_directories_end_the_look_for_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for what nobody knows ends with an error where directories on the way hold more than we do, in all."""
    monkeypatch.setattr(endless, "LISTING_LIMIT", 10)
    tree, known = MemoryTree(), PathIndex()
    for team in range(4):
        known.add((f"team-{team}", "known"), f"pvc-{team}")
        for number in range(4):
            await tree.make_directory((f"team-{team}", f"{number}"), PLAIN)
    with pytest.raises(ExportError, match="more than 10 entries"):
        await unknown_directories(tree, known, limit=1000)

"""ledger.naming: whether a server folds names, and what that changes."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support import samples
from tests.support.fakes.tree import Directory, Folding, MemoryTree

NAS = Location("nas", "/exports")
CAFE, OTHER_CAFE = "caf\u00e9", "cafe\u0301"


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def on(same: Callable[[str], str]) -> MemoryTree:
    """A tree on a server that treats names as equal for which `same` gives the same."""
    tree = MemoryTree()
    tree.root.entries = Folding(same)
    return tree


async def opened(tree: MemoryTree, *, create: bool = True) -> Export:
    export = Export(NAS, tree)
    await export.open(create=create)
    return export


@pytest.mark.parametrize(("same", "folds"), [(str, False), (str.casefold, True), (nfc, True)], ids=["", "case", "form"])
async def test_what_is_found_out(same: Callable[[str], str], folds: bool) -> None:
    """A server that folds case or normal forms is recognized, and no other one.

    A command, which writes nothing, knows it too, once a provisioner was there.
    """
    tree = on(same)
    assert (await opened(tree)).folds is folds
    assert (await opened(tree)).folds is folds
    before = tree.look((LEDGER,))
    assert isinstance(before, Directory)
    names = list(before.entries)
    assert (await opened(tree, create=False)).folds is folds
    assert list(before.entries) == names


async def test_a_ledger_of_an_older_version() -> None:
    """On a ledger without the name for the test, a command does not create it, and a provisioner does."""
    tree = on(nfc)
    await opened(tree)
    ledger = tree.look((LEDGER,))
    assert isinstance(ledger, Directory)
    del ledger.entries["names-\u00e9"]
    assert (await opened(tree, create=False)).folds is False
    assert (await opened(tree)).folds is True


@pytest.mark.parametrize(
    ("held", "wanted"), [("team", "TEAM"), ("team", "Team/inner"), ("team/db", "TEAM"), (CAFE, OTHER_CAFE)]
)
@pytest.mark.parametrize("folds", [True, False])
async def test_two_names_of_one_directory(held: str, wanted: str, folds: bool) -> None:
    """A directory that overlaps with another volume's in other letters is refused only on a server that folds names."""
    export = await opened(on(lambda name: nfc(name).casefold()) if folds else MemoryTree())
    await export.provision("pvc-1", samples.record(held), Ownership())
    await export.settle("pvc-1")
    if not folds:
        await export.provision("pvc-2", samples.record(wanted, claim_uid="2"), Ownership())
        return
    with pytest.raises(PathTaken):
        await export.provision("pvc-2", samples.record(wanted, claim_uid="2"), Ownership())
    assert list(export.records) == ["pvc-1"]
    assert await export.take_over({"pvc-3": samples.record(wanted, claim_uid="3")})


async def test_a_retained_directory_in_other_letters() -> None:
    """A retained directory is adopted under its exact name only, and refused in other letters."""
    export = await opened(on(str.casefold))
    await export.provision("pvc-1", samples.record("team"), Ownership())
    await export.settle("pvc-1")
    await export.retain("pvc-1", datetime(2026, 1, 1, tzinfo=UTC))
    assert export.adoptable(samples.record("team", claim_uid="2")) == "pvc-1"
    assert export.adoptable(samples.record("Team", claim_uid="2")) is None


async def test_an_archive_in_other_letters() -> None:
    """No claim gets the directory of an archive, in any spelling that the server folds."""
    export = await opened(on(str.casefold))
    await export.provision("pvc-1", samples.record("team"), Ownership())
    await export.settle("pvc-1")
    archive = await export.archive("pvc-1", datetime(2026, 1, 1, tzinfo=UTC))
    await export.forget("pvc-1")
    assert archive is not None
    with pytest.raises(PathTaken, match="overlaps with archive"):
        await export.provision("pvc-2", samples.record(archive.upper(), claim_uid="2"), Ownership())


@pytest.mark.parametrize("call", ["read_symlink", "make_symlink"])
@pytest.mark.parametrize(("cause", "opens"), [(Cause.OTHER, True), (Cause.READ_ONLY, True), (Cause.UNREACHABLE, False)])
async def test_a_server_that_refuses_such_names(call: str, cause: Cause, opens: bool) -> None:
    """A server that refuses the name does not fold; one that does not answer raises an error."""

    async def refuses(done: str, path: RelPath) -> None:
        if done == call and (not path[-1].isascii() or path[0] == LEDGER.upper()):
            raise ExportError(cause)

    tree = MemoryTree(before=refuses)
    if opens:
        assert (await opened(tree)).folds is False
        return
    with pytest.raises(ExportError):
        await opened(tree)

"""Archives: directories at an export's root that volumes became, each with a record of its own.

The record comes first, then the rename, so that a crash in between is resumed under the same name; a record goes after
its directory has. An archive without a record, as another provisioner leaves them, is never removed by us.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Literal

from provisioner.core import times
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.paths import archive_name
from provisioner.core.records import ArchiveRecord, Record, archived, decode, decode_archive, encode
from provisioner.ledger import layout, symlinks
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Proof, Tree

_TRIES = 100


async def store(tree: Tree, ledger: LedgerIndex, volume: str, at: datetime, proof: Proof) -> str | None:
    """Make an archive of a volume's directory; its name, or None when there is no such directory any more.

    Done already is success: the record of an earlier attempt says under which name. `proof` is the volume's record.
    """
    was = archived(ledger.records[volume])
    name = _begun(ledger, volume, was)
    if name is None and not tree.verifies:
        # Under the name that a leader before us has noted, its rename would meet ours, however late it comes.
        await _learn(tree, ledger)
        name = _begun(ledger, volume, was)
    if name is not None and await is_there(tree, was.path):
        # That attempt may be long ago, and its time is no measure of how long this has been an archive.
        await replace_record(
            tree, ledger, name, ArchiveRecord(volume, max(times.text(at), ledger.archives[name].archived), was)
        )
    for _ in range(_TRIES):
        if name is None:
            name = await _reserve(tree, ledger, volume, at)
        try:
            await tree.rename(was.path, (name,), proofs=[proof])
        except PathExists:
            await symlinks.require(tree, proof)  # else it is this very archive, and another leader has made it
            await drop(tree, ledger, name)  # never over anything, and no record of ours for what is not ours
            name = None
        except PathMissing:
            if await is_there(tree, (name,)):
                return name
            await drop(tree, ledger, name)
            return None
        else:
            return name
    raise _no_name(was.path, at)


def _begun(ledger: LedgerIndex, volume: str, was: Record) -> str | None:
    """The archive that this volume is becoming: that of an earlier one of its name is another, after etcd went back."""
    if ledger.archive_of(volume) is None:
        return None
    known = ((name, record) for name, record in ledger.archives.items() if record.volume == volume)
    return next((name for name, record in known if record.was.created == was.created), None)


async def _learn(tree: Tree, ledger: LedgerIndex) -> None:
    """Enter the archives that another leader has noted since."""
    noted = {entry.name for entry in await tree.list(layout.ARCHIVES) if entry.type == "symlink"}
    unknown = sorted(noted - ledger.archives.keys())
    ledger.read_archives(await symlinks.read(tree, layout.ARCHIVES, unknown))


async def _reserve(tree: Tree, ledger: LedgerIndex, volume: str, at: datetime) -> str:
    """Write the record of an archive under a name that nothing has."""
    was, stamp = archived(ledger.records[volume]), times.file_stamp(at)
    record = ArchiveRecord(volume, times.text(at), was)
    for attempt in range(_TRIES):
        name = archive_name(was.path, stamp if attempt == 0 else f"{stamp}-{attempt}")
        if not await is_free(tree, (name,)):
            continue
        ledger.enter_archive(name, record)  # before: with an unknown outcome the next attempt writes it once more
        try:
            await tree.make_symlink(layout.archive(name), encode(record))
        except PathExists:
            ledger.remove_archive(name)
        else:
            return name
    raise _no_name(was.path, at)


def _no_name(path: RelPath, at: datetime) -> ExportError:
    return ExportError(Cause.OTHER, f"{_TRIES} archives of {path[-1]!r} bear the time {times.file_stamp(at)}")


async def is_free(tree: Tree, path: RelPath) -> bool:
    """Whether there is nothing at all at a path."""
    return await _kind(tree, path) is None


async def is_there(tree: Tree, path: RelPath) -> bool:
    """Whether there is a directory at a path."""
    return await _kind(tree, path) == "directory"


async def _kind(tree: Tree, path: RelPath) -> Literal["directory", "other"] | None:
    try:
        await tree.is_empty(path)
    except PathMissing:
        return None
    except ExportError as exc:
        if exc.cause is Cause.SYMLINK:  # a file, or a symlink
            return "other"
        raise
    return "directory"


async def replace_record(
    tree: Tree, ledger: LedgerIndex, archive: str, record: ArchiveRecord, *, was: str = ""
) -> None:
    """Put a record in the place of an archive's, in one step; with `was` only in that one's place."""
    await symlinks.replace(tree, layout.archive(archive), encode(record), was=was)
    ledger.enter_archive(archive, record)


async def drop(tree: Tree, ledger: LedgerIndex, archive: str) -> None:
    """Remove the record of an archive; done already is success."""
    await symlinks.remove(tree, layout.archive(archive))
    ledger.remove_archive(archive)


async def expire(tree: Tree, ledger: LedgerIndex, archive: str, at: datetime) -> bool:
    """Move an archive into the trash, then end its record; whether that was done.

    Not when anything still needs it, nor when the export itself, asked now, says otherwise of it than we remember.
    """
    known = ledger.archives[archive]
    live, proof = await look(tree, archive)
    if live != known:
        if live is None:
            ledger.remove_archive(archive)
        else:
            ledger.enter_archive(archive, live)
        return False
    if await _is_needed(tree, ledger, archive, live):
        return False
    try:
        await tree.rename((archive,), layout.trashed_archive(live, at), proofs=[proof])
    except PathMissing:  # by an earlier attempt; or a claim has it by now
        if (await look(tree, archive))[1] != proof:
            return False
    await drop(tree, ledger, archive)
    return True


async def end_lost(tree: Tree, ledger: LedgerIndex, archive: str) -> bool:
    """End the record of an archive whose directory is gone, unless anything still needs it; whether it has ended."""
    live = await read(tree, archive)
    if live is None:
        ledger.remove_archive(archive)
        return False
    if await _is_needed(tree, ledger, archive, live) or not await is_free(tree, (archive,)):
        return False
    await drop(tree, ledger, archive)
    return True


async def _is_needed(tree: Tree, ledger: LedgerIndex, archive: str, live: ArchiveRecord) -> bool:
    """Whether the volume is still becoming this archive, or a claim is to have it, by what anybody has noted."""
    if live.volume in ledger.records or any(ledger.records[each].archive == archive for each in ledger.pending):
        return True
    return await is_recorded(tree, live.volume) or await is_taking(tree, live.taker, archive)


async def is_recorded(tree: Tree, volume: str) -> bool:
    """Whether a volume has a record: one that is becoming an archive has, until it is one for good."""
    for state in layout.STATES:
        with suppress(PathMissing):
            await tree.read_symlink(layout.of(state, volume))
            return True
    return False


async def is_taking(tree: Tree, volume: str, archive: str) -> bool:
    """Whether a volume that was noted as an archive's taker is still being made."""
    if not volume:
        return False
    try:
        return decode(await tree.read_symlink(layout.of("pending", volume))).archive == archive
    except PathMissing:
        return False
    except InvalidRecord:
        return True  # a newer program's, which knows more


async def read(tree: Tree, archive: str) -> ArchiveRecord | None:
    """The record of an archive as the export has it now; None for one that has none that we know."""
    return (await look(tree, archive))[0]


async def look(tree: Tree, archive: str) -> tuple[ArchiveRecord | None, Proof]:
    """As read(), and the record as a rename may rely on it."""
    text = ""
    with suppress(PathMissing, InvalidRecord):
        text = await tree.read_symlink(layout.archive(archive))
        return decode_archive(text), Proof(layout.archive(archive), text)
    return None, Proof(layout.archive(archive), text)

"""Archives: directories at an export's root that were volumes, each with a record.

The record comes first, then the rename: so an attempt after a crash continues under the same name. A record ends after
its directory is gone. An archive without a record, as other provisioners leave them, is never removed; when an admin
asks for that, it gets a record first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Literal

from provisioner.core import times
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.paths import archive_name
from provisioner.core.records import ArchiveRecord, Record, archived, decode, decode_archive, encode, unowned
from provisioner.ledger import groups, layout, symlinks
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing, Proof, Tree

_TRIES = 100
"""Names that an archive tries before it fails."""


async def store(tree: Tree, index: LedgerIndex, volume_name: str, at: datetime, proof: Proof) -> str | None:
    """Rename a volume's directory to an archive.

    Returns the archive's name, or None if there is no directory. Success if done before: the record of an earlier
    attempt has the name. `proof` is the volume's record.
    """
    was = archived(index.records[volume_name])
    # 1. The name, with its record: of an earlier attempt, if there was one.
    name = _begun(index, volume_name, was)
    if name is None and not tree.verifies:
        # A former leader can have a rename under way, which no record stops on this server. Under the name that it has
        # reserved, its rename meets this one's archive, however late it comes.
        await learn(tree, index)
        name = _begun(index, volume_name, was)
    if name is not None and await is_there(tree, was.path):
        # That attempt can be long ago, and its time is no measure of how long this has been an archive.
        since = max(times.text(at), index.archives[name].archived)
        await replace_record(tree, index, name, ArchiveRecord(volume_name, since, was))
    for _ in range(_TRIES):
        if name is None:
            name = await _reserve(tree, index, was.path, at, lambda _: ArchiveRecord(volume_name, times.text(at), was))
        # 2. The directory.
        try:
            await tree.rename(was.path, (name,), proofs=[proof])
        except PathExists:
            # If the volume's record is gone, another leader has made this very archive: this raises.
            await symlinks.require(tree, proof)
            # Otherwise another directory has the name. It is never replaced and gets no record of this volume.
            await drop(tree, index, name)
            name = None
        except PathMissing:
            if await is_there(tree, (name,)):
                return name
            await drop(tree, index, name)
            return None
        else:
            return name
    raise _no_name(was.path, at)


def _begun(index: LedgerIndex, volume_name: str, was: Record) -> str | None:
    """Return the archive that this volume is becoming.

    After etcd went back, an earlier volume of the name can have become another archive: `was` tells them apart.
    """
    if index.archive_of(volume_name) is None:
        return None
    known = ((name, record) for name, record in index.archives.items() if record.volume == volume_name)
    return next((name for name, record in known if record.was.created == was.created), None)


async def learn(tree: Tree, index: LedgerIndex) -> None:
    """Put the archives into the index that another leader has recorded since."""
    noted = {entry.name for entry in await tree.list(layout.ARCHIVES) if entry.type == "symlink"}
    unknown = sorted(noted - index.archives.keys())
    index.read_archives(await symlinks.read(tree, layout.ARCHIVES, unknown))


async def set_aside(tree: Tree, index: LedgerIndex, was: Record, at: datetime) -> str:
    """Rename a directory that belongs to no volume to an archive with a record; return its name.

    The caller has checked that. Raises PathMissing.
    """
    name = await _reserve(tree, index, was.path, at, lambda name: unowned(name, times.text(at), was))
    try:
        await tree.rename(was.path, (name,), proofs=[Proof(layout.archive(name), encode(index.archives[name]))])
    except (PathExists, PathMissing):
        await drop(tree, index, name)
        raise
    return name


async def enter(tree: Tree, index: LedgerIndex, archive: str, record: ArchiveRecord) -> None:
    """Write the record of an archive that has none; one that is there already stays and counts.

    Raises Cause.RECORD if that one cannot be read.
    """
    with suppress(PathExists):
        await tree.make_symlink(layout.archive(archive), encode(record))
    live = await read(tree, archive)
    if live is None:
        hint = "run the version of the provisioner that wrote it, or remove it on the server"
        raise ExportError(Cause.RECORD, f"the record of archive {archive} cannot be read", hint=hint)
    index.enter_archive(archive, live)


async def _reserve(
    tree: Tree, index: LedgerIndex, path: RelPath, at: datetime, record_of: Callable[[str], ArchiveRecord]
) -> str:
    """Write the record of an archive of a directory under a name that is free; return the name."""
    stamp = times.file_stamp(at)
    for attempt in range(_TRIES):
        name = archive_name(path, stamp if attempt == 0 else f"{stamp}-{attempt}")
        record = record_of(name)
        if not await is_free(tree, (name,)):
            continue
        # Before the write: after an unknown outcome the next attempt finds the name in the index.
        index.enter_archive(name, record)
        try:
            await tree.make_symlink(layout.archive(name), encode(record))
        except PathExists:
            index.remove_archive(name)
        else:
            return name
    raise _no_name(path, at)


def _no_name(path: RelPath, at: datetime) -> ExportError:
    detail = f"{_TRIES} archives of {path[-1]!r} have the time {times.file_stamp(at)} already"
    return ExportError(Cause.OTHER, detail)


async def is_free(tree: Tree, path: RelPath) -> bool:
    """Return True if there is nothing at a path."""
    return await _kind(tree, path) is None


async def is_there(tree: Tree, path: RelPath) -> bool:
    """Return True if there is a directory at a path."""
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


async def replace_record(tree: Tree, index: LedgerIndex, archive: str, record: ArchiveRecord, *, was: str = "") -> None:
    """Replace an archive's record in one step.

    With `was`, replace it only if it still has that text; otherwise raise Cause.RECORD.
    """
    await symlinks.replace(tree, layout.archive(archive), encode(record), was=was)
    index.enter_archive(archive, record)


async def drop(tree: Tree, index: LedgerIndex, archive: str) -> None:
    """Remove the record of an archive. Success if it is gone already."""
    await symlinks.remove(tree, layout.archive(archive))
    index.remove_archive(archive)


async def expire(tree: Tree, index: LedgerIndex, archive: str, at: datetime) -> bool:
    """Move an archive into the trash, then end its record; return True if that was done.

    Return False while a volume or a claim needs the archive, or if its record has changed since the index read it.
    """
    known = index.archives[archive]
    # 1. Read the record again: the caller has judged by the one in the index.
    live, proof = await look(tree, archive)
    if live != known:
        if live is None:
            index.remove_archive(archive)
        else:
            index.enter_archive(archive, live)
        return False
    if await _is_needed(tree, index, archive, live):
        return False
    # 2. The group's entry names the volume until the purge. The rename relies on that record.
    await groups.hold(tree, index, live.was.gid, groups.holder_of(live.volume, live.was))
    try:
        await tree.rename((archive,), layout.trashed_archive(live, at), proofs=[proof])
    except PathMissing:
        # An earlier attempt moved it, and the record can end; or a claim has it since, and the record has changed.
        if (await look(tree, archive))[1] != proof:
            return False
    # 3. The record ends last.
    await drop(tree, index, archive)
    return True


async def end_lost(tree: Tree, index: LedgerIndex, archive: str) -> bool:
    """End the record of an archive whose directory is gone, unless it is still needed.

    Returns True if it has ended.
    """
    live = await read(tree, archive)
    if live is None:
        index.remove_archive(archive)
        return False
    if await _is_needed(tree, index, archive, live) or not await is_free(tree, (archive,)):
        return False
    await drop(tree, index, archive)
    return True


async def _is_needed(tree: Tree, index: LedgerIndex, archive: str, live: ArchiveRecord) -> bool:
    """Return True if a volume or a claim still needs this archive, by any record.

    The volume is still becoming the archive, or the claim waits for it.
    """
    if live.volume in index.records or any(index.records[each].archive == archive for each in index.pending):
        return True
    return await is_recorded(tree, live.volume) or await is_taking(tree, live.taker, archive)


async def is_recorded(tree: Tree, volume_name: str) -> bool:
    """Return True if a volume has a record.

    A volume that is becoming an archive has one until that is done.
    """
    for state in layout.STATES:
        with suppress(PathMissing):
            await tree.read_symlink(layout.of(state, volume_name))
            return True
    return False


async def is_taking(tree: Tree, volume_name: str, archive: str) -> bool:
    """Return True if the taker of an archive is still being provisioned."""
    if not volume_name:
        return False
    try:
        return decode(await tree.read_symlink(layout.of("pending", volume_name))).archive == archive
    except PathMissing:
        return False
    except InvalidRecord:
        return True  # a newer version wrote it, and can read it


async def read(tree: Tree, archive: str) -> ArchiveRecord | None:
    """Return the record of an archive as the export has it now.

    None if there is none that this version can read.
    """
    return (await look(tree, archive))[0]


async def look(tree: Tree, archive: str) -> tuple[ArchiveRecord | None, Proof]:
    """Return what `read` returns, and the record as proof for a rename."""
    text = ""
    with suppress(PathMissing, InvalidRecord):
        text = await tree.read_symlink(layout.archive(archive))
        return decode_archive(text), Proof(layout.archive(archive), text)
    return None, Proof(layout.archive(archive), text)

"""Archives: directories at an export's root that volumes became, each with a record of its own.

The record comes first, then the rename, so that a crash in between is resumed under the same name; a record goes after
its directory has. An archive without a record, as another provisioner leaves them, is never removed by us.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from provisioner.core import times
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import Path
from provisioner.core.paths import archive_name
from provisioner.core.records import ArchiveRecord, Record, decode_archive, encode
from provisioner.nfs import layout
from provisioner.nfs.ledger import Ledger
from provisioner.ports import (
    Access,
    AlreadyThere,
    ArchiveUnusable,
    Cause,
    ExportError,
    PathExists,
    PathMissing,
    Tree,
)

_TRIES = 100
_PARENT = Access(mode=0o755)


async def store(tree: Tree, ledger: Ledger, volume: str, at: datetime) -> str | None:
    """Make an archive of a volume's directory; its name, or None when there is no such directory any more.

    Done already is success: the record of an earlier attempt says under which name.
    """
    was = ledger.records[volume]
    name = ledger.archive_of(volume)
    for _ in range(_TRIES):
        if name is None:
            name = await _reserve(tree, ledger, volume, at)
        try:
            await tree.rename(was.path, (name,))
        except PathExists:
            name = None  # never over anything
        except PathMissing:
            if await is_there(tree, (name,)):
                return name
            await drop(tree, ledger, name)
            return None
        else:
            return name
    raise _no_name(was.path, at)


async def _reserve(tree: Tree, ledger: Ledger, volume: str, at: datetime) -> str:
    """Write the record of an archive under a name that nothing has."""
    was, stamp = ledger.records[volume], times.file_stamp(at)
    record = ArchiveRecord(volume, times.text(at), was)
    for attempt in range(_TRIES):
        name = archive_name(was.path, stamp if attempt == 0 else f"{stamp}-{attempt}")
        if not await _is_free(tree, name):
            continue
        with suppress(PathExists):
            await tree.make_symlink((*layout.ARCHIVES, name), encode(record))
            ledger.enter_archive(name, record)
            return name
    raise _no_name(was.path, at)


def _no_name(path: Path, at: datetime) -> ExportError:
    return ExportError(Cause.OTHER, f"{_TRIES} archives of {path[-1]!r} bear the time {times.file_stamp(at)}")


async def _is_free(tree: Tree, name: str) -> bool:
    try:
        return not await is_there(tree, (name,))
    except ExportError as exc:
        if exc.cause is Cause.SYMLINK:  # a file, or a symlink
            return False
        raise


async def is_there(tree: Tree, path: Path) -> bool:
    """Whether a directory exists."""
    try:
        await tree.is_empty(path)
    except PathMissing:
        return False
    return True


async def drop(tree: Tree, ledger: Ledger, archive: str) -> None:
    """Remove the record of an archive; done already is success."""
    with suppress(PathMissing):
        await tree.remove_symlink((*layout.ARCHIVES, archive))
    ledger.remove_archive(archive)


async def expire(tree: Tree, ledger: Ledger, archive: str, at: datetime) -> bool:
    """Move an archive into the trash, then end its record; whether that was done.

    Not when a claim is waiting for it, nor when the export itself, asked now, says otherwise of it than we remember.
    """
    known = ledger.archives[archive]
    if any(ledger.records[volume].archive == archive for volume in ledger.pending):
        return False
    live = await _read(tree, archive)
    if live != known:
        if live is None:
            ledger.remove_archive(archive)
        else:
            ledger.enter_archive(archive, live)
        return False
    with suppress(PathMissing):
        await tree.rename((archive,), (*layout.TRASH, f"{known.volume}.{times.file_stamp(at)}"))
    await drop(tree, ledger, archive)
    return True


async def _read(tree: Tree, archive: str) -> ArchiveRecord | None:
    try:
        return decode_archive(await tree.read_symlink((*layout.ARCHIVES, archive)))
    except (PathMissing, InvalidRecord):
        return None


async def bring_back(tree: Tree, ledger: Ledger, held: Record, *, fresh: bool) -> bool:
    """Give an archive's directory to the claim whose record names it, by rename; False when that was done before.

    Raises ArchiveUnusable, AlreadyThere. Mode and owner stay as the data's last user left them.
    """
    record = await _read(tree, held.archive)
    if record is None:
        ledger.remove_archive(held.archive)
        raise ArchiveUnusable(f"the export has no archive {held.archive!r} with a record: see `archives`")
    if (record.was.namespace, record.was.cluster) != (held.namespace, held.cluster):
        raise ArchiveUnusable(
            f"archive {held.archive!r} is not of this namespace: an archive goes back only to where it came from"
        )
    if len(held.path) > 1:
        with suppress(PathExists):
            await tree.make_directory(held.path[:-1], _PARENT)
    try:
        await tree.rename((held.archive,), held.path)
    except PathMissing as exc:
        # The record says that this claim was to have it: what is there now is what an earlier attempt moved.
        if not fresh and await is_there(tree, held.path):
            return False
        raise ArchiveUnusable(f"the directory of archive {held.archive!r} is gone") from exc
    except PathExists as exc:
        raise AlreadyThere(
            f"directory {held.directory!r} exists already, and archive {held.archive!r} never replaces anything"
        ) from exc
    return True


async def put_back(tree: Tree, held: Record) -> bool:
    """Make an archive again of what was brought back for a claim that is gone; False when its record is gone too."""
    if await _read(tree, held.archive) is None:
        return False
    with suppress(PathMissing, PathExists):  # it was never brought back
        await tree.rename(held.path, (held.archive,))
    return True

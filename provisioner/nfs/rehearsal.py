"""Proves that an export can be used, by a directory that is made and taken away again, and says what to do if not."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from provisioner.core.locations import Path
from provisioner.core.paths import LEDGER
from provisioner.ports import Access, Cause, ExportError, PathMissing, Space, Tree

_ADVICE = {
    Cause.UNREACHABLE: "see that its server runs, and that the mount is not stuck",
    Cause.MISSING: "export or make that directory, or correct the path",
    Cause.NOT_MOUNTED: "mount the export there",
    Cause.READ_ONLY: "let the server export it for writing (rw in exports(5)), and mount it for writing",
    Cause.NO_SPACE: "free some space on it, or enlarge it",
    Cause.NO_INODES: "remove files from it, or give its file system more inodes",
    Cause.QUOTA: "raise the quota on the server",
    Cause.DENIED: "give us write permission on its root and on .provisioner in it",
    Cause.STALE: "mount it again: what was mounted is gone from the server",
    Cause.SYMLINK: f"take away what is called {LEDGER} at its root and is no directory",
    Cause.NOT_YET: "wait a minute or two, and check again",
    Cause.VERSION: "name a version that the server has with nfsvers= in the class's mountOptions",
    Cause.KERBEROS: "let the server export it with sec=sys too, or have it mounted for us",
}
_LOOK = "look into the log of its server"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an export that can be used has."""

    space: Space
    ledger: bool
    """Whether there is a ledger already; otherwise the first start of the daemon makes it."""


async def rehearse(tree: Tree) -> Rehearsal:
    """Do once what provisioning does, in the ledger or, while there is none, beside it. Raises ExportError.

    What only reads comes first, so that a server that hangs is not asked to make anything.
    """
    ledger = await _has_ledger(tree)
    space = await tree.space()
    name = f"check-{secrets.token_hex(6)}"
    path: Path = (LEDGER, name) if ledger else (f"{LEDGER}-{name}",)
    try:
        await tree.make_directory(path, Access(mode=0o700))
    except ExportError as exc:
        # Refused, it is mostly not there; it is where only the mode could not be set, or where no answer came.
        if await _take_away(tree, path) or exc.cause is not Cause.UNREACHABLE:
            raise
        raise _leaving(exc, path) from exc
    except asyncio.CancelledError:
        await _take_away(tree, path)
        raise
    try:
        await tree.remove_directory(path)
    except ExportError as exc:
        raise _leaving(exc, path) from exc
    return Rehearsal(space, ledger)


def advice(error: ExportError) -> str:
    """What an admin must do: the driver's own words, which know most, or else those for the cause."""
    return error.hint or _ADVICE.get(error.cause, _LOOK)


async def _has_ledger(tree: Tree) -> bool:
    try:
        await tree.read_symlink((LEDGER, "export"))
    except PathMissing:
        return False
    return True


async def _take_away(tree: Tree, path: Path) -> bool:
    """Whether it is gone, or never was there."""
    try:
        await tree.remove_directory(path)
    except PathMissing:
        return True
    except ExportError:
        return False
    return True


def _leaving(error: ExportError, path: Path) -> ExportError:
    """The error, with the directory that nobody could take away."""
    hint = f"{advice(error)}; then remove the empty directory {'/'.join(path)} if it is there"
    return ExportError(error.cause, error.detail, hint=hint)

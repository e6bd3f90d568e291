"""Proves that an export can be used, by a directory that is made and taken away again, and says what to do if not."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger import modes
from provisioner.ports.tree import Cause, ExportError, FilesystemStats, Ownership, PathMissing, Tree


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an export that can be used has."""

    space: FilesystemStats
    ledger: bool
    """Whether there is a ledger already; otherwise the first start of the daemon makes it."""
    mode_refused: str
    """The server's answer where it does not set modes; empty where it does."""


async def trial_run(tree: Tree) -> Rehearsal:
    """Do once what provisioning does, in the ledger or, while there is none, beside it. Raises ExportError.

    What only reads comes first, so that a server that hangs is not asked to make anything.
    """
    ledger = await _has_ledger(tree)
    space = await tree.space()
    name = f"check-{secrets.token_hex(6)}"
    path: RelPath = (LEDGER, name) if ledger else (f"{LEDGER}-{name}",)
    try:
        mode_refused = await modes.make_directory(tree, path, Ownership(mode=0o700))
    except ExportError as exc:
        # Refused, it is mostly not there; it may be where no answer came.
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
    return Rehearsal(space, ledger, mode_refused)


async def _has_ledger(tree: Tree) -> bool:
    try:
        await tree.read_symlink((LEDGER, "export"))
    except PathMissing:
        return False
    return True


async def _take_away(tree: Tree, path: RelPath) -> bool:
    """Whether it is gone, or never was there."""
    try:
        await tree.remove_directory(path)
    except PathMissing:
        return True
    except ExportError:
        return False
    return True


def _leaving(error: ExportError, path: RelPath) -> ExportError:
    """The error, with the directory that nobody could take away."""
    hint = f"{error.advice}; then remove the empty directory {'/'.join(path)} if it is there"
    return ExportError(error.cause, error.detail, hint=hint, answer=error.answer)

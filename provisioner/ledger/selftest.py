"""The trial run of `check`: creates and removes one directory on an export."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.ledger import modes
from provisioner.ports.tree import Cause, ExportError, FilesystemStats, Ownership, PathMissing, Tree


@dataclass(frozen=True, slots=True)
class TrialRun:
    """The result for an export that can be used."""

    space: FilesystemStats
    ledger: bool
    """Whether there is a ledger; without one, the first start of the daemon creates it."""
    mode_refused: str
    """The server's answer if it does not set modes, or empty."""


async def trial_run(tree: Tree) -> TrialRun:
    """Do once what provisioning does, in the ledger or, while there is none, beside it.

    Raises ExportError. Calls that only read come first, so that a server that hangs is not asked to create anything.
    """
    ledger = await _has_ledger(tree)
    space = await tree.space()
    name = f"check-{secrets.token_hex(6)}"
    path: RelPath = (LEDGER, name) if ledger else (f"{LEDGER}-{name}",)
    try:
        mode_refused = await modes.make_directory(tree, path, Ownership(mode=0o700))
    except ExportError as exc:
        # After a refusal the directory mostly does not exist; without an answer it can exist.
        if await _remove(tree, path) or exc.cause is not Cause.UNREACHABLE:
            raise
        raise _leaving(exc, path) from exc
    except asyncio.CancelledError:
        await _remove(tree, path)
        raise
    try:
        await tree.remove_directory(path)
    except ExportError as exc:
        raise _leaving(exc, path) from exc
    return TrialRun(space, ledger, mode_refused)


async def _has_ledger(tree: Tree) -> bool:
    try:
        await tree.read_symlink((LEDGER, "export"))
    except PathMissing:
        return False
    return True


async def _remove(tree: Tree, path: RelPath) -> bool:
    """Remove a directory; return True if it is gone, or never was there."""
    try:
        await tree.remove_directory(path)
    except PathMissing:
        return True
    except ExportError:
        return False
    return True


def _leaving(error: ExportError, path: RelPath) -> ExportError:
    """Return the error with a hint at the directory that could not be removed."""
    hint = f"{error.advice}; then remove the empty directory {'/'.join(path)} if it exists"
    return ExportError(error.cause, error.detail, hint=hint, answer=error.answer)

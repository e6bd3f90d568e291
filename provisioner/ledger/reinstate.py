"""Moves a volume's data back into its directory, out of the trash or an archive."""

from __future__ import annotations

from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.ledger import layout, modes
from provisioner.ledger.archives import is_there
from provisioner.ledger.errors import AlreadyThere
from provisioner.ports.tree import Cause, ExportError, NotEmpty, PathExists, PathMissing, Tree


async def move(tree: Tree, source: RelPath, path: RelPath) -> None:
    """Rename a directory to a volume's path, never over anything but an empty directory.

    Success if done before. Raises AlreadyThere, and Cause.RECORD if the source is gone and nothing came to the path.
    """
    if len(path) > 1:
        with suppress(PathExists):
            await modes.make_directory(tree, path[:-1], modes.PARENT)
    if not await is_there(tree, source) and not await _holds_something(tree, path):
        raise _gone(source)
    with suppress(PathMissing):  # another process moved it
        try:
            await tree.rename(source, path)
        except PathExists as exc:
            if await _holds_something(tree, path):
                directory = "/".join(path)
                raise AlreadyThere(
                    f"directory {directory!r} is not empty, and data is never replaced: move it away"
                ) from exc
            # rmdir refuses a directory that got content since the look: so nothing is lost here.
            await tree.remove_directory(path)
            await tree.rename(source, path)
    if not await is_there(tree, path):
        raise _gone(source)
    with suppress(PathMissing, NotEmpty):  # what kept the directory's name in the trash taken
        await tree.remove_directory((*path, layout.TOMBSTONE))


def _gone(source: RelPath) -> ExportError:
    hint = "look into .provisioner/trash on the server, and list the archives with `nfs-provisioner archives`"
    return ExportError(Cause.RECORD, f"{'/'.join(source)} does not exist any more", hint=hint)


async def _holds_something(tree: Tree, path: RelPath) -> bool:
    try:
        return not await tree.is_empty(path)
    except PathMissing:
        return False

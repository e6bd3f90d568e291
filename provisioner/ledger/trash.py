"""The trash of an export: directories that wait for their removal.

Each has the name of its volume. A removal first gives its directory another name, and a recovery of data is a rename
too: of the two, the first one wins and the second one finds nothing. So a directory that still has its first name is
complete; one with `.begun` behind its name is being removed.

A leader that was held up can send its rename long after another leader has done the same, when a new claim already has
the path. A server that verifies what the rename relies on refuses it. On any other server the name in the trash has to
stay taken for some minutes after the purge, by a directory that is not empty: no rename replaces such a directory.
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress

from provisioner.core.locations import RelPath
from provisioner.core.returned import volume_of
from provisioner.ledger import layout
from provisioner.ledger.archives import is_there
from provisioner.ports.endless import TRASH_LIMIT
from provisioner.ports.tree import (
    Cause,
    Entry,
    ExportError,
    MakeDirectory,
    NotEmpty,
    OnProgress,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
    Rename,
    Tree,
)


class Trash:
    """The directories below `.provisioner/trash`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def entries(self) -> dict[str, bool]:
        """Return the names in the trash, at most TRASH_LIMIT of them, and whether the removal of each has begun.

        Once those are removed, the next call has the others.
        """
        listed = {entry.name for entry in await self._tree.list(layout.TRASH, at_most=TRASH_LIMIT)}
        names = {name.removesuffix(layout.BEGUN) for name in listed}
        return {name: name + layout.BEGUN in listed for name in names}

    async def names(self) -> list[str]:
        """Return the names in the trash, as `entries` does."""
        return sorted(await self.entries())

    async def begun(self) -> Set[str]:
        """Return the names whose removal has begun.

        A part of such a directory can be gone, or all of it.
        """
        entries = await self.entries()
        return {name for name, begun in entries.items() if begun or await self.is_over(name)}

    async def is_over(self, name: str) -> bool:
        """Return True if an entry whose removal has not begun is only what keeps its name taken."""
        return self.may_come_late(name) and await self.is_purged(name)

    def may_come_late(self, name: str) -> bool:
        """Return True if a former leader's late rename can still move data to this name.

        Always False for an archive: the directory that such a rename moves has a name that is never used again.
        """
        return not self._tree.verifies and volume_of(name) == name

    async def take(self, volume_name: str, path: RelPath, *proofs: Proof) -> bool:
        """Move a volume's directory into the trash if everything is as expected; return True if that is done.

        That is so for nearly all volumes, and takes one call. Otherwise `move` finds out what is different.
        """
        try:
            await self._rename(path, layout.trashed(volume_name), *proofs)
        except ExportError as exc:
            if exc.cause not in (Cause.EXISTS, Cause.NOT_FOUND, Cause.RECORD, Cause.SYMLINK):
                raise
            return False
        return True

    async def move(self, volume_name: str, path: RelPath, proof: Proof, *, aside: RelPath) -> bool:
        """Move a volume's directory into the trash.

        Returns False if there is none. Success if done before. `aside` is where an earlier directory of a volume of
        this name goes: it can still be in the trash as long as the volume exists.
        """
        target = layout.trashed(volume_name)
        try:
            try:
                await self._rename(path, target, proof)
            except PathExists:
                await self._make_room(volume_name, aside)
                await self._rename(path, target, proof)
        except PathMissing:
            if not await is_there(self._tree, target):
                return any(volume_of(name) == volume_name for name in await self.names())
            if not self._tree.verifies:
                await self._keep_taken(target)  # the earlier attempt can have ended before it did so
        return True

    async def purge(self, name: str, *, on_progress: OnProgress | None = None, taken: bool = False) -> int:
        """Remove one directory in the trash for good, as `Tree.remove_tree` does.

        Returns how many entries went. With `taken` a directory that no rename can replace keeps the name.
        """
        waiting, removed = (*layout.TRASH, name), (*layout.TRASH, name + layout.BEGUN)
        if self._tree.verifies and await self._remove_empty(waiting):
            if on_progress is not None:
                on_progress(1)
            return 1
        try:
            await self._carry_out(Rename(waiting, removed), *([_kept_taken(waiting)] if taken else []))
        except (PathMissing, PathExists):  # begun before, or recovered
            if taken:
                await self._keep_taken(waiting)
        return await self._tree.remove_tree(removed, on_progress=on_progress)

    async def release(self, name: str) -> bool:
        """Remove what keeps a name taken; return True if nothing is left under the name."""
        directory = (*layout.TRASH, name)
        for empty in ((*directory, layout.TOMBSTONE), directory):
            try:
                with suppress(PathMissing):
                    await self._tree.remove_directory(empty)
            except NotEmpty:
                return False
        return True

    async def _remove_empty(self, waiting: RelPath) -> bool:
        """Remove a directory if it is empty, as many volumes are; return True if that is done.

        That is one step, which never leaves a part of a directory. Where names must stay taken, none is empty.
        """
        try:
            await self._tree.remove_directory(waiting)
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise
            return False
        return True

    async def _make_room(self, volume_name: str, aside: RelPath) -> None:
        """Rename an earlier directory of this volume name.

        One that only keeps the name taken stays.
        """
        if not self._tree.verifies and await self.is_purged(volume_name):
            hint = "an earlier directory of this volume is being removed: its name is free some minutes after the purge"
            raise ExportError(Cause.OTHER, f"volume {volume_name} is in the trash already", hint=hint)
        with suppress(PathMissing):  # recovered, or its removal has begun
            await self._tree.rename(layout.trashed(volume_name), aside)

    async def is_purged(self, name: str) -> bool:
        """Return True if there is nothing left under a name but what keeps it taken.

        Such a remainder belongs to no volume.
        """
        with suppress(PathMissing):
            return await self._tree.list((*layout.TRASH, name), at_most=2) == [Entry(layout.TOMBSTONE, "directory")]
        return False

    async def _rename(self, path: RelPath, target: RelPath, *proofs: Proof) -> None:
        """Rename a volume's directory into the trash, and keep the name taken where the server does not verify.

        In one call, before a new claim can want the volume's path: an empty directory does not keep a name taken.
        """
        rename = Rename(path, target, proofs)
        await self._carry_out(rename, *(() if self._tree.verifies else (_kept_taken(target),)))

    async def _keep_taken(self, target: RelPath) -> None:
        """Create a directory that is not empty at a name."""
        try:
            await self._tree.carry_out(_kept_taken(target))
        except ExportError as exc:
            if exc.cause is Cause.UNREACHABLE:
                raise

    async def _carry_out(self, rename: Rename, *kept_taken: MakeDirectory) -> None:
        """Rename a directory, and then keep a name taken.

        A server that is full refuses the latter. Deleting must not depend on that, and data keep the name taken as
        well.
        """
        try:
            await self._tree.carry_out(rename, *kept_taken)
        except ExportError as exc:
            if not exc.done or exc.cause is Cause.UNREACHABLE:
                raise


def _kept_taken(target: RelPath) -> MakeDirectory:
    """Return the change that keeps a name taken by a directory that is not empty."""
    return MakeDirectory((*target, layout.TOMBSTONE), Ownership(mode=None))

"""NFSv3 (RFC 1813): each step down a path is a LOOKUP call, and each operation of a tree is a few calls.

The client does not keep handles of directories between operations. A directory can be renamed at any time, and a call
on its old handle would then change the wrong directory. The directories of the ledger are an exception: only the
provisioner uses them, and keeping their handles halves the number of calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TypeVar

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.nfs.client import errors
from provisioner.nfs.client.connection import Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.errors import Lost
from provisioner.nfs.client.files3 import Files3
from provisioner.nfs.client.interface import LARGEST_PAGE_BYTES, Place, Removal
from provisioner.nfs.protocol import mount3, nfs3
from provisioner.nfs.protocol.nfs3 import Nfs3Error
from provisioner.nfs.protocol.rpc import AUTH_SYS, Procedure
from provisioner.nfs.protocol.values import Attributes, DirectoryEntry, DirectoryPage, Found, Position
from provisioner.ports.refusals import Call, unproven
from provisioner.ports.tree import (
    PARENT_MODE,
    Cause,
    Change,
    EntryType,
    ExportError,
    FilesystemStats,
    NotEmpty,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
)

T = TypeVar("T")


class Client3:
    """Client for NFSv3; see `Client`.

    `mounts` is the connection to the server's MOUNT program.
    """

    version = "3"
    max_names_per_call = 1
    verifies = False

    def __init__(self, connection: Connection, mounts: Connection) -> None:
        self._connection = connection
        self._mounts = mounts
        self._files = Files3(self)
        self._ledger: dict[tuple[bytes, RelPath], Found] = {}
        """Directories of the ledger by root handle and path; cleared when a handle turns out to be stale."""

    @property
    def files(self) -> Files3:
        """See Client."""
        return self._files

    async def negotiate(self, deadline: Deadline) -> None:
        """NULL (section 3.3.0)."""
        await self.call(deadline, nfs3.null(), "NULL")

    async def root(self, deadline: Deadline, path: RelPath) -> Found:
        """MNT (appendix I). One call per export, so the idle connection soon closes."""
        absolute = "/" + "/".join(path)
        server = self._connection.endpoint.server
        try:
            mounted = await self._mounts.call(deadline, mount3.mnt(absolute))
        except mount3.MountRefused as exc:
            better = await self._explain_refused_mount(deadline, path)
            reserved = self._mounts.reserved_port
            raise better or errors.mount_refused(exc, server, absolute, reserved_port=reserved) from exc
        if mounted.flavors and AUTH_SYS not in mounted.flavors:
            raise errors.kerberos_needed(server, absolute)
        found = Found(mounted.handle, await self.call(deadline, nfs3.getattr(mounted.handle), absolute))
        if found.attributes.type != "directory":
            raise await self._explain_not_a_directory(deadline, found, path, len(path))
        return found

    async def _explain_refused_mount(self, deadline: Deadline, path: RelPath) -> ExportError | None:
        """Return a better error for a refused path, if it leads through a symlink or does not exist.

        Servers send the same error for such a path as for one that this client may not mount. To tell them apart, mount
        the nearest parent that the server allows, and walk down from there.
        """
        for depth in range(len(path) - 1, -1, -1):
            try:
                mounted = await self._mounts.call(deadline, mount3.mnt("/" + "/".join(path[:depth])))
            except mount3.MountRefused:
                continue
            except ExportError:
                return None
            return await self._explain_below(deadline, mounted.handle, path, depth)
        return None

    async def _explain_below(self, deadline: Deadline, handle: bytes, path: RelPath, depth: int) -> ExportError | None:
        """Walk down from an export at the first `depth` components, and return an error for what is wrong below."""
        for below in range(depth + 1, len(path) + 1):
            try:
                found = await self.look_up(deadline, Place(handle, (path[below - 1],)))
            except PathMissing:
                return errors.path_missing(self._connection.endpoint.server, path, below)
            except ExportError:
                return None
            if found.attributes.type != "directory":
                return await self._explain_not_a_directory(deadline, found, path, below)
            handle = found.handle
        return None

    async def _explain_not_a_directory(
        self, deadline: Deadline, found: Found, path: RelPath, depth: int
    ) -> ExportError:
        """Return the error for a path whose first `depth` components lead to a symlink or a file."""
        server, link = self._connection.endpoint.server, "/" + "/".join(path[:depth])
        if found.attributes.type != "symlink":
            return errors.not_a_directory(server, link)
        target = await self.call(deadline, nfs3.readlink(found.handle), link)
        return errors.is_symlink(server, link, target, path[depth:])

    async def look_up(self, deadline: Deadline, place: Place) -> Found:
        """LOOKUP (section 3.3.3) of each component.

        Then GETATTR (3.3.1) if the last reply had no attributes.
        """
        handle, attributes = place.handle, None
        for name in place.path:
            handle, attributes = await self.call(deadline, nfs3.lookup(handle, name), place)
        if attributes is None:
            attributes = await self.call(deadline, nfs3.getattr(handle), place)
        return Found(handle, attributes)

    async def make_directory(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """MKDIR (section 3.3.9), then SETATTR unless the reply shows that mode and owner are already right."""
        parent = await self._make_parents(deadline, place.parent)
        # MKDIR leaves the owner out. Otherwise, if the server refuses the owner, the error would be about MKDIR.
        mkdir = nfs3.mkdir(parent, place.name, mode=PARENT_MODE if ownership.mode is None else ownership.mode)
        handle, attributes = await self.call(deadline, mkdir, place)
        if attributes is not None and _satisfies(attributes, ownership):
            return
        if handle is None:
            handle = (await self._directory(deadline, Place(parent, (place.name,)))).handle
        await self._setattr(deadline, handle, ownership, place)

    async def set_access(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """LOOKUP to check that it is a directory, then SETATTR (section 3.3.2)."""
        found = await self._directory(deadline, place)
        await self._setattr(deadline, found.handle, ownership, place)

    async def rename(
        self,
        deadline: Deadline,
        source: Place,
        target: Place,
        kind: EntryType,
        *,
        replace: bool,
        proofs: Sequence[Proof] = (),
    ) -> None:
        """LOOKUP of both names, READLINK of the proofs, then RENAME (section 3.3.14)."""
        source_parent = await self._directory(deadline, source.parent)
        _require(await self.look_up(deadline, Place(source_parent.handle, (source.name,))), kind, source)
        target_parent = await self._directory(deadline, target.parent)
        if not replace:
            await self._require_free(deadline, Place(target_parent.handle, (target.name,)))
        for proof in proofs:
            await self._require_proof(deadline, Place(source.handle, proof.path), proof)
        rename = nfs3.rename(source_parent.handle, source.name, target_parent.handle, target.name)
        try:
            await self.call(deadline, rename, source)
        except (PathExists, NotEmpty) as exc:
            raise PathExists(str(target)) from exc

    async def remove_directory(self, deadline: Deadline, place: Place) -> None:
        """RMDIR (section 3.3.13), which only removes directories."""
        parent = await self._directory(deadline, place.parent)
        await self.call(deadline, nfs3.rmdir(parent.handle, place.name), place)

    async def make_symlink(self, deadline: Deadline, place: Place, target: str) -> None:
        """SYMLINK (section 3.3.10)."""
        parent = await self._directory(deadline, place.parent)
        await self.call(deadline, nfs3.symlink(parent.handle, place.name, target), place)

    async def read_symlink(self, deadline: Deadline, place: Place) -> str:
        """READLINK (section 3.3.5)."""
        parent = await self._directory(deadline, place.parent)
        found = await self.look_up(deadline, Place(parent.handle, (place.name,)))
        _require(found, "symlink", place)
        return await self.call(deadline, nfs3.readlink(found.handle), place)

    async def remove_symlink(self, deadline: Deadline, place: Place) -> None:
        """LOOKUP, REMOVE (section 3.3.12)."""
        parent = await self._directory(deadline, place.parent)
        _require(await self.look_up(deadline, Place(parent.handle, (place.name,))), "symlink", place)
        await self.call(deadline, nfs3.remove(parent.handle, place.name), place)

    async def read_symlinks(self, deadline: Deadline, directory: Place, names: Sequence[str]) -> dict[str, str]:
        """LOOKUP and READLINK for each name."""
        parent = await self._directory(deadline, directory)
        targets: dict[str, str] = {}
        for name in names:
            with contextlib.suppress(PathMissing):
                targets[name] = await self.read_symlink(deadline, Place(parent.handle, (name,)))
        return targets

    async def read_directory(
        self, deadline: Deadline, place: Place, position: Position, size_bytes: int
    ) -> DirectoryPage:
        """READDIRPLUS (section 3.3.17).

        Then LOOKUP of entries that it returned without handle or attributes.
        """
        directory = place.handle if not place.path else (await self._directory(deadline, place)).handle
        while True:
            try:
                page = await self.call(deadline, nfs3.readdirplus(directory, position, size_bytes), place)
                break
            except ExportError as exc:
                if size_bytes >= LARGEST_PAGE_BYTES or not _is_too_small(exc):
                    raise
                size_bytes *= 2
        if all(entry.handle and entry.attributes for entry in page.entries):
            return page
        entries: list[DirectoryEntry] = []
        for entry in page.entries:
            try:
                found = await self.look_up(deadline, Place(directory, (entry.name,)))
            except PathMissing:
                continue
            entries.append(DirectoryEntry(entry.name, found.handle, found.attributes, entry.cookie))
        return DirectoryPage(tuple(entries), page.next, page.verifier)

    async def move(self, deadline: Deadline, source: bytes, name: str, target: bytes, new_name: str) -> None:
        """RENAME (section 3.3.14)."""
        await self.call(deadline, nfs3.rename(source, name, target, new_name), name)

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """RMDIR or REMOVE for each name."""
        procedure = nfs3.rmdir if directories else nfs3.remove
        for removed, name in enumerate(names):
            try:
                await self.call(deadline, procedure(directory, name), name)
            except ExportError as exc:
                if exc.cause is Cause.UNREACHABLE:
                    raise
                return Removal(removed, exc)
        return Removal(len(names))

    async def carry_out(self, deadline: Deadline, root: bytes, changes: Sequence[Change]) -> int:
        """See Client; each call of NFSv3 is one operation."""
        return 0

    async def space(self, deadline: Deadline, root: bytes) -> FilesystemStats:
        """FSSTAT (section 3.3.18)."""
        return await self.call(deadline, nfs3.fsstat(root), "FSSTAT")

    def close(self) -> None:
        """See Client."""
        self._connection.close()
        self._mounts.close()

    async def _directory(self, deadline: Deadline, place: Place) -> Found:
        if not place.path:
            # No check here: the next LOOKUP below the root fails if the root no longer exists.
            return Found(place.handle, _ROOT)
        known = self._ledger.get((place.handle, place.path))
        if known is not None:
            return known
        found = await self.look_up(deadline, place)
        _require(found, "directory", place)
        if place.path[0] == LEDGER and len(place.path) <= _LEDGER_DEPTH:
            self._ledger[place.handle, place.path] = found
        return found

    async def _make_parents(self, deadline: Deadline, place: Place) -> bytes:
        """Return the handle of a directory; create it and its parents if they are missing."""
        handle = place.handle
        for depth, name in enumerate(place.path):
            step = Place(handle, (name,))
            try:
                found = await self.look_up(deadline, step)
            except PathMissing:
                found = await self._make_parent(deadline, step)
            _require(found, "directory", Place(place.handle, place.path[: depth + 1]))
            handle = found.handle
        return handle

    async def _make_parent(self, deadline: Deadline, step: Place) -> Found:
        mkdir = nfs3.mkdir(step.handle, step.name, mode=PARENT_MODE)
        try:
            handle, attributes = await self.call(deadline, mkdir, step)
        except PathExists:
            return await self.look_up(deadline, step)
        if handle is None or attributes is None:
            return await self.look_up(deadline, step)
        return Found(handle, attributes)

    async def _require_proof(self, deadline: Deadline, place: Place, proof: Proof) -> None:
        try:
            text = await self.read_symlink(deadline, place)
        except ExportError as exc:
            if exc.cause not in (Cause.NOT_FOUND, Cause.SYMLINK):
                raise
            text = ""
        if text != proof.text:
            raise unproven(proof)

    async def _require_free(self, deadline: Deadline, target: Place) -> None:
        """Raise PathExists if the path has an entry."""
        try:
            await self.look_up(deadline, target)
        except PathMissing:
            return
        raise PathExists(str(target))

    async def _setattr(self, deadline: Deadline, handle: bytes, ownership: Ownership, place: Place) -> None:
        """SETATTR of the owner, then of the mode, because some servers refuse only one of them."""
        if ownership.uid is not None or ownership.gid is not None:
            owner = nfs3.setattr(handle, mode=None, uid=ownership.uid, gid=ownership.gid)
            await self.call(deadline, owner, place, "chown")
        if ownership.mode is not None:
            await self.call(deadline, nfs3.setattr(handle, mode=ownership.mode, uid=None, gid=None), place, "chmod")

    async def call(self, deadline: Deadline, procedure: Procedure[T], what: Place | str, call: Call | None = None) -> T:
        """Make a call, and repeat it in two cases.

        If the server answers NFS3ERR_JUKEBOX, it asks the client to try later: wait and repeat. If the connection ends
        before the reply, repeat the call once, but only a call that changes nothing: the outcome of others is unknown.
        """
        lost = False
        while True:
            try:
                return await self._connection.call(deadline, procedure)
            except Lost:
                if procedure.changes or lost:
                    raise
                lost = True
            except Nfs3Error as exc:
                asked = call or nfs3.CALLS.get(procedure.number, "call")
                refusal = errors.refused3(exc.status, str(what), self._connection.identity, asked)
                if refusal.cause is Cause.STALE:
                    self._ledger.clear()  # `DirectTree` tries once more
                if refusal.cause is not Cause.NOT_YET:
                    raise refusal from exc
                await deadline.pause(refusal)


_ROOT = Attributes("directory", 0, (0, 0))
_LEDGER_DEPTH = 2


def _require(found: Found, kind: EntryType, place: Place) -> None:
    if found.attributes.type != kind:
        raise ExportError(Cause.SYMLINK, f"{place} is a {found.attributes.type}, not a {kind}")


def _is_too_small(exc: ExportError) -> bool:
    return isinstance(exc.__cause__, Nfs3Error) and exc.__cause__.status == nfs3.Status.NFS3ERR_TOOSMALL


def _satisfies(attributes: Attributes, ownership: Ownership) -> bool:
    """Return True if a new directory already has this mode and owner, so that it needs no SETATTR."""
    return (
        ownership.mode in (None, attributes.mode)
        and ownership.uid in (None, attributes.uid)
        and ownership.gid in (None, attributes.gid)
    )

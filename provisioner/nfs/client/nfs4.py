"""NFSv4.0, 4.1 and 4.2 (RFC 7530, 8881, 7862): most operations of a tree are one compound.

A compound stops at the first operation that fails, and its reply says how many succeeded. So the position of the
failure shows which component was missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from provisioner.core.locations import RelPath
from provisioner.nfs.client import errors
from provisioner.nfs.client.connection import Connection
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.errors import Lost
from provisioner.nfs.client.files4 import Files4
from provisioner.nfs.client.interface import LARGEST_PAGE_BYTES, Place, Removal
from provisioner.nfs.client.session import Compounds, Sessionless, Sessions
from provisioner.nfs.protocol import nfs4
from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol.nfs4 import Answer, Operation, Status
from provisioner.nfs.protocol.nfs4_sessions import Channel
from provisioner.nfs.protocol.values import DirectoryEntry, DirectoryPage, Found, Position
from provisioner.ports.refusals import unproven
from provisioner.ports.tree import (
    PARENT_MODE,
    Cause,
    Change,
    EntryType,
    ExportError,
    FilesystemStats,
    MakeDirectory,
    MakeSymlink,
    ModeRefused,
    MoveSymlink,
    Ownership,
    PathExists,
    PathMissing,
    Proof,
)

# Operations of a compound besides the LOOKUPs of names: SEQUENCE, PUTFH and one more. An operation on two paths needs
# five, and three for each proof of a rename. The overhead in bytes is the header of the call and at most one record.
_OVERHEAD_OPERATIONS = 3
_OVERHEAD_OF_TWO_PATHS = 5
_OVERHEAD_PER_PROOF = 3
_OPERATIONS_TO_VERIFY = 16
"""Enough for two proofs and two paths of one component each; servers that announce no limit accept this many."""
_OVERHEAD_BYTES = 2048
_NAME_BYTES = 4 + 4 + 256
_NAMES_PER_CALL = 48
_OPERATIONS_PER_LINK = 3
_LINK_BYTES = 4096 + 64
_PAGE_OVERHEAD_BYTES = 1024

Operations = tuple[Operation[object], ...]


class Client4:
    """Client for NFSv4.0, 4.1 and 4.2; see `Client`."""

    def __init__(self, connection: Connection, minor: int) -> None:
        self.version = f"4.{minor}"
        self._connection = connection
        self._compounds: Compounds = Sessions(connection, minor) if minor else Sessionless(connection)
        self._files = Files4(self)

    @property
    def files(self) -> Files4:
        """See Client."""
        return self._files

    @property
    def limits(self) -> Channel:
        """How large a compound and its reply can be."""
        return self._compounds.limits

    @property
    def max_names_per_call(self) -> int:
        """See Client."""
        limits = self._compounds.limits
        names = (limits.request_bytes - _OVERHEAD_BYTES) // _NAME_BYTES
        return min(_NAMES_PER_CALL, limits.operations - _OVERHEAD_OPERATIONS, names)

    @property
    def verifies(self) -> bool:
        """See Client; False with a server that accepts too few operations per compound."""
        return self._compounds.limits.operations >= _OPERATIONS_TO_VERIFY

    async def negotiate(self, deadline: Deadline) -> None:
        """PUTROOTFH, which every server allows.

        A missing minor version is an error of the compound itself.
        """
        answer = await self.run(deadline, nfs4.putrootfh())
        if answer.status == Status.NFS4ERR_MINOR_VERS_MISMATCH:
            raise errors.version_missing(self.server, self.version, nfs4.status_name(answer.status))

    async def root(self, deadline: Deadline, path: RelPath) -> Found:
        """Walk down from the root of the server's namespace (RFC 8881 section 7.3), like a mount."""
        getfh, getattr_ = nfs4.getfh(), nfs4.getattr(*attributes4.OBJECT)
        head: Operation[None] = nfs4.putrootfh()
        absolute, rest, depth = "/" + "/".join(path), path, self._depth
        while True:
            answer = await self.run(deadline, head, *map(nfs4.lookup, rest[:depth]), getfh, getattr_)
            if answer.status != Status.NFS4_OK:
                raise await self._explain_no_root(deadline, answer, path, len(path) - len(rest))
            if len(rest) <= depth:
                break
            head, rest = nfs4.putfh(answer[getfh]), rest[depth:]
        found = _found(answer[getfh], answer[getattr_], absolute)
        if found.attributes.type != "directory":
            raise await self._explain_not_a_directory(deadline, path, len(path))
        return found

    async def _explain_no_root(self, deadline: Deadline, answer: Answer, path: RelPath, walked: int) -> ExportError:
        """Return the error for an export's path.

        Earlier compounds have passed the first `walked` components.
        """
        absolute, reserved = "/" + "/".join(path), self._connection.reserved_port
        refusal = errors.refused4(answer.status, absolute, self._connection.identity, answer.refused)
        if refusal.cause is Cause.SYMLINK:
            return await self._explain_not_a_directory(deadline, path, walked + answer.completed - 1)
        if refusal.cause is Cause.NOT_FOUND:
            return errors.no_such_export(self.server, absolute, reserved_port=reserved)
        if refusal.cause is Cause.DENIED:
            detail = nfs4.status_name(answer.status)
            return errors.access_denied(self.server, absolute, reserved_port=reserved, detail=detail)
        return refusal

    async def _explain_not_a_directory(self, deadline: Deadline, path: RelPath, depth: int) -> ExportError:
        """Return the error for a path whose first `depth` components lead to a symlink or a file."""
        link = "/" + "/".join(path[:depth])
        readlink = nfs4.readlink()
        answer = await self.run(deadline, nfs4.putrootfh(), *map(nfs4.lookup, path[:depth]), readlink)
        if answer.status != Status.NFS4_OK:
            return errors.not_a_directory(self.server, link)
        return errors.is_symlink(self.server, link, answer[readlink], path[depth:])

    async def look_up(self, deadline: Deadline, place: Place) -> Found:
        """LOOKUPs, GETFH, GETATTR."""
        place = await self.resolve_prefix(deadline, place)
        getfh, getattr_ = nfs4.getfh(), nfs4.getattr(*attributes4.OBJECT)
        answer = await self.complete(deadline, place, *lookup_ops(place), getfh, getattr_)
        return _found(answer[getfh], answer[getattr_], str(place))

    async def make_directory(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """LOOKUP of the parents, CREATE and SETATTR in one compound, repeated until all parents exist.

        The first try assumes that all parents exist and creates only the last component. If the compound fails, its
        position shows which parent is missing, or which parent another client has created between two tries. The next
        try creates the components from there on.
        """
        place = await self.resolve_prefix(deadline, place, make=True)
        existing = len(place.path) - 1
        bare = False
        for tries in itertools.count():
            if existing == len(place.path):
                # An earlier try has created the directory, but then the server asked to try SETATTR later.
                await self.set_access(deadline, place, ownership)
                return
            answer = await self._make(deadline, place, ownership, existing, bare=bare)
            if answer.status == Status.NFS4_OK:
                return
            if answer.status == Status.NFS4ERR_ATTRNOTSUPP and answer.refused == "mkdir" and not bare:
                # The server does not accept a mode with CREATE: create the directory without one.
                bare = True
                continue
            refusal = self.refusal(answer, place)
            # The server refuses SETATTR of a mode, but it can have accepted the same mode with CREATE.
            if isinstance(refusal, ModeRefused) and await self._has_mode(deadline, place, ownership):
                return
            existing = _existing_components(answer.completed - 1, refusal, existing, len(place.path))
            # Each try settles one parent, unless other clients create and remove parents just as fast.
            if refusal.cause is Cause.NOT_YET or tries > len(place.path):
                await deadline.pause(refusal)

    async def _make(
        self, deadline: Deadline, place: Place, ownership: Ownership, existing: int, *, bare: bool
    ) -> Answer:
        """LOOKUP of the first `existing` components, CREATE of the others; `bare` without a mode."""
        *parents, name = place.path[existing:]
        upper = Place(place.handle, place.path[:existing])
        mode = PARENT_MODE if ownership.mode is None else ownership.mode
        return await self.run(
            deadline,
            *lookup_ops(upper),
            *(nfs4.create_directory(parent, _NO_ATTRIBUTES if bare else _PARENT_ATTRIBUTES) for parent in parents),
            nfs4.create_directory(name, _NO_ATTRIBUTES if bare else attributes4.settable(mode=mode)),
            *_setattr(ownership),
        )

    async def set_access(self, deadline: Deadline, place: Place, ownership: Ownership) -> None:
        """VERIFY that it is a directory, then SETATTR."""
        place = await self.resolve_prefix(deadline, place)
        try:
            await self.complete(
                deadline, place, *lookup_ops(place), nfs4.verify(_OF_TYPE["directory"]), *_setattr(ownership)
            )
        except ModeRefused:
            if not await self._has_mode(deadline, place, ownership):
                raise

    async def _has_mode(self, deadline: Deadline, place: Place, ownership: Ownership) -> bool:
        """Return True if CREATE has already set the mode, so that a refused SETATTR does not matter."""
        return (await self.look_up(deadline, place)).attributes.mode == ownership.mode

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
        """Two compounds: the first checks, the second checks again and renames.

        1. Read the proofs, check that the source has the right type, and check that the target is free.
        2. VERIFY that proofs and source are still the objects and versions that the first compound saw, then RENAME.

        The server stops a compound at the first VERIFY that fails. So a RENAME that it runs late moves nothing if a
        proof has changed. The second compound does not check the target again. If an entry appears there in between,
        RENAME replaces an empty directory with a directory, and a symlink or file with a symlink (RFC 8881 section
        18.26.3).

        With a server that accepts too few operations, the proofs do not fit into the second compound (see `verifies`).
        Then the client only reads them before the first compound.
        """
        places = [Place(source.handle, proof.path) for proof in proofs]
        if not self.verifies:
            # Read each proof in a compound of its own; the second compound then goes without them.
            for proof, place in zip(proofs, places, strict=True):
                await self._verified(deadline, [_Look(proof, await self.resolve_prefix(deadline, place))])
            places = []
        source, target, *places = await self._resolve_all(deadline, source, target, *places)
        looks = [_Look(proof, place) for proof, place in zip(proofs, places, strict=False)]
        of_type, verified = _OF_TYPE[kind], list[Operations]()
        if looks or not replace:
            # The first compound: read the proofs, look up the source, and expect that LOOKUP of the target fails.
            fileid = nfs4.getattr(attributes4.FILEID)
            to_source = (*lookup_ops(source), nfs4.verify(of_type), fileid)
            answer = await self._verified(deadline, looks, *to_source, *(() if replace else lookup_ops(target)))
            self._require_seen(answer, source, None if replace else target)
            # From here on the source must be this very object, and each proof the same symlink in the same version.
            of_type = attributes4.of_type(_TYPES[kind], answer[fileid])
            verified = [look.verify(answer) for look in looks]
        answer = await self.run(
            deadline,
            *itertools.chain(*verified),
            *_rename(source, target, of_type),
        )
        if answer.status in (Status.NFS4ERR_EXIST, Status.NFS4ERR_NOTEMPTY):
            raise PathExists(str(target))
        self._require_proofs(answer, looks, verified)
        self._require(answer, source)

    async def _verified(self, deadline: Deadline, looks: Sequence[_Look], *then: Operation[object]) -> Answer:
        """Run a compound that begins by reading proofs.

        Raises Cause.RECORD if one is missing or has another text.
        """
        answer = await self.run(deadline, *itertools.chain(*(look.operations for look in looks)), *then)
        self._require_proofs(answer, looks, [look.operations for look in looks])
        for look in looks:
            if answer[look.readlink] != look.proof.text:
                raise unproven(look.proof)
        return answer

    def _require_proofs(self, answer: Answer, looks: Sequence[_Look], operations: Sequence[Operations]) -> None:
        """Raise the right error if a compound stopped in the operations of a proof, which are its first ones."""
        left = answer.completed
        for look, own in zip(looks, operations, strict=True):
            left -= len(own)
            if left < 0:
                refusal = self._refusal_of_readlink(answer, look.place)
                gone = refusal.cause in (Cause.NOT_FOUND, Cause.SYMLINK)
                raise unproven(look.proof) if gone else refusal

    def _require_seen(self, answer: Answer, source: Place, target: Place | None) -> None:
        """Raise the right error unless the source exists and the last LOOKUP, of the target, found nothing."""
        end = len(answer.operations) - (0 if target is None else 1 + len(target.path))
        if answer.completed < end:
            raise self.refusal(answer, source)
        if target is None:
            return
        if answer.status == Status.NFS4_OK:
            raise PathExists(str(target))
        if answer.status != Status.NFS4ERR_NOENT or answer.completed < len(answer.operations) - 1:
            raise self.refusal(answer, target.parent)

    async def remove_directory(self, deadline: Deadline, place: Place) -> None:
        """VERIFY that it is a directory, then REMOVE, which removes entries of any type."""
        await self._remove(deadline, place, "directory")

    async def make_symlink(self, deadline: Deadline, place: Place, target: str) -> None:
        """CREATE of a symlink."""
        place = await self.resolve_prefix(deadline, place)
        answer = await self.run(deadline, *lookup_ops(place.parent), _create_symlink(place.name, target))
        if answer.status == Status.NFS4ERR_NOENT:
            raise PathMissing(str(place.parent))
        self._require(answer, place)

    async def read_symlink(self, deadline: Deadline, place: Place) -> str:
        """READLINK, which fails for other types with NFS4ERR_INVAL or WRONG_TYPE (RFC 8881 section 18.24.3)."""
        place = await self.resolve_prefix(deadline, place)
        readlink = nfs4.readlink()
        answer = await self.run(deadline, *lookup_ops(place), readlink)
        if answer.status != Status.NFS4_OK:
            raise self._refusal_of_readlink(answer, place)
        return answer[readlink]

    async def remove_symlink(self, deadline: Deadline, place: Place) -> None:
        """VERIFY that it is a symlink, then REMOVE."""
        await self._remove(deadline, place, "symlink")

    async def read_symlinks(self, deadline: Deadline, directory: Place, names: Sequence[str]) -> dict[str, str]:
        """LOOKUP, READLINK and RESTOREFH for each name, many names per compound.

        A name that no longer exists ends the compound; the next compound continues behind that name.
        """
        directory = await self.resolve_prefix(deadline, directory)
        limits = self._compounds.limits
        room = (limits.operations - _OVERHEAD_OPERATIONS - len(directory.path)) // _OPERATIONS_PER_LINK
        batch = max(1, min(room, limits.response_bytes // _LINK_BYTES))
        targets: dict[str, str] = {}
        rest = list(names)
        while rest:
            now = rest[:batch]
            readlinks = [nfs4.readlink() for _ in now]
            operations = [*lookup_ops(directory), nfs4.savefh()]
            for name, readlink in zip(now, readlinks, strict=True):
                operations += (nfs4.lookup(name), readlink, nfs4.restorefh())
            answer = await self.run(deadline, *operations)
            done, within = divmod(answer.completed - len(directory.path) - 2, _OPERATIONS_PER_LINK)
            if done < 0:
                raise self.refusal(answer, directory)
            targets.update({name: answer[link] for name, link in zip(now[:done], readlinks, strict=False)})
            if answer.status == Status.NFS4ERR_NOENT and within == 0:
                done += 1
            elif answer.status != Status.NFS4_OK:
                raise self._refusal_of_readlink(answer, Place(directory.handle, (*directory.path, now[done])))
            rest = rest[done:]
        return targets

    async def read_directory(
        self, deadline: Deadline, place: Place, position: Position, size_bytes: int
    ) -> DirectoryPage:
        """READDIR with type, file system and file handle.

        An entry without these attributes is a mount point that the client is not allowed to enter.
        """
        place = await self.resolve_prefix(deadline, place)
        largest_bytes = min(LARGEST_PAGE_BYTES, self._compounds.limits.response_bytes - _PAGE_OVERHEAD_BYTES)
        size_bytes = min(size_bytes, largest_bytes)
        while True:
            readdir = nfs4.readdir(position, size_bytes, *attributes4.ENTRY)
            answer = await self.run(deadline, *lookup_ops(place), readdir)
            if answer.status != Status.NFS4ERR_TOOSMALL or size_bytes >= largest_bytes:
                break
            size_bytes = min(2 * size_bytes, largest_bytes)
        self._require(answer, place)
        page = answer[readdir]
        if all(entry.handle and entry.attributes for entry in page.entries):
            return page
        entries: list[DirectoryEntry] = []
        for entry in page.entries:
            try:
                found = await self.look_up(deadline, Place(place.handle, (*place.path, entry.name)))
            except PathMissing:
                continue
            entries.append(DirectoryEntry(entry.name, found.handle, found.attributes, entry.cookie))
        return DirectoryPage(tuple(entries), page.next, page.verifier)

    async def move(self, deadline: Deadline, source: bytes, name: str, target: bytes, new_name: str) -> None:
        """RENAME."""
        rename = nfs4.rename(name, new_name)
        place = Place(source, (name,))
        await self.complete(deadline, place, nfs4.putfh(source), nfs4.savefh(), nfs4.putfh(target), rename)

    async def remove_names(
        self, deadline: Deadline, directory: bytes, names: Sequence[str], *, directories: bool
    ) -> Removal:
        """REMOVE of all names in one compound.

        REMOVE does not check the type, but keeps non-empty directories.
        """
        answer = await self.run(deadline, nfs4.putfh(directory), *map(nfs4.remove, names))
        if answer.status == Status.NFS4_OK:
            return Removal(len(names))
        removed = max(0, answer.completed - 1)
        return Removal(removed, self.refusal(answer, Place(directory, (names[removed],))))

    async def carry_out(self, deadline: Deadline, root: bytes, changes: Sequence[Change]) -> int:
        """See Client.

        One compound makes all changes; before it, another one reads the proofs of renames and checks that the target
        is free, as in `rename`. Where that finds something unexpected, nothing is done.
        """
        plan = _plan(root, changes)
        if plan is None or not self._fits(plan.check) or not self._fits(tuple(itertools.chain(*plan.steps))):
            return 0
        steps = plan.steps
        if plan.check:
            answer = await self.run(deadline, *plan.check)
            if not plan.is_expected(answer):
                return 0
            steps = plan.verified(answer)
            if not self._fits(tuple(itertools.chain(*steps))):
                return 0
        answer = await self.run(deadline, *itertools.chain(*steps))
        left = answer.completed
        for done, (change, step) in enumerate(zip(changes, steps, strict=True)):
            if left >= len(step):
                left -= len(step)
            elif isinstance(change, MakeDirectory) and left > len(change.path):
                # The directory is there, and the server has refused its owner or mode.
                try:
                    await self.set_access(deadline, Place(root, change.path), change.ownership)
                except ExportError as exc:
                    exc.done = done
                    raise
                return done + 1
            else:
                return done
        return len(changes)

    def _fits(self, operations: Operations) -> bool:
        """Return True if these operations fit into one compound."""
        limits = self._compounds.limits
        size_bytes = _OVERHEAD_BYTES + sum(4 + len(operation.arguments) for operation in operations)
        return len(operations) + 1 <= limits.operations and size_bytes <= limits.request_bytes

    async def space(self, deadline: Deadline, root: bytes) -> FilesystemStats:
        """GETATTR of the attributes of the file system (RFC 8881 section 5.8.2)."""
        getattr_ = nfs4.getattr(*attributes4.SPACE)
        answer = await self.complete(deadline, Place(root), nfs4.putfh(root), getattr_)
        return answer[getattr_].space

    def close(self) -> None:
        """See Client."""
        self._connection.close()

    @property
    def server(self) -> str:
        """The server's name, for messages."""
        return self._connection.endpoint.server

    async def _remove(self, deadline: Deadline, place: Place, kind: EntryType) -> None:
        place = await self.resolve_prefix(deadline, place)
        await self.complete(
            deadline,
            place,
            *lookup_ops(place.parent),
            nfs4.savefh(),
            nfs4.lookup(place.name),
            nfs4.verify(_OF_TYPE[kind]),
            nfs4.restorefh(),
            nfs4.remove(place.name),
        )

    async def _resolve_all(self, deadline: Deadline, *places: Place) -> list[Place]:
        """Shorten the paths of a rename and its proofs until they fit into one compound.

        Look up the parent of the longest path and continue from its handle, until all LOOKUPs fit.
        """
        limits, resolved = self._compounds.limits, [*places]
        operations = limits.operations - _OVERHEAD_OF_TWO_PATHS - _OVERHEAD_PER_PROOF * (len(places) - 2)
        room = min(operations, (limits.request_bytes - _OVERHEAD_BYTES) // _NAME_BYTES)
        while sum(len(place.path) for place in resolved) > room:
            longest = max(range(len(resolved)), key=lambda index: len(resolved[index].path))
            if len(resolved[longest].path) <= 1:
                break
            found = await self.look_up(deadline, resolved[longest].parent)
            resolved[longest] = Place(found.handle, (resolved[longest].name,))
        return resolved

    async def resolve_prefix(self, deadline: Deadline, place: Place, *, make: bool = False) -> Place:
        """Return the same place with a path that fits into one compound.

        A longer path is walked in several compounds. With `make`, missing directories on the way are created.
        """
        depth = self._depth
        while len(place.path) > depth:
            upper = Place(place.handle, place.path[:depth])
            try:
                found = await self.look_up(deadline, upper)
            except PathMissing as exc:
                if not make:
                    raise
                try:
                    await self.make_directory(deadline, upper, Ownership(mode=PARENT_MODE))
                except PathExists:
                    await deadline.pause(exc)  # other clients create and remove it, or the server is inconsistent
                continue
            place = Place(found.handle, place.path[depth:])
        return place

    @property
    def _depth(self) -> int:
        """How many components each of two paths in one compound can have."""
        limits = self._compounds.limits
        operations, size_bytes = limits.operations - _OVERHEAD_OF_TWO_PATHS, limits.request_bytes - _OVERHEAD_BYTES
        return min(operations, size_bytes // _NAME_BYTES) // 2

    async def complete(self, deadline: Deadline, place: Place, *operations: Operation[object]) -> Answer:
        """Run a compound; raises the refusal unless all operations succeed."""
        answer = await self.run(deadline, *operations)
        self._require(answer, place)
        return answer

    def _require(self, answer: Answer, place: Place) -> None:
        if answer.status != Status.NFS4_OK:
            raise self.refusal(answer, place)

    def refusal(self, answer: Answer, place: Place) -> ExportError:
        """Return the error for the operation that stopped a compound."""
        return errors.refused4(answer.status, str(place), self._connection.identity, answer.refused)

    def _refusal_of_readlink(self, answer: Answer, place: Place) -> ExportError:
        """Return the error for READLINK: NFSv4.0 uses NFS4ERR_INVAL for other types, 4.1 NFS4ERR_WRONG_TYPE."""
        wrong_type = answer.status == Status.NFS4ERR_INVAL and answer.refused == "readlink"
        status = Status.NFS4ERR_WRONG_TYPE if wrong_type else answer.status
        return errors.refused4(status, str(place), self._connection.identity, answer.refused)

    async def run(self, deadline: Deadline, *operations: Operation[object]) -> Answer:
        """Run a compound, and repeat it in two cases.

        If the server asks the client to try later (NFS4ERR_DELAY, NFS4ERR_GRACE) and no operation has changed anything,
        wait and repeat. If the connection ends before the reply, repeat the compound once, but only one that changes
        nothing: the outcome of others is unknown.
        """
        lost = False
        while True:
            try:
                answer = await self._compounds.run(deadline, operations)
            except Lost:
                if lost or any(operation.changes for operation in operations):
                    raise
                lost = True
                continue
            if answer.status == Status.NFS4_OK or answer.changed:
                return answer
            refusal = self.refusal(answer, Place(b""))
            if refusal.cause is not Cause.NOT_YET:
                return answer
            await deadline.pause(refusal)


class _Look:
    """Operations that read a proof, and operations that later verify that it is the same symlink, unchanged."""

    def __init__(self, proof: Proof, place: Place) -> None:
        self.proof = proof
        self.place = place
        self.readlink = nfs4.readlink()
        self._version = nfs4.getattr(*attributes4.VERSION)
        self.operations: Operations = (*lookup_ops(place), self.readlink, self._version)

    def verify(self, answer: Answer) -> Operations:
        """Return operations that fail unless the symlink is still as this answer shows it."""
        return (*lookup_ops(self.place), nfs4.verify(attributes4.of_type(_TYPES["symlink"], answer[self._version])))


class _Plan:
    """Changes as operations of one compound, `steps`, and those of a compound that is sent before, `check`."""

    def __init__(self, looks: dict[int, list[_Look]], free: Place | None, steps: list[Operations]) -> None:
        """`looks` are the proofs of each step, and `free` is the path at which no entry is allowed."""
        self._looks = looks
        self._free = free
        self.steps = steps
        reads = (look.operations for each in looks.values() for look in each)
        self.check: Operations = (*itertools.chain(*reads), *(() if free is None else lookup_ops(free)))

    def is_expected(self, answer: Answer) -> bool:
        """Return True if the proofs are as they must be, and nothing was found where no entry is allowed."""
        end = len(self.check) if self._free is None else len(self.check) - 1
        wanted = Status.NFS4_OK if self._free is None else Status.NFS4ERR_NOENT
        return (answer.completed, answer.status) == (end, wanted) and all(
            answer[look.readlink] == look.proof.text for each in self._looks.values() for look in each
        )

    def verified(self, answer: Answer) -> list[Operations]:
        """Return the steps, each after operations that fail unless its proofs are still as this answer shows them."""
        return [
            (*itertools.chain(*(look.verify(answer) for look in self._looks.get(number, ()))), *step)
            for number, step in enumerate(self.steps)
        ]


def _plan(root: bytes, changes: Sequence[Change]) -> _Plan | None:
    """Return the plan for changes, or None if they do not fit into one compound and its check."""
    looks: dict[int, list[_Look]] = {}
    free: list[Place] = []
    steps: list[Operations] = []
    made: set[RelPath] = set()
    """Where the entries are that these changes create."""
    for number, change in enumerate(changes):
        match change:
            case MakeDirectory(path, ownership):
                place, mode = Place(root, path), PARENT_MODE if ownership.mode is None else ownership.mode
                create = nfs4.create_directory(place.name, attributes4.settable(mode=mode))
                steps.append((*lookup_ops(place.parent), create, *_setattr(ownership)))
                made.add(path)
            case MakeSymlink(path, target):
                place = Place(root, path)
                steps.append((*lookup_ops(place.parent), _create_symlink(place.name, target)))
                made.add(path)
            case MoveSymlink(source, target, replace, proofs) if source in made:
                looks[number] = [_Look(proof, Place(root, proof.path)) for proof in proofs]
                free += [] if replace else [Place(root, target)]
                steps.append(_rename(Place(root, source), Place(root, target), _OF_TYPE["symlink"]))
                made.add(target)
            case _:
                return None  # The check would have to identify the source too, as `rename` does.
    # The check can look for one free path only: a compound ends when it finds nothing.
    return _Plan(looks, free[0] if free else None, steps) if len(free) <= 1 else None


def _rename(source: Place, target: Place, of_type: bytes) -> Operations:
    """Return a RENAME that fails unless the source still has these attributes."""
    return (
        *lookup_ops(source.parent),
        nfs4.savefh(),
        nfs4.lookup(source.name),
        nfs4.verify(of_type),
        *lookup_ops(target.parent),
        nfs4.rename(source.name, target.name),
    )


def _create_symlink(name: str, target: str) -> Operation[None]:
    return nfs4.create_symlink(name, target, attributes4.settable(mode=0o777))


_TYPES: dict[EntryType, int] = {"directory": attributes4.NF4DIR, "symlink": attributes4.NF4LNK}
_OF_TYPE: dict[EntryType, bytes] = {kind: attributes4.of_type(number) for kind, number in _TYPES.items()}
_PARENT_ATTRIBUTES = attributes4.settable(mode=PARENT_MODE)
_NO_ATTRIBUTES = attributes4.settable()


def lookup_ops(place: Place) -> Operations:
    """Return PUTFH and a LOOKUP for each component."""
    return (nfs4.putfh(place.handle), *map(nfs4.lookup, place.path))


def _existing_components(failed: int, refusal: ExportError, existing: int, length: int) -> int:
    """Return how many components of a path exist, after a try to create it from component `existing` on.

    `failed` is the index of the component whose LOOKUP or CREATE failed; it is `length` or more for the SETATTRs after
    them. Raises the refusal if another try would not help.
    """
    if refusal.cause is Cause.NOT_FOUND and 0 <= failed < existing:
        return failed
    if refusal.cause is Cause.EXISTS and existing <= failed < length - 1:
        return failed + 1  # Another client has created this parent.
    if refusal.cause is Cause.NOT_YET:
        return min(failed, length)
    raise refusal


def _setattr(ownership: Ownership) -> Operations:
    """Return SETATTRs of the owner, then of the mode, because some servers refuse only one of them."""
    owner, mode = attributes4.settable(uid=ownership.uid, gid=ownership.gid), attributes4.settable(mode=ownership.mode)
    owned = ownership.uid is not None or ownership.gid is not None
    return (
        *([nfs4.setattr(owner, call="chown")] if owned else []),
        *([nfs4.setattr(mode, call="chmod")] if ownership.mode is not None else []),
    )


def _found(handle: bytes, fattr4: attributes4.Fattr4, what: str) -> Found:
    if fattr4.attributes is None:
        raise ExportError(Cause.OTHER, f"{what}: the server does not report its type")
    return Found(handle, fattr4.attributes)

"""Files of NFSv4.0, 4.1 and 4.2 by their handles, for copies.

No file stays open: reads and writes use the anonymous stateid (RFC 8881 section 8.2.3), and a file that OPEN creates is
closed again. In NFSv4.1 and 4.2 that is one compound. NFSv4.0 has no current stateid, and its OPEN needs a client ID
and a confirmation: three compounds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import CHUNK_BYTES, LARGEST_PAGE_BYTES, SAFE_CHUNK_BYTES, Place, Thing, with_facts
from provisioner.nfs.protocol import nfs4, nfs4_files, nfs4_xattrs
from provisioner.nfs.protocol import nfs4_attributes as attributes4
from provisioner.nfs.protocol.nfs4 import Operation, Status
from provisioner.nfs.protocol.values import DirectoryPage, Facts, Position
from provisioner.ports.files import Kept, Made
from provisioner.ports.tree import Cause, ExportError, PathExists

if TYPE_CHECKING:
    from provisioner.nfs.client.nfs4 import Client4

_TRIES = 3
"""How often a file is created with a new client ID after the server has forgotten the one before."""

# The server does not support the operation, or not between these two files.
_CANNOT = frozenset(
    {
        Status.NFS4ERR_NOTSUPP,
        Status.NFS4ERR_XDEV,
        Status.NFS4ERR_INVAL,
        Status.NFS4ERR_OP_ILLEGAL,
        Status.NFS4ERR_OFFLOAD_DENIED,
        Status.NFS4ERR_OFFLOAD_NO_REQS,
        Status.NFS4ERR_BAD_STATEID,
        Status.NFS4ERR_OPENMODE,
    }
)
_TAKEN = frozenset({Status.NFS4ERR_EXIST, Status.NFS4ERR_SYMLINK, Status.NFS4ERR_ISDIR, Status.NFS4ERR_WRONG_TYPE})
# The server has no such attributes, refuses this one, or has no room for it.
_CANNOT_KEEP = frozenset(
    {
        Status.NFS4ERR_NOTSUPP,
        Status.NFS4ERR_OP_ILLEGAL,
        Status.NFS4ERR_XATTR2BIG,
        Status.NFS4ERR_NAMETOOLONG,
        Status.NFS4ERR_INVAL,
        Status.NFS4ERR_PERM,
        Status.NFS4ERR_ACCESS,
    }
)
_OVERHEAD_BYTES = 1024
"""Room in a request and in a reply for everything but the data."""
_USER = "user."
"""The prefix that attributes of NFS have on Linux."""
_FORGOTTEN = frozenset({Status.NFS4ERR_STALE_CLIENTID, Status.NFS4ERR_EXPIRED})


class Files4:
    """See `FilesClient`."""

    def __init__(self, client: Client4) -> None:
        self._client = client
        self._minor = int(client.version[2:])
        self._client_id: int | None = None
        self._identifying = asyncio.Lock()
        self._owners = 0
        self._seeks = self._minor >= 2

    @property
    def offloads(self) -> bool:
        """See `FilesClient`."""
        return self._minor >= 2

    async def chunk_bytes(self, deadline: Deadline, what: Place) -> int:
        """GETATTR of maxread and maxwrite, and the limits of the session."""
        largest = nfs4_files.largest_sizes()
        sizes = (await self._client.complete(deadline, what, nfs4.putfh(what.handle), largest))[largest]
        announced = min(CHUNK_BYTES, *(each or SAFE_CHUNK_BYTES for each in sizes))
        if not self._minor:
            return announced
        limits = self._client.limits
        return min(announced, limits.request_bytes - _OVERHEAD_BYTES, limits.response_bytes - _OVERHEAD_BYTES)

    async def look(self, deadline: Deadline, place: Place) -> Thing:
        """LOOKUPs, GETFH, GETATTR."""
        place = await self._client.resolve_prefix(deadline, place)
        getfh, getattr_ = nfs4.getfh(), nfs4_files.getattr()
        answer = await self._client.complete(deadline, place, *_to(place), getfh, getattr_)
        return Thing(answer[getfh], _known(answer[getattr_], place))

    async def list(self, deadline: Deadline, directory: Place, position: Position) -> DirectoryPage:
        """READDIR; entries without handle or attributes are looked up."""
        readdir = nfs4_files.readdir(position, LARGEST_PAGE_BYTES)
        answer = await self._client.complete(deadline, directory, nfs4.putfh(directory.handle), readdir)
        page = answer[readdir]
        if all(entry.handle and entry.facts for entry in page.entries):
            return page
        return await with_facts(self.look, deadline, directory, page)

    async def read_link(self, deadline: Deadline, what: Place) -> str:
        """READLINK."""
        readlink = nfs4_files.readlink()
        return (await self._client.complete(deadline, what, nfs4.putfh(what.handle), readlink))[readlink]

    async def make(self, deadline: Deadline, parent: Place, name: str, kind: Made, target: str) -> Thing:
        """CREATE, or OPEN for a file."""
        if kind == "file" and not self._minor:
            handle = await self._create40(deadline, parent, name)
            return await self.look(deadline, Place(handle))
        getfh, getattr_ = nfs4.getfh(), nfs4_files.getattr()
        place = Place(parent.handle, (name,))
        creations = _creations(name, kind, target)
        answer = await self._client.run(deadline, nfs4.putfh(parent.handle), *creations, getfh, getattr_)
        if answer.status in _TAKEN and answer.completed == 1:
            raise PathExists(str(place))
        if answer.status != Status.NFS4_OK:
            raise self._client.refusal(answer, place)
        return Thing(answer[getfh], _known(answer[getattr_], place))

    async def link(self, deadline: Deadline, what: Place, parent: Place, name: str) -> None:
        """LINK."""
        place = Place(parent.handle, (name,))
        operations = (nfs4.putfh(what.handle), nfs4.savefh(), nfs4.putfh(parent.handle), nfs4_files.link(name))
        await self._client.complete(deadline, place, *operations)

    async def remove(self, deadline: Deadline, parent: Place, name: str) -> None:
        """REMOVE."""
        remove = nfs4.remove(name)
        await self._client.complete(deadline, Place(parent.handle, (name,)), nfs4.putfh(parent.handle), remove)

    async def read(self, deadline: Deadline, what: Place, offset_bytes: int, size_bytes: int) -> bytes:
        """READ."""
        read = nfs4_files.read(offset_bytes, min(size_bytes, CHUNK_BYTES))
        return (await self._client.complete(deadline, what, nfs4.putfh(what.handle), read))[read]

    async def write(
        self, deadline: Deadline, what: Place, offset_bytes: int, data: bytes, *, stable: bool
    ) -> tuple[int, bytes]:
        """WRITE."""
        write = nfs4_files.write(offset_bytes, data, stable=stable)
        written = (await self._client.complete(deadline, what, nfs4.putfh(what.handle), write))[write]
        return written.size_bytes, written.verifier

    async def flush(self, deadline: Deadline, what: Place) -> bytes:
        """COMMIT."""
        commit = nfs4_files.commit()
        return (await self._client.complete(deadline, what, nfs4.putfh(what.handle), commit))[commit]

    async def next_data(
        self, deadline: Deadline, what: Place, offset_bytes: int, size_bytes: int
    ) -> tuple[int, int] | None:
        """SEEK of data, then of the hole behind it; a server without SEEK has no holes."""
        if not self._seeks:
            return (offset_bytes, size_bytes) if offset_bytes < size_bytes else None
        at_end, begin = await self._seek(deadline, what, offset_bytes, data=True)
        if at_end or begin >= size_bytes:
            return None
        at_end, end = await self._seek(deadline, what, begin, data=False)
        if begin < offset_bytes or end <= begin:
            # Not supported; NFS-Ganesha 4.3 answers every SEEK with 0.
            self._seeks = False
            return offset_bytes, size_bytes
        return begin, size_bytes if at_end else end

    async def _seek(self, deadline: Deadline, what: Place, offset: int, *, data: bool) -> tuple[bool, int]:
        """Return whether the end was reached, and the next offset; a server without SEEK gives 0."""
        seek = nfs4_files.seek(offset, data=data)
        answer = await self._client.run(deadline, nfs4.putfh(what.handle), seek)
        if answer.status == Status.NFS4_OK:
            return answer[seek]
        if answer.status == Status.NFS4ERR_NXIO:
            return True, offset
        refusal = self._client.refusal(answer, what)
        if answer.completed == 0 or refusal.cause is Cause.NOT_YET:
            raise refusal
        return False, 0

    async def set_size(self, deadline: Deadline, what: Place, size_bytes: int) -> None:
        """SETATTR."""
        await self._set(deadline, what, nfs4.setattr(nfs4_files.settable(size_bytes=size_bytes)))

    async def clone(self, deadline: Deadline, source: Place, what: Place) -> bool:
        """CLONE and COMMIT."""
        between = _between(source, what)
        answer = await self._client.run(deadline, *between, nfs4_files.clone(), nfs4_files.commit())
        if answer.completed == len(between) and answer.status in _CANNOT:
            return False
        if answer.status != Status.NFS4_OK:
            raise self._client.refusal(answer, what)
        return True

    async def copy_range(
        self, deadline: Deadline, source: Place, what: Place, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """COPY."""
        between, copy = _between(source, what), nfs4_files.copy(offset_bytes, size_bytes)
        answer = await self._client.run(deadline, *between, copy)
        if answer.completed == len(between) and answer.status in _CANNOT:
            return None
        if answer.status != Status.NFS4_OK:
            raise self._client.refusal(answer, what)
        copied = answer[copy]
        return copied.size_bytes, copied.verifier

    async def has_attributes(self, deadline: Deadline, what: Place) -> bool:
        """GETATTR of xattr_support, in NFSv4.2."""
        if self._minor < 2:
            return False
        support = nfs4_xattrs.support()
        return (await self._client.complete(deadline, what, nfs4.putfh(what.handle), support))[support]

    async def attributes(self, deadline: Deadline, what: Place) -> Mapping[str, bytes]:
        """LISTXATTRS, and GETXATTR of each name; one that is removed in between is left out."""
        found: dict[str, bytes] = {}
        cookie: int | None = 0
        while cookie is not None:
            listing = nfs4_xattrs.list_names(cookie)
            names, cookie = (await self._client.complete(deadline, what, nfs4.putfh(what.handle), listing))[listing]
            for name in names:
                get = nfs4_xattrs.get(name)
                answer = await self._client.run(deadline, nfs4.putfh(what.handle), get)
                if answer.status == Status.NFS4_OK:
                    found[_USER + name] = answer[get]
                elif answer.status != Status.NFS4ERR_NOXATTR:
                    raise self._client.refusal(answer, what)
        return found

    async def set_attribute(self, deadline: Deadline, what: Place, name: str, value: bytes) -> bool:
        """SETXATTR, unless the value is larger than Linux has it, or than a request of this session."""
        largest_bytes = min(nfs4_xattrs.VALUE_LIMIT_BYTES, self._client.limits.request_bytes - _OVERHEAD_BYTES)
        if not name.startswith(_USER) or len(value) > largest_bytes:
            return False
        set_ = nfs4_xattrs.set(name.removeprefix(_USER), value)
        answer = await self._client.run(deadline, nfs4.putfh(what.handle), set_)
        if answer.completed == 1 and answer.status in _CANNOT_KEEP:
            return False
        if answer.status != Status.NFS4_OK:
            raise self._client.refusal(answer, what)
        return True

    async def keep(self, deadline: Deadline, what: Place, kept: Kept, *, mode: bool, owner: bool) -> None:
        """SETATTR of the owner, which clears the set-ID bits, then of mode and times."""
        if owner:
            owned = nfs4_files.settable(owner=kept.owner, group=kept.group)
            await self._set(deadline, what, nfs4.setattr(owned, call="chown"))
        last = nfs4_files.settable(
            mode=kept.mode if mode else None, accessed_ns=kept.accessed_ns, modified_ns=kept.modified_ns
        )
        await self._set(deadline, what, nfs4.setattr(last, call="chmod" if mode else "call"))

    async def _set(self, deadline: Deadline, what: Place, setattr_: Operation[None]) -> None:
        await self._client.complete(deadline, what, nfs4.putfh(what.handle), setattr_)

    # ------------------------------------------------------------------------------------------- NFSv4.0

    async def _create40(self, deadline: Deadline, parent: Place, name: str) -> bytes:
        """OPEN by a new owner, OPEN_CONFIRM if the server asks for it, CLOSE; return the handle."""
        place = Place(parent.handle, (name,))
        for _ in range(_TRIES):
            client_id = await self._identified(deadline)
            self._owners += 1
            owner = f"nfs-provisioner {self._owners}".encode()
            opened = nfs4_files.create40(name, nfs4_files.settable(mode=0o600), client_id, owner)
            getfh = nfs4.getfh()
            answer = await self._client.run(deadline, nfs4.putfh(parent.handle), opened, getfh)
            if answer.status in _FORGOTTEN:
                self._client_id = None
                continue
            if answer.status in _TAKEN and answer.completed == 1:
                raise PathExists(str(place))
            if answer.status != Status.NFS4_OK:
                raise self._client.refusal(answer, place)
            handle, stateid, sequence = answer[getfh], answer[opened].stateid, 1
            if answer[opened].unconfirmed:
                confirm = nfs4_files.confirm(stateid)
                answer = await self._client.complete(deadline, place, nfs4.putfh(handle), confirm)
                stateid, sequence = answer[confirm], 2
            await self._client.complete(deadline, place, nfs4.putfh(handle), nfs4_files.close40(stateid, sequence))
            return handle
        raise ExportError(Cause.NOT_YET, f"{place}: the server forgets this client")

    async def _identified(self, deadline: Deadline) -> int:
        """Return the client ID; SETCLIENTID and SETCLIENTID_CONFIRM get a new one."""
        async with self._identifying:
            if self._client_id is None:
                set_ = nfs4_files.set_client_id(os.urandom(8), b"nfs-provisioner " + os.urandom(16).hex().encode())
                answer = await self._client.run(deadline, set_)
                if answer.status != Status.NFS4_OK:
                    raise self._client.refusal(answer, Place(b""))
                client_id, verifier = answer[set_]
                answer = await self._client.run(deadline, nfs4_files.confirm_client_id(client_id, verifier))
                if answer.status != Status.NFS4_OK:
                    raise self._client.refusal(answer, Place(b""))
                self._client_id = client_id
            return self._client_id


def _creations(name: str, kind: Made, target: str) -> Sequence[Operation[object]]:
    match kind:
        case "directory":
            return (nfs4.create_directory(name, attributes4.settable(mode=0o700)),)
        case "symlink":
            return (nfs4.create_symlink(name, target, attributes4.settable(mode=0o777)),)
        case "fifo":
            return (nfs4_files.create_fifo(name, attributes4.settable(mode=0o600)),)
        case "file":
            return nfs4_files.create(name, nfs4_files.settable(mode=0o600)), nfs4_files.close()


def _between(source: Place, target: Place) -> tuple[Operation[object], ...]:
    """Return operations that make the source the saved file handle and the target the current one."""
    return nfs4.putfh(source.handle), nfs4.savefh(), nfs4.putfh(target.handle)


def _to(place: Place) -> tuple[Operation[object], ...]:
    return (nfs4.putfh(place.handle), *map(nfs4.lookup, place.path))


def _known(facts: Facts | None, place: Place) -> Facts:
    if facts is None:
        raise ExportError(Cause.OTHER, f"{place}: the server does not report its type")
    return facts

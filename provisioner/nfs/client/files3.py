"""Files of NFSv3 (RFC 1813) by their handles, for copies.

The version has no copies within the server, no holes
and no extended attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import CHUNK_BYTES, LARGEST_PAGE_BYTES, SAFE_CHUNK_BYTES, Place, Thing, with_facts
from provisioner.nfs.protocol import nfs3
from provisioner.nfs.protocol.values import DirectoryPage, Position
from provisioner.ports.files import Kept, Made, number_of

if TYPE_CHECKING:
    from provisioner.nfs.client.nfs3 import Client3


class Files3:
    """See `FilesClient`."""

    offloads = False

    def __init__(self, client: Client3) -> None:
        self._client = client

    async def chunk_bytes(self, deadline: Deadline, what: Place) -> int:
        """FSINFO."""
        sizes = await self._client.call(deadline, nfs3.largest_sizes(what.handle), what)
        return min(CHUNK_BYTES, *(each or SAFE_CHUNK_BYTES for each in sizes))

    async def look(self, deadline: Deadline, place: Place) -> Thing:
        """LOOKUP of each component, GETATTR."""
        handle = place.handle
        for name in place.path:
            handle, _ = await self._client.call(deadline, nfs3.lookup(handle, name), place)
        return Thing(handle, await self._client.call(deadline, nfs3.facts(handle), place))

    async def list(self, deadline: Deadline, directory: Place, position: Position) -> DirectoryPage:
        """READDIRPLUS; entries without handle or attributes are looked up."""
        listing = nfs3.list_facts(directory.handle, position, LARGEST_PAGE_BYTES)
        page = await self._client.call(deadline, listing, directory)
        if all(entry.handle and entry.facts for entry in page.entries):
            return page
        return await with_facts(self.look, deadline, directory, page)

    async def read_link(self, deadline: Deadline, what: Place) -> str:
        """READLINK."""
        return await self._client.call(deadline, nfs3.whole_link(what.handle), what)

    async def make(self, deadline: Deadline, parent: Place, name: str, kind: Made, target: str) -> Thing:
        """MKDIR, SYMLINK, MKNOD or CREATE, then GETATTR."""
        place = Place(parent.handle, (name,))
        match kind:
            case "directory":
                create = nfs3.mkdir(parent.handle, name, mode=0o700)
            case "symlink":
                create = nfs3.symlink(parent.handle, name, target)
            case "fifo":
                create = nfs3.make_fifo(parent.handle, name, mode=0o600)
            case "file":
                create = nfs3.create(parent.handle, name, mode=0o600)
        handle, _ = await self._client.call(deadline, create, place)
        return await self.look(deadline, place if handle is None else Place(handle))

    async def link(self, deadline: Deadline, what: Place, parent: Place, name: str) -> None:
        """LINK."""
        link = nfs3.link(what.handle, parent.handle, name)
        await self._client.call(deadline, link, Place(parent.handle, (name,)))

    async def remove(self, deadline: Deadline, parent: Place, name: str) -> None:
        """REMOVE."""
        await self._client.call(deadline, nfs3.remove(parent.handle, name), Place(parent.handle, (name,)))

    async def read(self, deadline: Deadline, what: Place, offset_bytes: int, size_bytes: int) -> bytes:
        """READ."""
        return await self._client.call(
            deadline, nfs3.read(what.handle, offset_bytes, min(size_bytes, CHUNK_BYTES)), what
        )

    async def write(
        self, deadline: Deadline, what: Place, offset_bytes: int, data: bytes, *, stable: bool
    ) -> tuple[int, bytes]:
        """WRITE."""
        return await self._client.call(deadline, nfs3.write(what.handle, offset_bytes, data, stable=stable), what)

    async def flush(self, deadline: Deadline, what: Place) -> bytes:
        """COMMIT."""
        return await self._client.call(deadline, nfs3.commit(what.handle), what)

    async def next_data(
        self, deadline: Deadline, what: Place, offset_bytes: int, size_bytes: int
    ) -> tuple[int, int] | None:
        """Everything is data."""
        return (offset_bytes, size_bytes) if offset_bytes < size_bytes else None

    async def set_size(self, deadline: Deadline, what: Place, size_bytes: int) -> None:
        """SETATTR."""
        await self._client.call(deadline, nfs3.set_size(what.handle, size_bytes), what)

    async def clone(self, deadline: Deadline, source: Place, what: Place) -> bool:
        """Not in this version."""
        return False

    async def copy_range(
        self, deadline: Deadline, source: Place, what: Place, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """Not in this version."""
        return None

    async def has_attributes(self, deadline: Deadline, what: Place) -> bool:
        """Not in this version."""
        return False

    async def attributes(self, deadline: Deadline, what: Place) -> Mapping[str, bytes]:
        """Not in this version."""
        return {}

    async def set_attribute(self, deadline: Deadline, what: Place, name: str, value: bytes) -> bool:
        """Not in this version."""
        return False

    async def keep(self, deadline: Deadline, what: Place, kept: Kept, *, mode: bool, owner: bool) -> None:
        """SETATTR of the owner, which clears the set-ID bits, then of mode and times."""
        if owner:
            uid, gid = (number_of(each, str(what)) for each in (kept.owner, kept.group))
            setattr_ = nfs3.setattr(what.handle, mode=None, uid=uid, gid=gid)
            await self._client.call(deadline, setattr_, what, "chown")
        last = nfs3.set_times(
            what.handle,
            mode=kept.mode if mode else None,
            accessed_ns=kept.accessed_ns,
            modified_ns=kept.modified_ns,
        )
        await self._client.call(deadline, last, what, "chmod" if mode else "call")

"""The `Files` of a `DirectTree`: calls by file handle, each with its own time limit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from provisioner.core.locations import RelPath
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Client, Place, Thing
from provisioner.nfs.client.reading import Reading
from provisioner.ports import endless
from provisioner.ports.files import Files, Item, Kept, Made, Page
from provisioner.ports.tree import PathMissing

if TYPE_CHECKING:
    from provisioner.nfs.client.tree import DirectTree

ENTRIES_LIMIT = 10_000_000
"""Entries of one directory that are copied."""


class DirectFiles:
    """See `Files`."""

    def __init__(self, tree: DirectTree) -> None:
        self._tree = tree
        self._attributed: tuple[Client, bool] | None = None
        """Whether the export has extended attributes, as the server has told this client."""

    async def chunk_bytes(self, directory: Item) -> int:
        """See `Files`."""
        return await self._tree.run(
            "limits",
            directory.path,
            lambda client, deadline, _: client.files.chunk_bytes(deadline, _place(directory)),
        )

    def shares(self, other: Files) -> bool:
        """See `Files`: of trees on the same connection, and in NFSv4.2."""
        return isinstance(other, DirectFiles) and self._tree.offloads_with(other._tree)

    async def look(self, path: RelPath) -> Item:
        """See `Files`."""
        found = await self._tree.run("look", path, lambda client, deadline, place: client.files.look(deadline, place))
        return _item(path, found)

    async def page(self, directory: Item, more: object | None = None) -> Page:
        """See `Files`."""
        reading = more if isinstance(more, Reading) else Reading(ENTRIES_LIMIT)
        page = await self._tree.run(
            "list",
            directory.path,
            lambda client, deadline, _: client.files.list(deadline, _place(directory), reading.position),
        )
        goes_on = reading.advance(page, functools.partial(endless.named, directory.path))
        items = [
            _item((*directory.path, entry.name), Thing(entry.handle, entry.facts))
            for entry in page.entries
            if entry.handle and entry.facts
        ]
        return Page(items, reading if goes_on else None)

    async def read_link(self, symlink: Item) -> str:
        """See `Files`."""
        return await self._tree.run(
            "read_symlink",
            symlink.path,
            lambda client, deadline, _: client.files.read_link(deadline, _place(symlink)),
        )

    async def make(self, parent: Item, name: str, kind: Made, target: str = "") -> Item:
        """See `Files`."""
        path = (*parent.path, name)
        made = await self._tree.run(
            "make",
            path,
            lambda client, deadline, _: client.files.make(deadline, _place(parent), name, kind, target),
            changes=(path,),
        )
        return _item(path, made)

    async def link(self, item: Item, parent: Item, name: str) -> None:
        """See `Files`."""
        path = (*parent.path, name)
        await self._tree.run(
            "link",
            path,
            lambda client, deadline, _: client.files.link(deadline, _place(item), _place(parent), name),
            changes=(path,),
        )

    async def remove(self, parent: Item, name: str) -> None:
        """See `Files`."""
        path = (*parent.path, name)
        with suppress(PathMissing):
            await self._tree.run(
                "remove",
                path,
                lambda client, deadline, _: client.files.remove(deadline, _place(parent), name),
                changes=(path,),
            )

    async def read(self, file: Item, offset_bytes: int, size_bytes: int) -> bytes:
        """See `Files`."""
        return await self._tree.run(
            "read",
            file.path,
            lambda client, deadline, _: client.files.read(deadline, _place(file), offset_bytes, size_bytes),
        )

    async def write(self, file: Item, offset_bytes: int, data: bytes, *, stable: bool) -> bytes:
        """See `Files`; a server that takes only a part gets the rest in the next call."""
        verifiers: set[bytes] = set()
        while True:
            written, verifier = await self._tree.run(
                "write",
                file.path,
                lambda client, deadline, _, offset=offset_bytes, rest=data: client.files.write(  # type: ignore[misc]
                    deadline, _place(file), offset, rest, stable=stable
                ),
                changes=(file.path,),
            )
            verifiers.add(verifier)
            if written >= len(data):
                return verifier if len(verifiers) == 1 else b"changed"
            offset_bytes, data = offset_bytes + written, data[written:]

    async def flush(self, file: Item) -> bytes:
        """See `Files`."""
        return await self._tree.run(
            "flush",
            file.path,
            lambda client, deadline, _: client.files.flush(deadline, _place(file)),
            changes=(file.path,),
        )

    async def next_data(self, file: Item, offset_bytes: int) -> tuple[int, int] | None:
        """See `Files`."""
        return await self._tree.run(
            "seek",
            file.path,
            lambda client, deadline, _: client.files.next_data(deadline, _place(file), offset_bytes, file.size_bytes),
        )

    async def set_size(self, file: Item, size_bytes: int) -> None:
        """See `Files`."""
        await self._tree.run(
            "set_size",
            file.path,
            lambda client, deadline, _: client.files.set_size(deadline, _place(file), size_bytes),
            changes=(file.path,),
        )

    async def clone(self, source: Item, file: Item) -> bool:
        """See `Files`."""
        return await self._tree.run(
            "clone",
            file.path,
            lambda client, deadline, _: client.files.clone(deadline, _place(source), _place(file)),
            changes=(file.path,),
        )

    async def copy_range(
        self, source: Item, file: Item, offset_bytes: int, size_bytes: int
    ) -> tuple[int, bytes] | None:
        """See `Files`."""
        return await self._tree.run(
            "copy_range",
            file.path,
            lambda client, deadline, _: client.files.copy_range(
                deadline, _place(source), _place(file), offset_bytes, size_bytes
            ),
            changes=(file.path,),
        )

    async def copy_whole(self, source: Item, parent: Item, name: str, kept: Kept) -> int | None:
        """See `Files`: NFS has no such call."""
        return None

    async def attributes(self, item: Item) -> Mapping[str, bytes]:
        """See `Files`."""

        async def call(client: Client, deadline: Deadline, _: Place) -> Mapping[str, bytes]:
            has = await self._has_attributes(client, deadline, item)
            return await client.files.attributes(deadline, _place(item)) if has else {}

        return await self._tree.run("attributes", item.path, call)

    async def set_attribute(self, item: Item, name: str, value: bytes) -> bool:
        """See `Files`."""

        async def call(client: Client, deadline: Deadline, _: Place) -> bool:
            has = await self._has_attributes(client, deadline, item)
            return has and await client.files.set_attribute(deadline, _place(item), name, value)

        return await self._tree.run("set_attribute", item.path, call, changes=(item.path,))

    async def _has_attributes(self, client: Client, deadline: Deadline, item: Item) -> bool:
        """Return True if the export has extended attributes; the server is asked once."""
        if self._attributed is None or self._attributed[0] is not client:
            self._attributed = client, await client.files.has_attributes(deadline, _place(item))
        return self._attributed[1]

    async def keep(self, item: Item, kept: Kept) -> None:
        """See `Files`; an owner that is right already is not set, as some servers refuse every change of owner."""
        owner = (kept.owner, kept.group) != (item.kept.owner, item.kept.group)
        await self._tree.run(
            "keep",
            item.path,
            lambda client, deadline, _: client.files.keep(
                deadline, _place(item), kept, mode=item.kind != "symlink", owner=owner
            ),
            changes=(item.path,),
        )


def _place(item: Item) -> Place:
    return Place(item.handle, called="/".join(item.path))


def _item(path: RelPath, found: Thing) -> Item:
    facts = found.facts
    major, minor = facts.fsid
    filesystem = f"{major:x}.{minor:x}"
    return Item(
        path,
        facts.kind,
        f"{filesystem}-{facts.fileid:x}",
        filesystem,
        facts.links,
        facts.size_bytes,
        facts.used_bytes,
        facts.kept,
        found.handle,
    )

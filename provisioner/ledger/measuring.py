"""Measures a directory: bytes and files of all that lies in it, page by page, so that the caller sets the pace."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from provisioner.core.locations import RelPath
from provisioner.ports.files import Item
from provisioner.ports.tree import Cause, ExportError, Tree

_OF_ONE_DIRECTORY = (Cause.DENIED, Cause.NOT_FOUND, Cause.STALE)
"""Errors about one directory, which is closed to the provisioner, or was just removed: the others count."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was counted so far."""

    used_bytes: int = 0
    files: int = 0
    """Objects of all types, directories included; one with several names counts once."""
    closed: int = 0
    """Directories that could not be read."""
    seen: int = 0
    """Entries of the last page."""


async def measure(tree: Tree, path: RelPath) -> AsyncGenerator[Measured, None]:
    """Yield what was counted after each page of entries; the last value is about the whole directory.

    Other file systems that are mounted in the directory do not count. Raises PathMissing, and ExportError if the whole
    export fails.
    """
    top = await tree.files.look(path)
    used, files, closed = top.used_bytes, 1, 0
    several_names: set[str] = set()
    waiting: list[Item] = [top]
    yield Measured(used, files, closed, 1)
    while waiting:
        directory, more = waiting.pop(), None
        while True:
            try:
                page = await tree.files.page(directory, more)
            except ExportError as exc:
                if exc.cause not in _OF_ONE_DIRECTORY:
                    raise
                closed += exc.cause is Cause.DENIED
                yield Measured(used, files, closed)
                break
            for item in page.items:
                if item.filesystem != top.filesystem or item.id in several_names:
                    continue
                if item.kind == "directory":
                    waiting.append(item)
                elif item.links > 1:
                    several_names.add(item.id)
                used, files = used + item.used_bytes, files + 1
            yield Measured(used, files, closed, len(page.items))
            more = page.more
            if more is None:
                break

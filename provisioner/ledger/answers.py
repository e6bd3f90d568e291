"""The answers of the quota agent on an export, and its heartbeat: the ledger reads them and never writes them.

They are data that another process writes. One that cannot be read counts as no answer, and fails nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from provisioner.core import quota
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.quota import Answer, Heartbeat
from provisioner.ledger import symlinks
from provisioner.ports.tree import Cause, ExportError, Tree

_UNREADABLE = (Cause.NOT_FOUND, *symlinks.UNREADABLE)


class Answers:
    """The answers below `.provisioner/quota`, and the heartbeat `.provisioner/agent`.

    Each call raises ExportError if the export itself fails.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def read(self, volume_name: str) -> Answer | None:
        """Return the answer for a volume; None if there is none that can be read."""
        with suppress(InvalidRecord):
            return quota.decode_answer(await self._text(quota.answer_path(volume_name)))
        return None

    async def read_all(self) -> Mapping[str, Answer]:
        """Return all answers that can be read, by volume."""
        found: dict[str, Answer] = {}
        try:
            async for targets in symlinks.batches(self._tree, quota.ANSWERS):
                for name, target in targets.items():
                    with suppress(InvalidRecord):
                        found[name] = quota.decode_answer(target)
        except ExportError as exc:
            if exc.cause not in _UNREADABLE:
                raise
        return found

    async def heartbeat(self) -> Heartbeat | None:
        """Return the heartbeat of the export's agent; None if there is none that can be read."""
        with suppress(InvalidRecord):
            return quota.decode_heartbeat(await self._text(quota.HEARTBEAT))
        return None

    async def _text(self, path: RelPath) -> str:
        """Return the text of a symlink; empty, which is no record, if it cannot be read.

        Of the two ways to read a symlink this one opens the directory, where a kernel that mounts the export looks for
        changes of other clients: without that it could show an old answer for half a minute.
        """
        try:
            return (await self._tree.read_symlinks(path[:-1], path[-1:])).get(path[-1], "")
        except ExportError as exc:
            if exc.cause not in _UNREADABLE:
                raise
            return ""

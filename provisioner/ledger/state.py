"""What the parts of one export share: tree, ledger in memory, work under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from provisioner.core.paths import PathIndex
from provisioner.ledger.index import LedgerIndex
from provisioner.ports.tree import Tree


@dataclass(slots=True)
class LedgerState:
    """One object per export, created by `Export` and changed by its parts."""

    tree: Tree
    export_name: str
    """The export's name in messages."""
    export_id: str = ""
    """The id in `.provisioner/export`; empty until `Export.open` has succeeded."""
    index: LedgerIndex = field(default_factory=LedgerIndex)
    above: PathIndex = field(default_factory=PathIndex)
    """Directories that exports above this one have handed out."""
    reserving: set[str] = field(default_factory=set)
    """Volumes in `index` whose records are still on their way to the export."""
    unconfirmed: set[str] = field(default_factory=set)
    """Pending volumes for which the write of the record had an unknown outcome."""
    mode_refusals: dict[str, str] = field(default_factory=dict)
    """The server's answers where it refused to set the mode of a directory, by volume, until the volume is settled."""
    _archive_locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def archive_lock(self, archive: str) -> asyncio.Lock:
        """Return the lock for restoring an archive, giving it back or ending it."""
        lock = self._archive_locks.get(archive)
        if lock is None:
            lock = self._archive_locks[archive] = asyncio.Lock()
        return lock

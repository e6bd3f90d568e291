"""Heartbeats: when a provisioner of each cluster was on an export last.

They also say which instance works in a cluster's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from provisioner.core import times
from provisioner.core.instances import is_instances
from provisioner.ledger import layout, opening, symlinks
from provisioner.ports.tree import PathExists, PathMissing, Proof, Tree


class Heartbeats:
    """The signs below `.provisioner/clusters`, and since when the ledger exists."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._since = ""

    @property
    def since(self) -> str:
        """Since when the ledger is kept: UTC, RFC 3339; empty before the first heartbeat."""
        return self._since

    async def read_since(self) -> None:
        """Read `since` from the export."""
        self._since = await opening.since(self._tree)

    async def beat(self, cluster_id: str, at: datetime) -> None:
        """Write that a provisioner of a cluster works on this export now."""
        await symlinks.replace(self._tree, (*layout.CLUSTERS, cluster_id), times.text(at))
        if not self._since:
            with suppress(PathExists):  # another provisioner was faster
                await self._tree.make_symlink(layout.SINCE, times.text(at))
            await self.read_since()

    async def last_seen(self) -> Mapping[str, str]:
        """Return when a provisioner was here last, by cluster id: UTC, RFC 3339."""
        signs = await symlinks.read_all(self._tree, layout.CLUSTERS)
        return {name: at for name, at in signs.items() if not is_instances(name)}

    async def instance(self, name: str) -> str:
        """Return the sign of an instance under a name (core.instances).

        Returns an empty text if there is none.
        """
        with suppress(PathMissing):
            return await self._tree.read_symlink((*layout.CLUSTERS, name))
        return ""

    def proof(self, name: str, sign: str) -> Proof:
        """Return the proof of a rename that relies on this sign of an instance: no other one has replaced it."""
        return Proof((*layout.CLUSTERS, name), sign)

    async def sign_instance(self, name: str, sign: str, *, over: bool) -> None:
        """Write the sign of an instance; without `over` raise PathExists where there is one."""
        path = (*layout.CLUSTERS, name)
        if over:
            await symlinks.replace(self._tree, path, sign)
        else:
            await self._tree.make_symlink(path, sign)

"""Builds the exports: the tree that reaches each, and the ledger on top of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from provisioner.core.locations import Location, label
from provisioner.core.mount_options import MountOptions
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.ledger.shares import CopyLimits
from provisioner.mounted.tree import MountedTree
from provisioner.ports.tree import Tree
from provisioner.settings import Settings

if TYPE_CHECKING:
    from provisioner.nfs.client.pool import ConnectionPool

Observe = Callable[[str, str, float], None]
"""Called after each call on an export, with the name of the export, the name of the call, and its seconds."""


def build_registry(
    settings: Settings,
    *,
    observe: Observe = lambda export, call, took_s: None,
    reached: Callable[[Export, Tree], None] = lambda export, tree: None,
) -> ExportRegistry:
    """Return the registry of exports, which reaches an export as the settings and the StorageClasses specify.

    An export with a directory in the settings is used through that mount; all others are used directly, with the mount
    options of the classes that name them. No call is made yet. `reached` is called with each export and its tree, now
    or when a class first names the export.
    """

    @cache
    def pool() -> ConnectionPool:
        return _pool(settings)

    def over(where: Location, tree: Tree, name: str) -> Export:
        export = Export(where, tree, name=name, copies=CopyLimits(settings.parallel_copies, settings.copy_workers))
        reached(export, tree)
        return export

    def mounted(where: Location, directory: str) -> Export:
        tree = MountedTree(
            directory,
            require_mount=settings.require_mount,
            timeout_s=settings.nfs_timeout_s,
            observe=lambda call, took_s: observe(str(where), call, took_s),
        )
        return over(where, tree, str(where))

    def direct(where: Location, options: MountOptions) -> tuple[Export, SetRoutes]:
        # Imported here: a daemon whose exports are all mounted starts 15 ms sooner without the NFS client.
        from provisioner.nfs.client.tree import DirectTree

        name = label(where, options.port)
        tree = DirectTree(
            where,
            pool(),
            version=options.version,
            port=options.port,
            mount_port=options.mount_port,
            observe=lambda call, took_s: observe(name, call, took_s),
        )
        return over(where, tree, name), tree.set_routes

    given = {each.location: mounted(each.location, each.directory) for each in settings.exports if each.directory}
    return ExportRegistry(given, settings.default_export, direct)


def _pool(settings: Settings) -> ConnectionPool:
    """Return the connections to all servers."""
    from provisioner.nfs.client.pool import ConnectionPool
    from provisioner.nfs.protocol.rpc import Credentials

    return ConnectionPool(Credentials(uid=settings.nfs_uid, gid=settings.nfs_gid), timeout_s=settings.nfs_timeout_s)

"""What commands work with: the cluster, its StorageClasses, and the ledgers of all exports, opened concurrently.

No command creates a ledger: an export on which no provisioner has created a volume has nothing to report.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from provisioner.commands.wiring import build_registry
from provisioner.core import classes, scope, snapshot_classes
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, Snapshot, SnapshotClass, StorageClass, Volume
from provisioner.core.scope import Scope, Seen, Unseen
from provisioner.kube.cluster import KubeCluster, Limits, open_cluster
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.aio import map_bounded
from provisioner.ports.cluster import Cluster, Forbidden, Kind, KindMissing
from provisioner.ports.tree import Cause, ExportError
from provisioner.settings import Settings, replica_identity

_OPENING_S = 60.0
"""Time limit for opening one export: a ledger of ten thousand records takes seconds."""
_CONCURRENCY = 16
"""How many volumes a command reads or writes concurrently."""

Job = TypeVar("Job")
Result = TypeVar("Result")
Item = TypeVar("Item", Claim, Volume, StorageClass, Snapshot, SnapshotClass)

KINDS: dict[type, Kind] = {
    Claim: "claims",
    Volume: "volumes",
    StorageClass: "classes",
    Snapshot: "snapshots",
    SnapshotClass: "snapshot_classes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """The exports whose ledgers could be read, the exports without one, and a summary of both."""

    exports: Sequence[Export]
    bare: Sequence[Export]
    """Exports that respond and have no ledger, or a ledger without an id."""
    scope: Scope
    registry: ExportRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Ledgers):
    """The ledgers, the cluster, and the StorageClasses of this provisioner."""

    cluster: Cluster
    cluster_id: str
    classes: Sequence[StorageClass]


def unseen(export: Export, error: ExportError) -> Unseen:
    """Return the entry of the summary for an export that could not be read, with advice."""
    return Unseen(f"export {export.name}", f"{error}; {error.advice}")


@asynccontextmanager
async def connect(settings: Settings, *, limits: Limits | None = None) -> AsyncIterator[KubeCluster]:
    """Connect to the API server. Raises InvalidSettings."""
    async with open_cluster(
        settings.kubeconfig,
        context=settings.context,
        provisioner=settings.provisioner,
        identity=replica_identity(),
        limits=limits,
    ) as cluster:
        yield cluster


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Session]:
    """Connect to the API server, and open all exports that the settings or the StorageClasses name.

    Raises ClusterError, InvalidSettings.
    """
    async with connect(settings) as cluster, open_session_on(cluster, settings) as session:
        yield session


@asynccontextmanager
async def open_session_on(cluster: Cluster, settings: Settings) -> AsyncIterator[Session]:
    """Open a session on a connection that exists already. Raises ClusterError, InvalidSettings."""
    classes = await list_all(cluster, StorageClass)
    cluster_id = await cluster.cluster_uid()
    own = [each for each in classes if each.provisioner == settings.provisioner]
    async with open_ledgers(settings, own, await _snapshot_exports(cluster, settings.provisioner)) as ledgers:
        yield Session(
            cluster=cluster,
            cluster_id=cluster_id,
            classes=own,
            exports=ledgers.exports,
            bare=ledgers.bare,
            scope=replace(ledgers.scope, classes=Counter(each.provisioner for each in classes)),
            registry=ledgers.registry,
        )


async def _snapshot_exports(cluster: Cluster, provisioner: str) -> list[Location]:
    """Return the exports on which VolumeSnapshotClasses keep snapshots.

    Without the CRD, or the right to read the classes, there are none. Raises ClusterError.
    """
    try:
        return snapshot_classes.exports_of(await list_all(cluster, SnapshotClass), provisioner)
    except (KindMissing, Forbidden):
        return []


@asynccontextmanager
async def open_ledgers(
    settings: Settings, classes: Iterable[StorageClass] = (), of_snapshots: Iterable[Location] = ()
) -> AsyncIterator[Ledgers]:
    """Open all exports that the settings or these classes name, and those of snapshots; this needs no cluster.

    Raises InvalidSettings.
    """
    registry = build_registry(settings)
    unusable_locations: set[Location] = set()
    """Exports that a class names with unsupported options. An export that asks for encryption is not read in clear."""
    unusable = [
        problem for each in classes if (problem := _register_export(each, registry, unusable_locations)) is not None
    ]
    reached = {export.location for export in registry}
    for location in {setting.location for setting in settings.exports} - reached - unusable_locations:
        registry.get(location, MountOptions())  # no class names options for it
    for location in set(of_snapshots) - unusable_locations:
        registry.at(location)
    known = list(registry)
    try:
        outcome = dict(zip(known, await asyncio.gather(*map(_open, known)), strict=True))
        _unite(registry, [export for export, error in outcome.items() if error is None])
        outcome = {export: error for export, error in outcome.items() if registry.primary(export) is export}
        yield Ledgers(
            exports=[export for export, error in outcome.items() if error is None],
            bare=[export for export, error in outcome.items() if error and _is_bare(error)],
            scope=Scope(
                provisioner=settings.provisioner,
                exports=[found for export, error in outcome.items() if (found := _seen(export, error)) is not None],
                unseen=[
                    *unusable,
                    *(unseen(export, error) for export, error in outcome.items() if error and not _is_bare(error)),
                ],
            ),
            registry=registry,
        )
    finally:
        await asyncio.gather(*(export.close() for export in known))


def _unite(registry: ExportRegistry, found: Iterable[Export]) -> None:
    """Let one object represent each export, however many names it has.

    A command writes no mark to an export, so two exports count as the same if they have one id and one ledger.
    """
    first: dict[str, Export] = {}
    for export in found:
        registry.places.note(export.location, folds=export.folds)
        primary = first.setdefault(export.id, export)
        if primary is not export and (primary.records, primary.pending) == (export.records, export.pending):
            registry.unite(export, primary)


def _is_bare(error: ExportError) -> bool:
    """Return True if the export responds and has no ledger."""
    return error.cause is Cause.NO_LEDGER


def _seen(export: Export, error: ExportError | None) -> Seen | None:
    if error is None:
        return scope.seen(export.name, export.records, export.archived)
    return Seen(export=export.name, has_ledger=False) if _is_bare(error) else None


def _register_export(
    storage_class: StorageClass, registry: ExportRegistry, unusable_locations: set[Location]
) -> Unseen | None:
    """Register the export of a class; return the problem if this fails, and add the export to `unusable_locations`."""
    what = f"StorageClass {storage_class.name}"
    try:
        where = classes.export_of(storage_class, registry.default)
    except InvalidSettings as exc:
        return Unseen(what, str(exc))
    if where is None:
        advice = "give --export, or NFS_SERVER and NFS_PATH, as the daemon has them"
        return Unseen(what, f"it names no export, and there is no default export; {advice}")
    try:
        registry.get(where, classes.mount_options_of(storage_class))
    except InvalidSettings as exc:
        problem = str(exc)
    except ExportError as exc:
        problem = f"export {where}: {exc}; {exc.advice}"
    else:
        return None
    unusable_locations.add(where)
    return Unseen(what, problem)


async def _open(export: Export) -> ExportError | None:
    try:
        async with asyncio.timeout(_OPENING_S):
            await export.open(create=False)
    except ExportError as exc:
        return exc
    except TimeoutError:
        return ExportError(Cause.UNREACHABLE, f"not read within {_OPENING_S:g} s", hint=export.unreachable_hint)
    return None


async def list_all(cluster: Cluster, of: type[Item]) -> list[Item]:
    """Return all objects of a type, from all pages of the list.

    Raises ClusterError; Expired if reading the pages takes longer than the server keeps them.
    """
    return (await list_at(cluster, of))[0]


async def list_at(cluster: Cluster, of: type[Item]) -> tuple[list[Item], str]:
    """Return all objects of a type as `list_all` does, and the version from which a watch continues."""
    found: list[Item] = []
    token = ""
    while True:
        page = await cluster.list(KINDS[of], continue_token=token)
        found += [item for item in page.items if isinstance(item, of)]
        token = page.continue_token
        if not token:
            return found, page.version


async def map_concurrently(work: Callable[[Job], Awaitable[Result]], jobs: Iterable[Job]) -> list[Result]:
    """Return the results of all jobs, in the order of the jobs; a few run concurrently."""
    return await map_bounded(work, jobs, limit=_CONCURRENCY)

"""What commands look at that read or change ledgers: the cluster, and all exports of its classes, opened side by side.

No command makes a ledger: an export on which no provisioner has ever made a volume has nothing to tell.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from provisioner.commands.wiring import served
from provisioner.core import classes, scope
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass
from provisioner.core.scope import Scope, Seen, Unseen
from provisioner.kube.cluster import open_cluster
from provisioner.kube.pages import everything
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.aio import map_bounded
from provisioner.ports.cluster import Cluster
from provisioner.ports.tree import Cause, ExportError
from provisioner.settings import Settings, identity

_OPENING_S = 60.0
"""For one export: a ledger of ten thousand records takes seconds."""
_AT_ONCE = 16
"""Volumes that are looked at, or made, side by side."""

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """The exports, those that have a ledger first of all, and the whole of what was looked at."""

    exports: Sequence[Export]
    bare: Sequence[Export]
    """Those that answer and have no ledger, or one without an id."""
    scope: Scope
    served: ExportRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey(Ledgers):
    """The ledgers, the cluster, and our classes in it."""

    cluster: Cluster
    cluster_id: str
    classes: Sequence[StorageClass]


def unseen(export: Export, error: ExportError) -> Unseen:
    """An export that could not be looked at, with what to do about it."""
    return Unseen(f"export {export.name}", f"{error}; {error.advice}")


@asynccontextmanager
async def surveyed(settings: Settings) -> AsyncIterator[Survey]:
    """Open all exports that the settings or the cluster's classes name. Raises ClusterError, InvalidSettings."""
    async with open_cluster(settings.kubeconfig, provisioner=settings.provisioner, identity=identity()) as cluster:
        classes = await everything(cluster, StorageClass)
        cluster_id = await cluster.cluster_uid()
        ours = [each for each in classes if each.provisioner == settings.provisioner]
        async with opened(settings, ours) as ledgers:
            yield Survey(
                cluster=cluster,
                cluster_id=cluster_id,
                classes=ours,
                exports=ledgers.exports,
                bare=ledgers.bare,
                scope=replace(ledgers.scope, classes=Counter(each.provisioner for each in classes)),
                served=ledgers.served,
            )


@asynccontextmanager
async def opened(settings: Settings, classes: Iterable[StorageClass] = ()) -> AsyncIterator[Ledgers]:
    """Open all exports that the settings or these classes name, which takes no cluster. Raises InvalidSettings."""
    exports = served(settings)
    no_way: set[Location] = set()
    """Exports that a class names with options that we cannot follow: what asks for encryption is not read in clear."""
    unusable = [problem for each in classes if (problem := _name_export(each, exports, no_way)) is not None]
    reached = {export.location for export in exports}
    for location in {setting.location for setting in settings.exports} - reached - no_way:
        exports.get(location, MountOptions())  # no class says how it is reached
    known = list(exports)
    try:
        outcome = dict(zip(known, await asyncio.gather(*map(_open, known)), strict=True))
        _unite(exports, [export for export, error in outcome.items() if error is None])
        outcome = {export: error for export, error in outcome.items() if exports.primary(export) is export}
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
            served=exports,
        )
    finally:
        await asyncio.gather(*(export.close() for export in known))


def _unite(served: ExportRegistry, found: Iterable[Export]) -> None:
    """Let one object stand for each export. A command leaves no mark on it: two with one id and one ledger are one."""
    first: dict[str, Export] = {}
    for export in found:
        served.places.note(export.location, folds=export.folds)
        primary = first.setdefault(export.id, export)
        if primary is not export and (primary.records, primary.pending) == (export.records, export.pending):
            served.unite(export, primary)


def _is_bare(error: ExportError) -> bool:
    """Whether an export was looked at, and has no ledger."""
    return error.cause is Cause.NO_LEDGER


def _seen(export: Export, error: ExportError | None) -> Seen | None:
    if error is None:
        return scope.seen(export.name, export.records, export.archived)
    return Seen(export=export.name, has_ledger=False) if _is_bare(error) else None


def _name_export(storage_class: StorageClass, exports: ExportRegistry, no_way: set[Location]) -> Unseen | None:
    """Have a class's export among those that are served; why that cannot be, if so. Then it is in `no_way`."""
    what = f"StorageClass {storage_class.name}"
    try:
        where = classes.export_of(storage_class, exports.default)
    except InvalidSettings as exc:
        return Unseen(what, str(exc))
    if where is None:
        advice = "give --export, or NFS_SERVER and NFS_PATH, as the daemon has them"
        return Unseen(what, f"it names no export, and there is no default export; {advice}")
    try:
        exports.get(where, classes.mount_options_of(storage_class))
    except InvalidSettings as exc:
        problem = str(exc)
    except ExportError as exc:
        problem = f"export {where}: {exc}; {exc.advice}"
    else:
        return None
    no_way.add(where)
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


async def side_by_side(work: Callable[[Job], Awaitable[Result]], jobs: Iterable[Job]) -> list[Result]:
    """All results, in order; a few at a time."""
    return await map_bounded(work, jobs, limit=_AT_ONCE)

"""What commands look at that read or change ledgers: the cluster, and all exports of its classes, opened side by side.

No command makes a ledger: an export on which no provisioner has ever made a volume has nothing to tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from provisioner.core import mount_options
from provisioner.core.errors import InvalidSettings
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass
from provisioner.core.parameters import parse
from provisioner.exports import served
from provisioner.kube.cluster import open_cluster
from provisioner.kube.pages import classes_of
from provisioner.ports import Cause, Cluster, Export, ExportError, Exports
from provisioner.settings import Settings, identity

_OPENING_S = 60.0
"""For one export: a ledger of ten thousand records takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """The exports that have a ledger, and why others could not be looked at."""

    exports: Sequence[Export]
    unseen: Mapping[str, ExportError]
    """By the export's name; one without a ledger is none of them."""
    served: Exports


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey(Ledgers):
    """The ledgers, the cluster, and our classes in it."""

    cluster: Cluster
    cluster_id: str
    classes: Sequence[StorageClass]


@asynccontextmanager
async def surveyed(settings: Settings) -> AsyncIterator[Survey]:
    """Open all exports that the settings or the cluster's classes name. Raises ClusterError, InvalidSettings."""
    async with open_cluster(settings.kubeconfig, provisioner=settings.provisioner, identity=identity()) as cluster:
        classes = await classes_of(cluster, settings.provisioner)
        cluster_id = await cluster.identity()
        async with opened(settings, classes) as ledgers:
            yield Survey(
                cluster=cluster,
                cluster_id=cluster_id,
                classes=classes,
                exports=ledgers.exports,
                unseen=ledgers.unseen,
                served=ledgers.served,
            )


@asynccontextmanager
async def opened(settings: Settings, classes: Iterable[StorageClass] = ()) -> AsyncIterator[Ledgers]:
    """Open all exports that the settings or these classes name, which takes no cluster. Raises InvalidSettings."""
    exports = served(settings)
    refused = {}
    for each in classes:
        try:
            _name_export(each, exports)
        except (InvalidSettings, ExportError) as exc:
            refused[f"of StorageClass {each.name}"] = (
                exc if isinstance(exc, ExportError) else ExportError(Cause.OTHER, str(exc), hint=str(exc))
            )
    for location in {setting.location for setting in settings.exports} - {export.location for export in exports}:
        exports.at(location, MountOptions())  # no class says how it is reached
    known = list(exports)
    try:
        outcome = dict(zip(known, await asyncio.gather(*map(_open, known)), strict=True))
        unseen = {export.name: error for export, error in outcome.items() if error is not None}
        yield Ledgers(
            exports=[export for export, error in outcome.items() if error is None],
            unseen=refused | {name: error for name, error in unseen.items() if error.cause is not Cause.NO_LEDGER},
            served=exports,
        )
    finally:
        await asyncio.gather(*(export.close() for export in exports))


def _name_export(storage_class: StorageClass, exports: Exports) -> None:
    """Have a class's export among those that are served. Raises InvalidSettings, ExportError."""
    where = parse(storage_class.parameters).export or exports.default
    if where is not None:
        exports.at(where, mount_options.parse(storage_class.mount_options))


async def _open(export: Export) -> ExportError | None:
    try:
        async with asyncio.timeout(_OPENING_S):
            await export.open(create=False)
    except ExportError as exc:
        return exc
    except TimeoutError:
        return ExportError(Cause.UNREACHABLE, f"not read within {_OPENING_S:g} s", hint=export.silence)
    return None

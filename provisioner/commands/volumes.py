"""The work of `volumes`: reads the PersistentVolumes of a provisioner, and the usage of those with a quota."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from msgspec import structs

from provisioner.commands.session import connect, list_all, list_at, unseen
from provisioner.commands.watching import changes
from provisioner.commands.wiring import build_registry
from provisioner.core import names
from provisioner.core.errors import InvalidSettings
from provisioner.core.listing import VolumeRow, listed
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, ClaimRef, StorageClass, Volume
from provisioner.core.quota import Answer
from provisioner.core.scope import Unseen
from provisioner.core.selectors import Choice
from provisioner.kube.cluster import KubeCluster
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import Cause, ExportError
from provisioner.settings import Settings

_CALL_S = 4.0
"""Time limit for one call: the list does not depend on exports that hang."""
_EXPORT_S = 15.0
"""Time limit for one export: ten thousand answers take seconds."""
_CONCURRENCY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which volumes to list."""

    choice: Choice
    class_name: str | None = None
    pod: str | None = None
    """Only volumes that a pod of this name uses; `NAMESPACE/NAME`, or a name in any chosen namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeList:
    """The volumes of a provisioner, and what to say if there is none."""

    volumes: Sequence[VolumeRow]
    own: int
    """The number of all PersistentVolumes of the provisioner."""
    total: int
    """The number of all PersistentVolumes of the cluster."""
    classes: Mapping[str, int]
    """The number of StorageClasses per provisioner; only read if there is no volume."""
    unread: Sequence[Unseen]
    """The exports whose usage is unknown."""


class VolumeLister:
    """Lists volumes, and follows their changes; `open_volumes` creates it."""

    def __init__(self, cluster: KubeCluster, settings: Settings, query: Query) -> None:
        self._cluster = cluster
        self._settings = settings
        self._query = query
        self._claims: Container[tuple[str, str]] | None = None
        """The claims that the pod uses; None without a pod."""
        self._labels: Mapping[str, Mapping[str, str]] = {}
        """The labels of claims, by `namespace/name`; only read if a selector asks for them."""
        self._answers: Mapping[str, Answer] = {}
        self._version = ""
        self._shown: dict[str, VolumeRow] = {}

    async def read(self) -> VolumeList:
        """Return the volumes. Raises ClusterError, InvalidSettings if there is no such pod."""
        cluster, settings = self._cluster, self._settings
        volumes, self._version = await list_at(cluster, Volume)
        await self._read_filters()
        own = [volume for volume in volumes if volume.is_by(settings.provisioner)]
        classes = [] if own else await list_all(cluster, StorageClass)
        quick = replace(settings, nfs_timeout_s=min(settings.nfs_timeout_s, _CALL_S))
        wanted = [volume for volume in own if self._is_wanted(volume)]
        self._answers, unread = await _read_answers(wanted, quick)
        rows = [listed(volume, self._answers.get(volume.name)) for volume in wanted]
        self._shown = {row.volume: row for row in rows}
        return VolumeList(
            volumes=sorted(rows, key=lambda each: (each.namespace, each.claim, each.volume)),
            own=len(own),
            total=len(volumes),
            classes=Counter(each.provisioner for each in classes),
            unread=unread,
        )

    async def changes(self) -> AsyncIterator[VolumeRow]:
        """Yield each row that changes after `read`; a deleted volume has the phase Deleted."""
        async for volume, is_deleted in changes(self._cluster, Volume, self._version):
            if not volume.is_by(self._settings.provisioner):
                continue
            if self._query.choice.has_labels:
                await self._read_filters()
            row = listed(volume, self._answers.get(volume.name))
            if is_deleted:
                row = structs.replace(row, phase="Deleted")
            if self._is_wanted(volume) and row != self._shown.get(volume.name):
                self._shown[volume.name] = row
                yield row

    async def _read_filters(self) -> None:
        """Read what the query needs besides the volumes."""
        query = self._query
        if query.choice.has_labels:
            self._labels = {claim.key: claim.metadata.labels for claim in await list_all(self._cluster, Claim)}
        if query.pod is not None:
            namespace, _, name = query.pod.rpartition("/")
            pods = await self._cluster.list_pods(namespace or query.choice.namespace, name)
            if not pods:
                raise InvalidSettings(f"there is no pod {query.pod}: give --pod NAMESPACE/NAME, or --namespace")
            self._claims = {(pod.namespace, claim) for pod in pods for claim in pod.claims}

    def _is_wanted(self, volume: Volume) -> bool:
        """Return True if the query asks for a volume: the labels are those of the volume and of its claim."""
        reference = volume.spec.claim_ref or ClaimRef()
        if self._query.class_name not in (None, volume.spec.storage_class_name):
            return False
        if self._claims is not None and (reference.namespace, reference.name) not in self._claims:
            return False
        labels = {**volume.metadata.labels, **self._labels.get(f"{reference.namespace}/{reference.name}", {})}
        return self._query.choice.has(reference.namespace, labels)


@asynccontextmanager
async def open_volumes(settings: Settings, query: Query) -> AsyncIterator[VolumeLister]:
    """Connect to the API server. Raises InvalidSettings."""
    async with connect(settings) as cluster:
        yield VolumeLister(cluster, settings, query)


async def _read_answers(volumes: Sequence[Volume], settings: Settings) -> tuple[Mapping[str, Answer], Sequence[Unseen]]:
    """Read the answers of quota agents for volumes; return the exports that could not be read as well."""
    registry = build_registry(settings)
    try:
        found: dict[str, Answer] = {}
        unread: list[Unseen] = []
        exports = _with_usage(volumes, registry, settings)
        for export, outcome in zip(exports, await map_bounded(_read, exports, limit=_CONCURRENCY), strict=True):
            if isinstance(outcome, ExportError):
                unread.append(unseen(export, outcome))
            else:
                found |= outcome
        return found, unread
    finally:
        await asyncio.gather(*(export.close() for export in registry))


def _with_usage(volumes: Sequence[Volume], registry: ExportRegistry, settings: Settings) -> list[Export]:
    """Return the exports of volumes whose class asks for a quota, and those that the settings name.

    An agent can limit all volumes of an export, so that those of the settings are read in any case.
    """
    given: set[Export] = set()
    for setting in settings.exports:
        with suppress(ExportError):
            given.add(registry.get(setting.location, MountOptions()))
    located = ((volume, registry.locate(volume)) for volume in volumes)
    return list(
        dict.fromkeys(
            place[0]
            for volume, place in located
            if place is not None and (place[0] in given or names.QUOTA in volume.metadata.annotations)
        )
    )


async def _read(export: Export) -> Mapping[str, Answer] | ExportError:
    try:
        async with asyncio.timeout(_EXPORT_S):
            return await export.answers.read_all()
    except ExportError as exc:
        return exc
    except TimeoutError:
        return ExportError(Cause.UNREACHABLE, f"not read within {_EXPORT_S:g} s", hint=export.unreachable_hint)

"""The work of `move`: proves that two addresses lead to one export, and moves its volumes, one after another.

The order for each volume, so that nothing is reclaimed and nothing is lost at any point:

1. The journal gets the volume as it is and as it becomes.
2. The volume gets the reclaim policy Retain: from here on, no provisioner reclaims it.
3. Its record in the new ledger names no object, as in a recovery.
4. It is deleted, with its finalizers. Its claim is Lost for a moment.
5. It is created again with the new server, still Retain, and its claim is bound to it.
6. The record names the new object. Then the volume gets its own policy and finalizers back.

An interrupted move is continued from the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from provisioner.commands.journal import Journal
from provisioner.commands.session import connect, list_all
from provisioner.commands.wiring import build_registry
from provisioner.core import classes, mount_options, moving, names
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import NFS_PORT, Location, RelPath
from provisioner.core.mount_options import MountOptions
from provisioner.core.moving import Facts, MoveRow, NotMoved, Sighting
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.kube.cluster import KubeCluster
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ApiUnavailable, ClusterError, Conflict, NotFound
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

_OPENING_S = 60.0
_BOUND_S = 120.0
"""How long to wait until a claim is bound to its new volume."""
_POLL_S = 0.5

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to move."""

    old: Location
    new: Location
    volumes: frozenset[str] = frozenset()
    """Only these; empty for all."""
    with_pods: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume on the old address, and why it stays; empty if it can be moved."""

    volume: Volume
    path: RelPath
    why_not: str


@dataclass(slots=True)
class Mover:
    """Moves volumes; `open_mover` creates it, which has proved that both addresses lead to one ledger."""

    cluster: KubeCluster
    settings: Settings
    order: Order
    export: Export
    """The new address."""
    proof: str
    """How both addresses were proved to lead to one ledger."""
    candidates: Sequence[Candidate] = ()
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The mount options of the StorageClasses on the new address, by class."""

    @property
    def warning(self) -> str:
        """What an admin has to do so that new volumes are created at the new address; empty if that is done."""
        if self.options:
            return ""
        return (
            f"no StorageClass of provisioner {self.settings.provisioner} names {self.order.new}: delete the class, and"
            " create it again with the new server, so that new volumes are created there"
        )

    async def apply(self, journal: Journal, report: Report) -> list[MoveRow]:
        """Move the volumes that can be moved, and continue those that an earlier run has begun.

        Raises NotMoved if a permission is missing, ClusterError.
        """
        missing = [each.verb for each in moving.permissions() if not await self.cluster.is_allowed(each)]
        if missing:
            raise NotMoved(f"no right to {', '.join(missing)} persistentvolumes: use the kubeconfig of an admin")
        rows = [await self._continue(name, entry, journal) for name, entry in journal.unfinished().items()]
        continued = {row.volume for row in rows if row.result != ""}
        rows = [row for row in rows if row.result != ""]
        for number, each in enumerate(self.candidates, 1):
            if each.volume.name in continued:
                continue
            if each.why_not:
                rows.append(moving.row(each.volume, each.path, "stays", each.why_not))
                continue
            report(f"{number} of {len(self.candidates)}: {each.volume.name}")
            rows.append(await self._move(each, journal))
        return rows

    def look(self) -> list[MoveRow]:
        """Return what would be moved, and what stays."""
        return [
            moving.row(each.volume, each.path, "stays" if each.why_not else "", each.why_not)
            for each in self.candidates
        ]

    async def _continue(self, name: str, entry: Mapping[str, Any], journal: Journal) -> MoveRow:
        """Continue a volume of the journal; a row without a result means that it is moved from the start."""
        now = entry["now"]
        live = await self.cluster.get_volume(name)
        source = live.spec.nfs if live is not None else None
        wanted = now["spec"]["nfs"]
        path = self.order.new.relative(wanted["server"], wanted["path"]) or ()
        if source is not None and (source.server, source.path) != (wanted["server"], wanted["path"]):
            assert live is not None
            return moving.row(live, path, "")
        reference = now["spec"]["claimRef"]
        row = MoveRow(name, reference["namespace"], reference["name"], "/".join(path), "moved", "")
        return await self._finished(row, entry["was"], now, journal)

    async def _move(self, each: Candidate, journal: Journal) -> MoveRow:
        """Move one volume; return the row that says what became of it."""
        row = moving.row(each.volume, each.path, "moved")
        try:
            # The look at all volumes can be long ago.
            pods = await self.cluster.list_pods(row.namespace)
            in_use = moving.in_use([pod for pod in pods if pod.runs and pod.uses(row.namespace, row.claim)])
            if in_use and not self.order.with_pods:
                return moving.row(each.volume, each.path, "stays", in_use)
            was = await self.cluster.get_volume_manifest(each.volume.name)
            now = moving.manifest(was, self.order.new, each.path, self._options_of(each.volume))
            journal.write(each.volume.name, "begun", was=was, now=now)
            await self._delete(each)
        except (ClusterError, ExportError) as exc:
            return moving.row(each.volume, each.path, "failed", str(exc))
        return await self._finished(row, was, now, journal)

    def _options_of(self, volume: Volume) -> Sequence[str] | None:
        """Return the mount options of the volume's class, if that names the new address now."""
        return self.options.get(volume.spec.storage_class_name) if volume.is_by(self.settings.provisioner) else None

    async def _delete(self, each: Candidate) -> None:
        """Steps 2 to 4: nothing can be reclaimed any more, then the object goes. Raises ClusterError, ExportError."""
        name, meta = each.volume.name, each.volume.metadata
        retained = {
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "spec": {"persistentVolumeReclaimPolicy": "Retain"},
        }
        volume = await self.cluster.patch_volume(name, retained)
        record = self.export.records.get(name)
        if record is not None:
            await self.export.replace_record(name, moving.unsettled(record, self._options_of(each.volume)))
        with suppress(NotFound):
            await self._delete_retained(volume)
            await self.cluster.patch_volume(name, {"metadata": {"uid": meta.uid, "finalizers": None}})

    async def _delete_retained(self, volume: Volume) -> None:
        """Delete exactly this volume. Raises ClusterError; Conflict if more than its finalizers has changed."""
        while True:
            try:
                return await self.cluster.delete_volume(volume)
            except Conflict:
                # The daemon removes its finalizer from a volume that is retained.
                live = await self.cluster.get_volume(volume.name)
                if live is None or (live.spec, live.metadata.uid) != (volume.spec, volume.metadata.uid):
                    raise
                volume = live

    async def _finished(
        self, row: MoveRow, was: Mapping[str, Any], now: Mapping[str, Any], journal: Journal
    ) -> MoveRow:
        """Steps 5 and 6; return the row that says what became of the volume."""
        try:
            live = await self.cluster.get_volume(row.volume) or await self.cluster.create_volume(now)
            await self._bound(row)
            if row.volume in self.export.records:
                await self.export.settle(row.volume, live.metadata.uid)
            for finalizer in moving.finalizers_of(was):
                await self.cluster.set_finalizer(live, finalizer, present=True)
            policy = {"persistentVolumeReclaimPolicy": moving.policy_of(was)}
            await self.cluster.patch_volume(row.volume, {"metadata": {"uid": live.metadata.uid}, "spec": policy})
        except (ClusterError, ExportError, TimeoutError) as exc:
            why = str(exc) or f"its claim is not bound within {_BOUND_S:g} s: kubectl describe pv {row.volume}"
            why += f"; run the command again to continue, with the journal {journal.path}"
            return MoveRow(row.volume, row.namespace, row.claim, row.directory, "failed", why)
        journal.write(row.volume, "done", was=was, now=now)
        return row

    async def _bound(self, row: MoveRow) -> None:
        """Wait until claim and volume are bound. Raises TimeoutError, ClusterError."""
        async with asyncio.timeout(_BOUND_S):
            while True:
                with suppress(ApiUnavailable):
                    claim = await self.cluster.get_claim(row.namespace, row.claim)
                    volume = await self.cluster.get_volume(row.volume)
                    phases = {each.status.phase for each in (claim, volume) if each is not None}
                    if phases == {"Bound"} and claim is not None and claim.spec.volume_name == row.volume:
                        return
                await asyncio.sleep(_POLL_S)


# ---------------------------------------------------------------------------------------------------- looking


@asynccontextmanager
async def open_mover(settings: Settings, order: Order) -> AsyncIterator[Mover]:
    """Prove that both addresses lead to one ledger, and look at the volumes on the old one.

    Changes nothing. Raises NotMoved, ClusterError, InvalidSettings.
    """
    if order.old == order.new:
        raise InvalidSettings(f"--from and --to are both {order.old}")
    async with connect(settings) as cluster:
        volumes = await list_all(cluster, Volume)
        on_old = [(volume, path) for volume in volumes if (path := _path_on(order.old, volume)) is not None]
        of_class = _classes_on(order.new, await list_all(cluster, StorageClass), settings)
        registry = build_registry(settings)
        try:
            # As pods reach it: volumes keep their mount options, unless their class names the new address.
            old_options = next((_options(volume) for volume, _ in on_old), MountOptions())
            new_options = next(map(classes.mount_options_of, of_class.values()), old_options)
            # Each by itself: two that have one ledger must not stand for each other here.
            old = registry.get(order.old, old_options)
            new = registry.get(order.new, new_options)
            carried = [volume.metadata.annotations.get(names.EXPORT_ID, "") for volume, _ in on_old]
            proof = moving.prove(await _sight(old, order.old), await _sight(new, order.new), carried)
            mover = Mover(cluster, settings, order, new, proof)
            mover.options = {name: each.mount_options for name, each in of_class.items()}
            chosen = [
                (volume, path)
                for volume, path in on_old
                # Two servers that differ only in their port are two addresses.
                if (not order.volumes or volume.name in order.volumes)
                and _port(volume) == (old_options.port or NFS_PORT)
            ]
            mover.candidates = await _candidates(mover, chosen)
            yield mover
        except ExportError as exc:
            raise NotMoved(f"{exc}; {exc.advice}") from exc
        finally:
            await asyncio.gather(*(export.close() for export in registry))


def _path_on(location: Location, volume: Volume) -> RelPath | None:
    source = volume.source
    return location.relative(source.server, source.path) if source is not None else None


def _classes_on(new: Location, found: Sequence[StorageClass], settings: Settings) -> dict[str, StorageClass]:
    """Return the provisioner's classes on the new address that can be used."""
    on_new: dict[str, StorageClass] = {}
    for each in found:
        with suppress(InvalidSettings):
            if each.provisioner == settings.provisioner and classes.export_of(each, settings.default_export) == new:
                classes.mount_options_of(each)
                on_new[each.name] = each
    return on_new


def _options(volume: Volume) -> MountOptions:
    """Return the mount options of a volume; those that cannot be used count as none."""
    try:
        return mount_options.parse(volume.spec.mount_options)
    except InvalidSettings:
        return MountOptions()


def _port(volume: Volume) -> int:
    return _options(volume).port or NFS_PORT


async def _sight(export: Export, location: Location) -> Sighting:
    """Open one address, and return what it shows."""
    try:
        async with asyncio.timeout(_OPENING_S):
            await export.open(create=False)
    except ExportError as exc:
        return Sighting(location=location, trouble=str(exc))
    except TimeoutError:
        return Sighting(location=location, trouble=f"not read within {_OPENING_S:g} s")
    return Sighting(location=location, id=export.id)


async def _candidates(mover: Mover, found: Sequence[tuple[Volume, RelPath]]) -> list[Candidate]:
    """Decide about each volume, in the order of claims. Raises ClusterError, ExportError."""
    cluster, export = mover.cluster, mover.export
    claims = {claim.key: claim for claim in await list_all(cluster, Claim)}
    pods = [pod for pod in await cluster.list_pods() if pod.runs]
    cluster_id = await cluster.cluster_uid()
    candidates = []
    for volume, path in found:
        reference = volume.spec.claim_ref
        key = (reference.namespace, reference.name) if reference is not None else ("", "")
        facts = Facts(
            volume=volume,
            path=path,
            claim=claims.get("/".join(key)),
            record=export.records.get(volume.name),
            contents=await export.contents(path),
            pods=[pod for pod in pods if pod.uses(*key)],
            export_id=export.id,
            cluster=cluster_id,
            provisioner=mover.settings.provisioner,
        )
        candidates.append(Candidate(volume, path, moving.why_not(facts, with_pods=mover.order.with_pods)))
    return sorted(candidates, key=lambda each: (moving.row(each.volume, (), "").namespace, each.volume.name))

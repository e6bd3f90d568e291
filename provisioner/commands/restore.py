"""The work of `restore`: asks for an archive on behalf of a claim, and waits until the claim has its data.

The command only annotates the claim, with the rights of the admin who runs it. The daemon does the rest, and decides
again on its own whether the claim may have the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from msgspec import structs

from provisioner.commands.session import Session, connect, open_session_on
from provisioner.core import archives, classes, names
from provisioner.core.errors import InvalidSettings, ProvisionerError
from provisioner.core.objects import Claim, StorageClass
from provisioner.core.records import ArchiveRecord
from provisioner.core.scope import NOTHING
from provisioner.core.tenancy import Tenant
from provisioner.kube.cluster import KubeCluster
from provisioner.kube.events import RecordedEvent
from provisioner.ledger.export import Export
from provisioner.ports.cluster import AlreadyExists, ApiUnavailable, Conflict, Forbidden
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

_POLL_S = 1.0
_SILENCE_S = 15.0
"""A running provisioner has written an event about the claim by then."""

Report = Callable[[str], None]


class NotRestored(ProvisionerError):
    """The claim did not get the data of the archive; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which archive to give to which claim; the class is for a claim that does not exist."""

    archive: str
    namespace: str
    claim_name: str
    class_name: str | None
    timeout_s: float

    @property
    def key(self) -> str:
        """The claim as `namespace/name`."""
        return f"{self.namespace}/{self.claim_name}"


@dataclass(frozen=True, slots=True)
class _Found:
    """An archive, and the export that has it."""

    record: ArchiveRecord
    export: Export


async def restore(settings: Settings, order: Order, report: Report) -> None:
    """Give an archive to a claim, created if it does not exist, and wait until the claim has the data.

    Calls `report` with each line of progress. Raises NotRestored, ClusterError, ExportError, InvalidSettings.
    """
    async with connect(settings) as cluster, open_session_on(cluster, settings) as session:
        for line in session.scope.lines() if session.scope.status != NOTHING else ():
            report(line)
        find = await _find(session, order)
        claim, storage_class = await _ask_for(cluster, session, order, find)
        unscheduled = not any(claim.metadata.annotations.get(key) for key in names.SELECTED_NODE_ANNOTATIONS)
        if storage_class.volume_binding_mode == "WaitForFirstConsumer" and unscheduled:
            why = f"as StorageClass {storage_class.name} says"
            report(f"claim {order.key} gets the data when its first pod is scheduled, {why}")
            return
        volume = await _Wait(cluster, order, settings.provisioner, report).bound()
        record = await find.export.refresh_record(volume)
        if record is None or record.archive != order.archive:
            raise NotRestored(
                f"claim {order.key} got the new volume {volume} before the provisioner read its annotation, and archive"
                f" {order.archive} is unchanged: delete the claim, and try again"
            )
        report(f"claim {order.key} has the data of archive {order.archive} as volume {volume}")


async def manifest(settings: Settings, order: Order, report: Report) -> Mapping[str, object]:
    """Return the claim that gets an archive, for a user who has the right to create it; changes nothing.

    Raises NotRestored, also if the claim exists, ClusterError, ExportError, InvalidSettings.
    """
    async with connect(settings) as cluster, open_session_on(cluster, settings) as session:
        for line in session.scope.lines() if session.scope.status != NOTHING else ():
            report(line)
        find = await _find(session, order)
        claim = await cluster.get_claim(order.namespace, order.claim_name)
        if claim is not None:
            refusal = archives.cannot_have(order.archive, claim)
            todo = f"{refusal}" if refusal else f"exists: {_annotate(order)}"
            raise NotRestored(f"claim {order.key} {todo}")
        wanted = _class(session, order.class_name or find.record.was.class_name, find)
        await _require_owner(session, order, find, wanted)
        return archives.claim_body(order.archive, find.record, name=order.claim_name, class_name=wanted.name)


def _annotate(order: Order) -> str:
    """Return the command that asks for an archive on behalf of a claim that exists."""
    return f"kubectl annotate pvc -n {order.namespace} {order.claim_name} {names.RESTORE}={order.archive}"


# ---------------------------------------------------------------------------------------------------- what is there


async def _find(session: Session, order: Order) -> _Found:
    """Find the archive. Raises NotRestored, ExportError."""
    finds = [
        _Found(export.archived[order.archive], export) for export in session.exports if order.archive in export.archived
    ]
    if not finds and session.scope.status == NOTHING:
        raise InvalidSettings("; ".join(session.scope.lines()))
    if not finds:
        raise NotRestored(await _why_not_found(session, order.archive))
    if len(finds) > 1:
        places = " and ".join(find.export.name for find in finds)
        raise NotRestored(f"archive {order.archive} exists on {places}: name one class, and only one export")
    (find,) = finds
    if order.archive not in await find.export.archives():
        raise NotRestored(f"the directory of archive {order.archive} is no longer on export {find.export.name}")
    return find


async def _require_owner(session: Session, order: Order, find: _Found, storage_class: StorageClass) -> None:
    """Raise NotRestored if that namespace and class may not have the archive. Raises ClusterError."""
    namespace = await session.cluster.get_namespace(order.namespace)
    if namespace is None:
        raise NotRestored(f"there is no namespace {order.namespace}")
    tenant = Tenant.of(namespace, accepts_former=classes.parameters_of(storage_class).accepts_former)
    wanted = structs.replace(find.record.was, namespace=order.namespace, cluster=session.cluster_id)
    refusal = archives.not_for(order.archive, find.record, wanted, tenant)
    if refusal is not None:
        raise NotRestored(refusal)


async def _why_not_found(session: Session, archive: str) -> str:
    for export in session.exports:
        if archive in await export.archives():
            return (
                f"archive {archive} on export {export.name} has no record, so its owner is unknown: create a claim, and"
                " copy the data manually"
            )
    unseen = f" Skipped: {', '.join(each.what for each in session.scope.unseen)}" if session.scope.unseen else ""
    return f"there is no archive {archive}; `nfs-provisioner archives` lists all archives.{unseen}"


# ---------------------------------------------------------------------------------------------------- the claim


async def _ask_for(cluster: KubeCluster, session: Session, order: Order, find: _Found) -> tuple[Claim, StorageClass]:
    """Create or annotate the claim, so that it asks for the archive; return it with its class. Raises NotRestored."""
    claim: Claim | None = None
    try:
        claim = await cluster.get_claim(order.namespace, order.claim_name)
        if claim is None:
            wanted = _class(session, order.class_name or find.record.was.class_name, find)
            await _require_owner(session, order, find, wanted)
            body = archives.claim_body(order.archive, find.record, name=order.claim_name, class_name=wanted.name)
            return await cluster.create_claim(order.namespace, body), wanted
        refusal = archives.cannot_have(order.archive, claim)
        if refusal is not None:
            raise NotRestored(f"claim {order.key} {refusal}")
        if order.class_name not in (None, claim.class_name):
            raise NotRestored(f"claim {order.key} exists with StorageClass {claim.class_name}: omit --class")
        wanted = _class(session, claim.class_name, find)
        await _require_owner(session, order, find, wanted)
        return await cluster.annotate_claim(claim, {names.RESTORE: order.archive}), wanted
    except Forbidden as exc:
        raise NotRestored(f"{exc}; {_without_rights(order, exists=claim is not None)}") from exc
    except (AlreadyExists, Conflict) as exc:
        raise NotRestored(f"another client has just changed claim {order.key}: check the claim, and try again") from exc


def _without_rights(order: Order, *, exists: bool) -> str:
    """Return the way for a user whose rights to write claims are elsewhere."""
    if exists:
        return f"as a user with the right to change claims, run: {_annotate(order)}"
    printed = f"nfs-provisioner restore {order.archive} --claim {order.key} -o yaml"
    return f"print the claim, and create it as a user with the right to do so: {printed} | kubectl apply -f -"


def _class(session: Session, name: str, find: _Found) -> StorageClass:
    """Return the class of that name, if its volumes are on the archive's export. Raises NotRestored."""
    fitting = [each for each in session.classes if _is_on(session, each, find.export)]
    for each in fitting:
        if each.name == name:
            return each
    there = any(each.name == name for each in session.classes)
    why = "is not on that export" if there else "does not exist, or belongs to another provisioner"
    choice = ", ".join(sorted(each.name for each in fitting)) or "none: create one"
    raise NotRestored(
        f"the archive is on export {find.export.name}, and StorageClass {name} {why}; classes on it: {choice}"
    )


def _is_on(session: Session, storage_class: StorageClass, export: Export) -> bool:
    """Return True if the volumes of a class are on an export. The session has registered the exports of all classes."""
    try:
        settings = classes.settings_of(storage_class, session.registry.default)
        return settings.export is not None and session.registry.get(settings.export, settings.mount_options) is export
    except (InvalidSettings, ExportError):
        return False


# ---------------------------------------------------------------------------------------------------- waiting


class _Wait:
    """Waits until a claim is bound, and reports the events about it."""

    def __init__(self, cluster: KubeCluster, order: Order, provisioner: str, report: Report) -> None:
        self._cluster = cluster
        self._order = order
        self._provisioner = provisioner
        self._report = report
        self._reported: set[tuple[str, str]] = set()
        self._responded = False
        """Whether the provisioner has written any event about the claim."""
        self._last = ""

    async def bound(self) -> str:
        """Return the name of the claim's volume. Raises NotRestored if it has none in time, or the claim is deleted."""
        try:
            async with asyncio.timeout(self._order.timeout_s):
                return await self._poll()
        except TimeoutError as exc:
            why = self._last if self._responded else self._no_response
            raise NotRestored(
                f"claim {self._order.key} is not bound within {self._order.timeout_s:g} s; {why}."
                " The restore continues in the background; delete the claim to cancel it"
            ) from exc

    @property
    def _no_response(self) -> str:
        return f"no provisioner with the name {self._provisioner} has responded: check that it is running"

    async def _poll(self) -> str:
        loop = asyncio.get_running_loop()
        silent_at_s = loop.time() + _SILENCE_S
        while True:
            try:
                claim = await self._cluster.get_claim(self._order.namespace, self._order.claim_name)
                if claim is None or claim.metadata.deletion_timestamp:
                    raise NotRestored(f"claim {self._order.key} was deleted; its data is kept as an archive")
                for event in await self._cluster.list_events(self._order.namespace, claim.uid):
                    self._report_event(event)
                if claim.status.phase == "Bound":
                    return claim.spec.volume_name
            except ApiUnavailable as exc:
                self._last = str(exc)
            if not self._responded and loop.time() >= silent_at_s:
                self._report(self._no_response)
                silent_at_s = float("inf")
            await asyncio.sleep(_POLL_S)

    def _report_event(self, event: RecordedEvent) -> None:
        if event.by == self._provisioner:
            self._responded = True
            self._last = event.message
        if (event.reason, event.message) not in self._reported:
            self._reported.add((event.reason, event.message))
            self._report(f"{event.reason}: {event.message}")

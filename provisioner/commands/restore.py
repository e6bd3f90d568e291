"""The composition root of `restore`: has an archive's data given to a claim, and waits until the claim has it.

It only writes the claim's annotation, with the rights of whoever runs it; the provisioner does the rest, and judges by
itself once more whether the claim may have the archive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msgspec import structs

from provisioner.commands.session import Survey, surveyed
from provisioner.core import archives, classes, names
from provisioner.core.errors import InvalidSettings, ProvisionerError
from provisioner.core.objects import Claim, StorageClass
from provisioner.core.records import ArchiveRecord
from provisioner.core.scope import NOTHING
from provisioner.core.tenancy import Tenant
from provisioner.kube.claims import Claims, open_claims
from provisioner.kube.events import Told
from provisioner.ledger.export import Export
from provisioner.ports.cluster import AlreadyExists, ApiUnavailable, Conflict
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

_POLL_S = 1.0
_SILENCE_S = 15.0
"""A provisioner that runs has said something of a claim by then."""

Tell = Callable[[str], None]


class NotRestored(ProvisionerError):
    """The claim does not have the archive's data; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Which archive is to go to which claim; the class is for a claim that has to be made."""

    archive: str
    namespace: str
    claim: str
    class_name: str | None
    timeout_s: float

    @property
    def key(self) -> str:
        """The claim as people write it."""
        return f"{self.namespace}/{self.claim}"


@dataclass(frozen=True, slots=True)
class _Find:
    """An archive, and where it is."""

    record: ArchiveRecord
    export: Export


async def restore(settings: Settings, order: Order, tell: Tell) -> None:
    """Give an archive to a claim, which is made where there is none, and wait until it has it.

    `tell` hears what happens meanwhile. Raises NotRestored, ClusterError, ExportError, InvalidSettings.
    """
    async with _rooms(settings) as (survey, claims):
        for line in survey.scope.lines() if survey.scope.status != NOTHING else ():
            tell(line)
        find = await _find(survey, order)
        claim, storage_class = await _ask_for(survey, claims, order, find)
        unscheduled = not any(claim.metadata.annotations.get(key) for key in names.SELECTED_NODE_ANNOTATIONS)
        if storage_class.volume_binding_mode == "WaitForFirstConsumer" and unscheduled:
            why = f"as StorageClass {storage_class.name} says"
            tell(f"claim {order.key} gets the data when its first pod is scheduled, {why}")
            return
        volume = await _Wait(survey, claims, order, settings.provisioner, tell).bound()
        record = await find.export.reread(volume)
        if record is None or record.archive != order.archive:
            raise NotRestored(
                f"claim {order.key} was given the new volume {volume} before its annotation was seen, and archive"
                f" {order.archive} is where it was: delete the claim, and try again"
            )
        tell(f"claim {order.key} has the data of archive {order.archive} as volume {volume}")


@asynccontextmanager
async def _rooms(settings: Settings) -> AsyncIterator[tuple[Survey, Claims]]:
    async with open_claims(settings.kubeconfig) as claims, surveyed(settings) as survey:
        yield survey, claims


# ---------------------------------------------------------------------------------------------------- what is there


async def _find(survey: Survey, order: Order) -> _Find:
    """The archive that is meant. Raises NotRestored, ExportError."""
    finds = [
        _Find(export.archived[order.archive], export) for export in survey.exports if order.archive in export.archived
    ]
    if not finds and survey.scope.status == NOTHING:
        raise InvalidSettings("; ".join(survey.scope.lines()))
    if not finds:
        raise NotRestored(await _why_not_found(survey, order.archive))
    if len(finds) > 1:
        places = " and ".join(find.export.name for find in finds)
        raise NotRestored(f"there is an archive {order.archive} on {places}: name one class, and one export, only")
    (find,) = finds
    if order.archive not in await find.export.archives():
        raise NotRestored(f"the directory of archive {order.archive} is not on export {find.export.name} any more")
    return find


async def _require_owner(survey: Survey, order: Order, find: _Find, storage_class: StorageClass) -> None:
    """Raise NotRestored where the archive does not go to that namespace by that class. Raises ClusterError."""
    namespace = await survey.cluster.get_namespace(order.namespace)
    if namespace is None:
        raise NotRestored(f"there is no namespace {order.namespace}")
    tenant = Tenant.of(namespace, accepts_former=classes.parameters_of(storage_class).accepts_former)
    wanted = structs.replace(find.record.was, namespace=order.namespace, cluster=survey.cluster_id)
    refusal = archives.not_for(order.archive, find.record, wanted, tenant)
    if refusal is not None:
        raise NotRestored(refusal)


async def _why_not_found(survey: Survey, archive: str) -> str:
    for export in survey.exports:
        if archive in await export.archives():
            return (
                f"archive {archive} on export {export.name} has no record, so nothing says whose data it is: make a"
                " claim, and copy what is in it by hand"
            )
    unseen = f" Skipped: {', '.join(each.what for each in survey.scope.unseen)}" if survey.scope.unseen else ""
    return f"there is no archive {archive}; `nfs-provisioner archives` lists those that there are.{unseen}"


# ---------------------------------------------------------------------------------------------------- the claim


async def _ask_for(survey: Survey, claims: Claims, order: Order, find: _Find) -> tuple[Claim, StorageClass]:
    """Have a claim that asks for the archive, and its class. Raises NotRestored."""
    try:
        claim = await survey.cluster.get_claim(order.namespace, order.claim)
        if claim is None:
            wanted = _class(survey, order.class_name or find.record.was.class_name, find)
            await _require_owner(survey, order, find, wanted)
            body = archives.claim_body(order.archive, find.record, name=order.claim, class_name=wanted.name)
            return await claims.create(body, namespace=order.namespace), wanted
        refusal = archives.cannot_have(order.archive, claim)
        if refusal is not None:
            raise NotRestored(f"claim {order.key} {refusal}")
        if order.class_name not in (None, claim.class_name):
            raise NotRestored(f"claim {order.key} is there, and of StorageClass {claim.class_name}: leave out --class")
        wanted = _class(survey, claim.class_name, find)
        await _require_owner(survey, order, find, wanted)
        return await claims.annotate(claim, {names.RESTORE: order.archive}), wanted
    except (AlreadyExists, Conflict) as exc:
        raise NotRestored(f"somebody else has just changed claim {order.key}: look at it, and try again") from exc


def _class(survey: Survey, name: str, find: _Find) -> StorageClass:
    """The class of that name, when its volumes lie on the archive's export. Raises NotRestored."""
    fitting = [each for each in survey.classes if _lies_on(survey, each, find.export)]
    for each in fitting:
        if each.name == name:
            return each
    there = any(each.name == name for each in survey.classes)
    why = "is not on that export" if there else "does not exist, or is another provisioner's"
    choice = ", ".join(sorted(each.name for each in fitting)) or "none: make one"
    raise NotRestored(
        f"the archive is on export {find.export.name}, and StorageClass {name} {why}; classes on it: {choice}"
    )


def _lies_on(survey: Survey, storage_class: StorageClass, export: Export) -> bool:
    try:
        settings = classes.settings_of(storage_class, survey.served.default)
        return settings.export is not None and survey.served.get(settings.export, settings.mount_options) is export
    except (InvalidSettings, ExportError):
        return False


# ---------------------------------------------------------------------------------------------------- waiting


class _Wait:
    """Waits until a claim is bound, and tells what is said of it meanwhile."""

    def __init__(self, survey: Survey, claims: Claims, order: Order, provisioner: str, tell: Tell) -> None:
        self._cluster = survey.cluster
        self._claims = claims
        self._order = order
        self._provisioner = provisioner
        self._tell = tell
        self._told: set[tuple[str, str]] = set()
        self._heard = False
        """Whether the provisioner has said anything."""
        self._last = ""

    async def bound(self) -> str:
        """The name of the claim's volume. Raises NotRestored when it has none in time, or the claim goes."""
        try:
            async with asyncio.timeout(self._order.timeout_s):
                return await self._poll()
        except TimeoutError as exc:
            why = self._last if self._heard else self._silence
            text = f"claim {self._order.key} is not bound within {self._order.timeout_s:g} s; {why}"
            raise NotRestored(f"{text}. It goes on asking for the archive until it is deleted") from exc

    @property
    def _silence(self) -> str:
        return f"no provisioner seems to run under the name {self._provisioner}: nothing was heard of it"

    async def _poll(self) -> str:
        loop = asyncio.get_running_loop()
        silent_at_s = loop.time() + _SILENCE_S
        while True:
            try:
                claim = await self._cluster.get_claim(self._order.namespace, self._order.claim)
                if claim is None or claim.metadata.deletion_timestamp:
                    raise NotRestored(f"claim {self._order.key} was deleted; the archive is kept, or becomes one again")
                for event in await self._claims.events(claim):
                    self._pass_on(event)
                if claim.status.phase == "Bound":
                    return claim.spec.volume_name
            except ApiUnavailable as exc:
                self._last = str(exc)
            if not self._heard and loop.time() >= silent_at_s:
                self._tell(self._silence)
                silent_at_s = float("inf")
            await asyncio.sleep(_POLL_S)

    def _pass_on(self, event: Told) -> None:
        if event.by == self._provisioner:
            self._heard = True
            self._last = event.message
        if (event.reason, event.message) not in self._told:
            self._told.add((event.reason, event.message))
            self._tell(f"{event.reason}: {event.message}")

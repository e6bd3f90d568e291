"""Archives: when one may go, which claim may have one back, and how they are listed.

No single clock is trusted with the only copy of somebody's data. An archive's time is the latest that any clock gives,
and it is over only when all of them say so, that of the API server among them: one clock that is wrong, or is set while
we run or between two starts, keeps an archive longer, and never shorter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from msgspec import Struct, structs

from provisioner.core import names, times
from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidSettings
from provisioner.core.objects import Claim
from provisioner.core.records import ArchiveRecord, Record, milder
from provisioner.core.tenancy import Tenant

PROMPT_S = 3.0
"""An answer that took longer does not count for the API server's time: nobody knows when within that it was written."""
_UNCERTAINTY = timedelta(seconds=2.0 + PROMPT_S)
"""By how much two readings of right clocks may differ: both are cut to whole seconds, and one has been on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the clocks say at one time; each of them may be wrong."""

    wall: datetime
    """Ours, which may be set while we run."""
    steady: datetime
    """Ours as it was when the process started, and the seconds since."""
    server: datetime | None
    """The API server's, where it has told."""

    @property
    def latest(self) -> datetime:
        """What an archive is stamped with: no clock can say later that it has been one for longer than it has."""
        return max(self.wall, self.steady, self.server or self.wall)

    @property
    def earliest(self) -> datetime | None:
        """What an archive is due by; None where the API server has not told its time."""
        return None if self.server is None else min(self.wall, self.steady, self.server)


def kept_until(record: ArchiveRecord) -> datetime | None:
    """When the archive's time is over; None is never, which a record that cannot be read so comes to as well."""
    since = times.parse(record.archived)
    if since is None or not record.was.retention:
        return None
    try:
        return since + timedelta(seconds=parse_s(record.was.retention))
    except (InvalidSettings, OverflowError):
        return None


def due_in_s(record: ArchiveRecord, moment: Moment) -> float | None:
    """The seconds until the archive may go, 0 or less when it may; None where that is not known, or never."""
    until, now = kept_until(record), moment.earliest
    if until is None or now is None:
        return None
    return (until - now + _UNCERTAINTY).total_seconds()


def is_due(record: ArchiveRecord, moment: Moment) -> bool:
    """Whether the archive may go."""
    left_s = due_in_s(record, moment)
    return left_s is not None and left_s <= 0


def not_for(archive: str, record: ArchiveRecord, wanted: Record, tenant: Tenant) -> str | None:
    """Why an archive does not go to the claim whose record names it, in words for an event; None where it does."""
    if record.was.cluster != wanted.cluster:
        return f"archive {archive!r} is of another cluster that shares the export: a claim there can have it back"
    if record.was.namespace != wanted.namespace:
        return (
            f"archive {archive!r} is not of namespace {wanted.namespace}: an archive goes back only to the namespace"
            " that it came from"
        )
    if not tenant.owns(record.was):
        return (
            f"archive {archive!r} cannot be restored: {tenant.why_not(wanted.namespace)}. An admin can let this"
            " namespace have it by a class with formerNamespace: accept"
        )
    return None


def restored(wanted: Record, archive: ArchiveRecord) -> Record:
    """The record of a claim that gets an archive: the milder rule of the two, and the longer time for an archive.

    An archive protects from whoever may delete claims. It must not be lost by way of a class that deletes, or that
    keeps archives for a minute. It counts as `archive` at least, whatever rule its volume's own record had.
    """
    on_delete = milder(wanted.on_delete, milder(archive.was.on_delete, "archive"))
    retention = max(wanted.retention, archive.was.retention, key=_length)
    return structs.replace(wanted, on_delete=on_delete, retention=retention)


def _length(retention: str) -> float:
    """Seconds; one that is not set, or that cannot be read, is for ever."""
    try:
        return parse_s(retention) if retention else inf
    except InvalidSettings:
        return inf


def cannot_have(archive: str, claim: Claim) -> str | None:
    """Why a claim that is there already cannot be given an archive; None where its annotation may say so."""
    asked = claim.metadata.annotations.get(names.RESTORE, archive)
    if claim.metadata.deletion_timestamp:
        return "is being deleted"
    if claim.spec.volume_name or claim.status.phase != "Pending":
        return "has a volume already: an archive goes to a new claim"
    if claim.spec.data_source or claim.spec.data_source_ref:
        return "has a dataSource, which says where else its data comes from"
    return None if asked == archive else f"is to get archive {asked!r}"


def claim_body(archive: str, record: ArchiveRecord, *, name: str, class_name: str) -> dict[str, object]:
    """A claim that gets an archive's data, of the size and with the access modes that it had."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"namespace": record.was.namespace, "name": name, "annotations": {names.RESTORE: archive}},
        "spec": {
            "storageClassName": class_name,
            "accessModes": record.was.access_modes or ["ReadWriteMany"],
            "resources": {"requests": {"storage": record.was.capacity}},
        },
    }


class ArchiveRow(Struct, frozen=True):
    """One archive, in the order in which a table shows it; one without a record has no more than name and export."""

    archive: str
    export: str
    namespace: str = ""
    claim: str = ""
    storage_class: str = ""
    capacity: str = ""
    """What its claim had asked for."""
    archived: str = ""
    """UTC, RFC 3339."""
    kept_until: str = ""
    """UTC, RFC 3339; empty is for ever."""
    directory: str = ""
    """Where it was, relative to the export."""
    volume: str = ""
    restorable: bool = False
    """Whether a claim of its namespace, in this cluster, can have it back."""
    why_not: str = ""


def listed(archive: str, record: ArchiveRecord | None, *, export: str, cluster: str) -> ArchiveRow:
    """An archive's fields as they are listed, for people of one cluster."""
    if record is None:
        return ArchiveRow(archive, export, why_not="no record")
    until, ours = kept_until(record), record.was.cluster == cluster
    return ArchiveRow(
        archive=archive,
        export=export,
        namespace=record.was.namespace,
        claim=record.was.claim,
        storage_class=record.was.class_name,
        capacity=record.was.capacity,
        archived=record.archived,
        kept_until="" if until is None else times.text(until),
        directory=record.was.directory,
        volume=record.volume,
        restorable=ours,
        why_not="" if ours else "another cluster's",
    )


def in_order(archives: Iterable[ArchiveRow]) -> list[ArchiveRow]:
    """By namespace and claim, the youngest of each first; those without a record last."""
    youngest_first = sorted(archives, key=lambda each: (each.archived, each.archive), reverse=True)
    return sorted(youngest_first, key=lambda each: (not each.volume, each.namespace, each.claim))

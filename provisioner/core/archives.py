"""Archives: when one expires, which claim can restore one, and how they are listed.

No single clock decides about what may be the only copy of data. An archive is stamped with the latest time of all
clocks, and expires only when all clocks say so, the API server's among them. So a clock that is wrong, or that is set
while the daemon runs or between two starts, keeps an archive longer, and never shorter.
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
"""A slower answer does not count for the API server's time: it is unknown when in this time it was written."""
_UNCERTAINTY = timedelta(seconds=2.0 + PROMPT_S)
"""How far two correct clocks can differ: both are cut to whole seconds, and one answer was in transit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The readings of all clocks at one moment; each of them can be wrong."""

    wall: datetime
    """The daemon's wall clock, which can be set while it runs."""
    steady: datetime
    """The wall clock at the start of the process, plus the seconds since then."""
    server: datetime | None
    """The API server's clock, if it is known."""

    @property
    def latest(self) -> datetime:
        """The stamp for an archive: no clock can make it look older than it is."""
        return max(self.wall, self.steady, self.server or self.wall)

    @property
    def earliest(self) -> datetime | None:
        """The time by which expiry is judged; None if the API server's time is not known."""
        return None if self.server is None else min(self.wall, self.steady, self.server)


def kept_until(record: ArchiveRecord) -> datetime | None:
    """Return when an archive expires.

    None means never, also if the record's times cannot be read.
    """
    return end_of(record.archived, record.was.retention)


def end_of(since_text: str, retention: str) -> datetime | None:
    """Return when a retention ends that began at a time; None for never, also if either text cannot be read."""
    since = times.parse(since_text)
    if since is None or not retention:
        return None
    try:
        return since + timedelta(seconds=parse_s(retention))
    except (InvalidSettings, OverflowError):
        return None


def due_in_s(record: ArchiveRecord, moment: Moment) -> float | None:
    """Return the seconds until an archive expires, 0 or less if it has.

    Return None if this is unknown, or never.
    """
    return _left_s(kept_until(record), moment)


def _left_s(until: datetime | None, moment: Moment) -> float | None:
    now = moment.earliest
    return None if until is None or now is None else (until - now + _UNCERTAINTY).total_seconds()


def is_over(until: datetime | None, moment: Moment) -> bool:
    """Return True if all clocks say that a time is over; None stands for never."""
    left_s = _left_s(until, moment)
    return left_s is not None and left_s <= 0


def is_due(record: ArchiveRecord, moment: Moment) -> bool:
    """Return True if the archive has expired."""
    return is_over(kept_until(record), moment)


def not_for(archive: str, record: ArchiveRecord, wanted: Record, tenant: Tenant) -> str | None:
    """Return why an archive cannot be restored for the claim whose record names it.

    Return None if it can.
    """
    if record.was.cluster != wanted.cluster:
        return f"archive {archive!r} belongs to another cluster that shares the export: restore it in that cluster"
    if record.was.namespace != wanted.namespace:
        return (
            f"archive {archive!r} is not of namespace {wanted.namespace}: restore it in the namespace that it came from"
        )
    if not tenant.owns(record.was):
        return (
            f"archive {archive!r} cannot be restored: {tenant.why_not(wanted.namespace)}. An admin can allow it"
            " for this namespace with a class that has formerNamespace: accept"
        )
    return None


def restored(wanted: Record, archive: ArchiveRecord) -> Record:
    """Return the record of a claim that gets an archive: with the milder of both rules and the longer retention.

    An archive protects data from users who can delete claims. Restoring it into a class that deletes, or that keeps
    archives for a minute, must not lose it. Its rule counts as `archive` at least, whatever its volume's record had.
    The group is that of the data.
    """
    on_delete = milder(wanted.on_delete, milder(archive.was.on_delete, "archive"))
    retention = max(wanted.retention, archive.was.retention, key=_length)
    return structs.replace(wanted, on_delete=on_delete, retention=retention, gid=archive.was.gid)


def _length(retention: str) -> float:
    """Return the retention in seconds; infinite if it is not set or cannot be read."""
    try:
        return parse_s(retention) if retention else inf
    except InvalidSettings:
        return inf


def cannot_have(archive: str, claim: Claim) -> str | None:
    """Return why an existing claim cannot get an archive; None if its annotation can be set."""
    asked = claim.metadata.annotations.get(names.RESTORE, archive)
    if claim.metadata.deletion_timestamp:
        return "is being deleted"
    if claim.spec.volume_name or claim.status.phase != "Pending":
        return "already has a volume: restore the archive into a new claim"
    if claim.spec.data_source or claim.spec.data_source_ref:
        return "has a dataSource, which names another source for its data"
    return None if asked == archive else f"already asks for archive {asked!r}"


def claim_body(archive: str, record: ArchiveRecord, *, name: str, class_name: str) -> dict[str, object]:
    """Return a claim for an archive's data, with the size and the access modes of the archived volume."""
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
    """One archive; the fields are the columns of the table. Without a record it only has a name and an export."""

    archive: str
    export: str
    namespace: str = ""
    claim: str = ""
    storage_class: str = ""
    capacity: str = ""
    """The size that its claim requested."""
    archived: str = ""
    """UTC, RFC 3339."""
    kept_until: str = ""
    """UTC, RFC 3339; empty if it never expires."""
    directory: str = ""
    """Its former directory, relative to the export."""
    volume: str = ""
    restorable: bool = False
    """Whether a claim of its namespace, in this cluster, can restore it."""
    why_not: str = ""


def listed(archive: str, record: ArchiveRecord | None, *, export: str, cluster: str) -> ArchiveRow:
    """Return the row of an archive, as seen from one cluster."""
    if record is None:
        return ArchiveRow(archive, export, why_not="no record")
    if not record.was.claim:
        return ArchiveRow(
            archive, export, archived=record.archived, directory=record.was.directory, why_not="of no claim"
        )
    until, is_own = kept_until(record), record.was.cluster == cluster
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
        restorable=is_own,
        why_not="" if is_own else "another cluster's",
    )


def in_order(archives: Iterable[ArchiveRow]) -> list[ArchiveRow]:
    """Sort by namespace and claim, the newest of each first; archives without a record last."""
    youngest_first = sorted(archives, key=lambda each: (each.archived, each.archive), reverse=True)
    return sorted(youngest_first, key=lambda each: (not each.volume, each.namespace, each.claim))

"""Which volumes of a lost cluster can be recreated from the ledgers of exports, and how: `recover`.

The record comes first here, too: it becomes one of this cluster before the PersistentVolume is created, and names no
object until the volume's uid is known. A record of this cluster in that state is an interrupted recovery; the next run
resumes it. Each rule returns why a volume is not recreated, or nothing; the first reason counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from msgspec import structs

from provisioner.core import identity, manifests, tenancy
from provisioner.core.directories import DirectoryIndex
from provisioner.core.errors import InvalidSettings
from provisioner.core.groups import gid_of
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, ClaimRef, NfsSource, Volume
from provisioner.core.orphans import is_silent
from provisioner.core.records import NO_OBJECT, ArchiveRecord, OnDelete, Record, SnapshotRecord, quota_of, short_modes
from provisioner.core.scope import count

GONE_FLAG = "--old-cluster-is-gone"
"""The flag with which an admin confirms it: the command itself cannot find out."""
Contents = Literal["gone", "empty", "data"]
"""The state of a directory."""

ALL_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany")
"""For a record without access modes: NFS supports all of these."""
_RETAINED = "its claim was deleted {}, and its directory was retained; name it with --volume {} to recover it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An export, as far as its volumes depend on it."""

    name: str
    """The name that is displayed."""
    location: Location
    id: str
    locations: tuple[Location, ...] = ()
    """All of its locations, if it has more than that one."""
    folds: bool = False
    """Whether its server treats names as equal that differ in case or in Unicode normal form."""

    def has(self, source: NfsSource, path: RelPath) -> bool:
        """Return True if a volume's source is this directory of the export, by any of its locations."""
        return any(each.relative(source.server, source.path) == path for each in self.all_locations)

    @property
    def all_locations(self) -> tuple[Location, ...]:
        """All locations that lead to the export."""
        return self.locations or (self.location,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What an export still has of one volume: its record and its directory."""

    place: Place
    volume: str
    record: Record
    pending: bool
    contents: Contents
    trouble: str = ""
    """Why its directory cannot be read."""

    @property
    def key(self) -> str:
        """Return its claim as `namespace/name`."""
        return f"{self.record.namespace}/{self.record.claim}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRemains:
    """What an export still has of one archive."""

    place: Place
    archive: str
    record: ArchiveRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The cluster in which volumes are recreated. Its id is empty if it was not read."""

    provisioner: str
    cluster: str = ""
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    """By name."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By `namespace/name`."""
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """The uids of namespaces, by name. For a missing or unread one, the next namespace of that name counts."""

    def namespace_uid(self, name: str) -> str:
        """Return the namespace uid for a recovered record: with the recovery, an admin gives it to this namespace."""
        return self.namespaces.get(name, tenancy.ANY)


@dataclass(frozen=True, slots=True)
class Make:
    """Write this record, then create this volume."""

    record: Record
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Enter:
    """Write this record and create no volume.

    An existing volume must not have changed since.
    """

    record: Record
    why: str
    volume: Volume | None = None
    """The volume that the record is for, as it was read."""


@dataclass(frozen=True, slots=True)
class Bring:
    """Write this record, then rename the archive or the trash entry to the volume's directory."""

    record: Record
    volume: Volume
    """As it was read: it must not have changed since."""
    archive: str = ""
    trash: str = ""
    """Either this or `archive` is set."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave the volume as it is."""

    why: str


Action = Make | Enter | Bring | Skip


@dataclass(frozen=True, slots=True)
class Step:
    """One volume, and what to do about it."""

    remains: Remains
    action: Action


def settled_record(
    volume: Volume, path: RelPath, *, cluster: str, on_delete: OnDelete, created: str, retention: str = ""
) -> Record:
    """Return the settled record of a volume that has a claimRef, from the volume itself.

    `path` is below its export.
    """
    reference = volume.spec.claim_ref or ClaimRef()
    return Record(
        directory="/".join(path),
        namespace=reference.namespace,
        claim=reference.name,
        claim_uid=reference.uid,
        class_name=volume.spec.storage_class_name,
        on_delete=on_delete,
        capacity=volume.capacity,
        created=created,
        cluster=cluster,
        modes=short_modes(volume.spec.access_modes),
        mount_options=",".join(volume.spec.mount_options),
        retention=retention,
        volume_uid=volume.metadata.uid,
        gid=gid_of(volume.metadata.annotations),
        quota=quota_of(volume.metadata.annotations),
    )


# ---------------------------------------------------------------------------------------------------- which cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Another cluster of which there are records."""

    cluster: str
    volumes: int
    archives: int
    snapshots: int
    signed: str
    """When its provisioner was last at work on one of the exports: UTC, RFC 3339; empty if unknown."""

    def __str__(self) -> str:
        """Return it as text."""
        signed = f"last seen {self.signed}" if self.signed else "never seen"
        found = f"{count(self.volumes, 'volume')}, {count(self.archives, 'archive')}"
        found += f", {count(self.snapshots, 'snapshot')}" if self.snapshots else ""
        return f"{self.cluster or '(without an id)'}: {found}, {signed}"

    def is_alive(self, now: datetime) -> bool:
        """Return True if its provisioner was at work in the last minutes.

        A clock that is ahead counts as now.
        """
        return not is_silent(self.signed, now)

    def is_at_work(self) -> str:
        """Return the refusal for a cluster that seems to be alive."""
        return (
            f"a provisioner of cluster {self.cluster} was at work on these exports at {self.signed}, minutes ago. Two"
            " clusters must never use the same directories: each would delete, archive and hand out those of the other."
            f" Stop that provisioner first; if its cluster is gone for good, add {GONE_FLAG}"
        )


def lost_clusters(
    found: Iterable[Remains],
    archives: Iterable[ArchiveRemains],
    signs: Iterable[Mapping[str, str]],
    *,
    this: str,
    snapshots: Iterable[SnapshotRecord] = (),
) -> list[Lost]:
    """Return the clusters of these records, without this one."""
    signed: dict[str, str] = {}
    for each in signs:
        for cluster, at in each.items():
            signed[cluster] = max(at, signed.get(cluster, ""))
    volumes = Counter(each.record.cluster for each in found)
    archived = Counter(each.record.was.cluster for each in archives)
    taken = Counter(each.cluster for each in snapshots)
    return [
        Lost(
            cluster=cluster,
            volumes=volumes[cluster],
            archives=archived[cluster],
            snapshots=taken[cluster],
            signed=signed.get(cluster, ""),
        )
        for cluster in sorted({*volumes, *archived, *taken} - {this})
    ]


def choose(lost: Sequence[Lost], wanted: str | None, *, this: str) -> Lost | None:
    """Return the cluster whose volumes are recovered.

    Return None if there is no other cluster. Raises InvalidSettings.
    """
    known = "; ".join(map(str, lost))
    if wanted is not None:
        chosen = next((each for each in lost if each.cluster == wanted), None)
        if wanted and wanted == this:
            raise InvalidSettings(f"--cluster {wanted} is this cluster itself: name single volumes of it with --volume")
        if chosen is None:
            raise InvalidSettings(
                f"--cluster {wanted}: no export has a record of it; known clusters: {known or 'none'}"
            )
        return chosen
    if len(lost) > 1:
        raise InvalidSettings(f"the exports have records of several other clusters, choose one with --cluster: {known}")
    return lost[0] if lost else None


# ---------------------------------------------------------------------------------------------------- which volumes


def selected(
    found: Iterable[Remains], present: Present, *, lost: str | None, named: Collection[str] = ()
) -> list[Remains]:
    """Return the records of a lost cluster, and those of this cluster whose recovery was interrupted.

    With `named`, only these volumes are returned, and any of this cluster among them: volumes that were deleted
    manually.
    """

    def is_selected(each: Remains) -> bool:
        if named and each.volume not in named:
            return False
        if not present.cluster or each.record.cluster != present.cluster:
            return each.record.cluster == lost
        return bool(named) or (_is_interrupted(each, present) and not each.pending)

    return [each for each in found if is_selected(each)]


def _is_interrupted(each: Remains, present: Present) -> bool:
    """Return True if a recovery of this cluster wrote only the record.

    Older versions left no mark in it.
    """
    record = each.record
    unmarked = not record.claim_uid and each.volume not in present.volumes
    return not record.retained and (record.volume_uid == NO_OBJECT or unmarked)


def plan(found: Iterable[Remains], present: Present, *, by_name: bool) -> list[Step]:
    """Decide what to do about each, in the order of their claims.

    `by_name` says that an admin named each of them.
    """
    taken = Taken.by(present.volumes.values())
    steps = []
    # Newest first: of two volumes for one claim, the newer one is the one that the claim had last.
    for each in sorted(found, key=lambda each: (each.record.created, each.volume), reverse=True):
        action = _decide(each, present, taken, by_name=by_name)
        if isinstance(action, Make):
            taken.add(each)
        if action is not None:
            steps.append(Step(each, action))
    return sorted(steps, key=lambda step: (step.remains.key, step.remains.volume))


@dataclass(slots=True)
class Taken:
    """The directories and claims that are no longer available for a volume.

    Also used by `adopt`.
    """

    directories: DirectoryIndex = field(default_factory=DirectoryIndex)
    claims: dict[str, str] = field(default_factory=dict)
    """By `namespace/name` of a claim: the volume that is for it."""
    made: set[str] = field(default_factory=set)

    @classmethod
    def by(cls, volumes: Iterable[Volume]) -> Taken:
        """Return the directories and claims of existing volumes, of any provisioner."""
        taken = cls()
        for volume in volumes:
            if volume.source is not None:
                taken.directories.add(volume.source.server, volume.source.path, volume.name)
            reference = volume.spec.claim_ref
            if reference is not None and volume.status.phase not in ("Released", "Failed"):
                taken.claims[f"{reference.namespace}/{reference.name}"] = volume.name
        return taken

    def add(self, each: Remains) -> None:
        """Add the directory and the claim of a volume that is about to be created."""
        location = each.place.location
        self.directories.add(location.server, location.below(each.record.path), each.volume)
        self.claims[each.key] = each.volume
        self.made.add(each.volume)

    def holder(self, each: Remains) -> str | None:
        """Return the volume that has the directory, or one above or below it, but not the whole export."""
        place = each.place
        return self.directories.holder(
            place.all_locations, each.record.path, folds=place.folds, other_than=(each.volume,)
        )


def _decide(each: Remains, present: Present, taken: Taken, *, by_name: bool) -> Action | None:
    """Decide what to do with one record, or return None if it needs no entry in the report."""
    record = each.record
    if record.retained and not by_name:
        return Enter(_own_record(record, present), _RETAINED.format(record.retained, each.volume))
    if each.pending and each.contents != "data":
        return Skip("it never had a volume, and its directory has no data") if by_name else None
    existing = present.volumes.get(each.volume)
    if existing is not None:
        return _existing(each, existing, present, by_name=by_name)
    claim = present.claims.get(each.key)
    reasons = (
        each.trouble,
        "its directory is gone" if each.contents == "gone" else "",
        _left(each, by_name=by_name),
        _directory_taken(each, taken),
        _claim_has(each, claim),
        _claim_taken(each, taken),
    )
    reason = next(filter(None, reasons), "")
    return Skip(reason) if reason else _make(each, present, claim)


def _own_record(record: Record, present: Present) -> Record:
    """Return a record as one of this cluster."""
    return structs.replace(record, cluster=present.cluster, namespace_uid=present.namespace_uid(record.namespace))


def _existing(each: Remains, existing: Volume, present: Present, *, by_name: bool) -> Action:
    """Decide what to do if the volume exists: its record can become one for this object."""
    record, source, reference = each.record, existing.spec.nfs, existing.spec.claim_ref
    same_place = source is not None and each.place.has(source, record.path)
    same_claim = reference is not None and f"{reference.namespace}/{reference.name}" == each.key
    rebound = by_name and _is_rebound(each, existing, present)
    if not same_place or reference is None or not (same_claim or rebound):
        return Skip("another volume of that name exists, of another directory or claim")
    known = record.cluster == present.cluster and identity.is_for(record, reference)
    if known and record.volume_uid == existing.metadata.uid:
        return Skip("the volume already exists")
    if existing.spec.persistent_volume_reclaim_policy == "Delete" and not has_claim(reference, present):
        return Skip(WOULD_GO.format(existing.name))
    recovered = structs.replace(
        record,
        cluster=present.cluster,
        namespace=reference.namespace,
        claim=reference.name,
        claim_uid=reference.uid,
        namespace_uid=present.namespace_uid(reference.namespace),
        volume_uid=existing.metadata.uid,
        retained="",
    )
    return Enter(recovered, "the volume already exists, but the ledger does not have this object of it", existing)


WOULD_GO = (
    "the volume exists without its claim, and with its reclaim policy Delete its directory would be reclaimed:"
    """ run `kubectl patch pv {} -p '{{"spec":{{"persistentVolumeReclaimPolicy":"Retain"}}}}'` first"""
)


def _is_rebound(each: Remains, existing: Volume, present: Present) -> bool:
    """Return True if another claim has the volume, by an unseen binding, and the recorded claim is gone."""
    reference = existing.spec.claim_ref
    claim = present.claims.get(f"{reference.namespace}/{reference.name}") if reference is not None else None
    if reference is None or claim is None or (claim.uid, claim.spec.volume_name) != (reference.uid, existing.name):
        return False
    former = present.claims.get(each.key)
    return former is None or former.uid != each.record.claim_uid


def has_claim(reference: ClaimRef, present: Present) -> bool:
    """Return True if the claim that a volume names exists, or if the next one of its name will be bound to it."""
    claim = present.claims.get(f"{reference.namespace}/{reference.name}")
    return not reference.uid or (claim is not None and claim.uid == reference.uid)


def _left(each: Remains, *, by_name: bool) -> str:
    if not each.pending or by_name:
        return ""
    return f"left: it never had a volume, but its directory has data; name it with --volume {each.volume} to recover it"


def _directory_taken(each: Remains, taken: Taken) -> str:
    holder = taken.holder(each)
    return f"its directory overlaps with that of volume {holder}" if holder else ""


def _claim_has(each: Remains, claim: Claim | None) -> str:
    if claim is None or claim.spec.volume_name in ("", each.volume):
        return ""
    return f"its claim already has volume {claim.spec.volume_name}: delete that claim, unless its data is needed"


def _claim_taken(each: Remains, taken: Taken) -> str:
    other = taken.claims.get(each.key)
    if other in taken.made:
        return f"volume {other} is of the same claim, and newer; name this one with --volume to recover it instead"
    return f"volume {other} already exists for its claim" if other else ""


def _make(each: Remains, present: Present, claim: Claim | None) -> Make:
    record, place = each.record, each.place
    # If only the volume was deleted manually, its claim still exists: only a claimRef with its uid binds it again.
    uid = record.claim_uid if claim is not None and claim.uid == record.claim_uid else ""
    # An object of that name that appears from elsewhere, for example from a backup, must not become the record's.
    recovered = structs.replace(_own_record(record, present), claim_uid=uid, retained="", volume_uid=NO_OBJECT)
    body = manifests.volume(
        each.volume,
        provisioner=present.provisioner,
        export=place.location,
        export_id=place.id,
        directory=record.path,
        on_delete=record.on_delete,
        capacity=record.capacity,
        access_modes=record.access_modes or ALL_MODES,
        mount_options=[option for option in record.mount_options.split(",") if option],
        class_name=record.class_name,
        reclaim_policy="Retain",
        claim_ref={"namespace": record.namespace, "name": record.claim} | ({"uid": uid} if uid else {}),
        gid=record.gid,
        quota=record.quota,
    )
    return Make(recovered, body)


def plan_archives(archives: Iterable[ArchiveRemains], present: Present, *, lost: str | None) -> list[ArchiveRemains]:
    """Return the archives of a lost cluster, each with the record with which this cluster can restore it."""
    return [
        ArchiveRemains(
            place=each.place,
            archive=each.archive,
            record=structs.replace(each.record, was=_own_record(each.record.was, present)),
        )
        for each in archives
        if each.record.was.cluster == lost and lost != present.cluster
    ]

"""Which volumes of a lost cluster can be made anew from the ledgers of exports, and how: `recover`.

The record comes first here too: it becomes one of this cluster's before the PersistentVolume is made, and is for no
object until the volume's uid is known. A record of this cluster in that state is a recovery that was cut off, and the
next one goes on with it. Each rule says why a volume is not made, or nothing; the first one to speak wins.
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
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, ClaimRef, NfsSource, Volume
from provisioner.core.orphans import is_silent
from provisioner.core.records import NO_OBJECT, ArchiveRecord, OnDelete, Record, short_modes
from provisioner.core.scope import count

GONE_FLAG = "--old-cluster-is-gone"
"""The flag by which a person says so: nothing that can be seen from here does."""
Contents = Literal["gone", "empty", "data"]
"""What there is of a directory."""

ALL_MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany")
"""For a record that does not say: NFS can do all of these."""
_RETAINED = "its claim was deleted {}, and its directory was to stay; name it with --volume {} to have it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An export, as far as a volume on it depends on it."""

    name: str
    """What people call it."""
    location: Location
    id: str
    locations: tuple[Location, ...] = ()
    """All of its locations where it has more than that one."""
    folds: bool = False
    """Whether its server takes names for one that differ in case, or in their normal form."""

    def has(self, source: NfsSource, path: RelPath) -> bool:
        """Whether a volume's source is this directory of the export, by any of its locations."""
        return any(each.relative(source.server, source.path) == path for each in self.all_locations)

    @property
    def all_locations(self) -> tuple[Location, ...]:
        """All locations that lead to the export."""
        return self.locations or (self.location,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What an export still has of one volume."""

    place: Place
    volume: str
    record: Record
    pending: bool
    contents: Contents
    trouble: str = ""
    """Why its directory cannot be looked at."""

    @property
    def key(self) -> str:
        """Its claim as `namespace/name`."""
        return f"{self.record.namespace}/{self.record.claim}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRemains:
    """What an export still has of one archive."""

    place: Place
    archive: str
    record: ArchiveRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The cluster that volumes are made in, as it is now; without its id nothing could be asked of it."""

    provisioner: str
    cluster: str = ""
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    """By name."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By `namespace/name`."""
    namespaces: Mapping[str, str] = field(default_factory=dict)
    """The uids of namespaces, by name; of one that is not there, or was not read, the next of its name counts."""

    def namespace_uid(self, name: str) -> str:
        """What a record of a claim in a namespace is to say: recovering it says that the namespace may have it."""
        return self.namespaces.get(name, tenancy.ANY)


@dataclass(frozen=True, slots=True)
class Make:
    """Let the ledger have this record, then make this volume."""

    record: Record
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Enter:
    """Let the ledger have this record; no volume is to be made, and one that is there must not have changed."""

    record: Record
    why: str
    volume: Volume | None = None
    """The volume that the record is to be for, as it was seen."""


@dataclass(frozen=True, slots=True)
class Bring:
    """Let the ledger have this record, then rename what is in an archive or the trash to the volume's directory."""

    record: Record
    volume: Volume
    """As it was seen: it must not have changed."""
    archive: str = ""
    trash: str = ""
    """One of the two."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave it as it is."""

    why: str


Action = Make | Enter | Bring | Skip


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about one volume."""

    remains: Remains
    action: Action


def settled_record(
    volume: Volume, path: RelPath, *, cluster: str, on_delete: OnDelete, created: str, retention: str = ""
) -> Record:
    """The settled record of a volume that has a claimRef, by what the volume says; `path` is below its export."""
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
    )


# ---------------------------------------------------------------------------------------------------- which cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A cluster, not this one, of which there are records."""

    cluster: str
    volumes: int
    archives: int
    signed: str
    """When a provisioner of it was last on one of the exports: UTC, RFC 3339; empty where that is not known."""

    def __str__(self) -> str:
        """In words for people."""
        signed = f"last seen {self.signed}" if self.signed else "never seen"
        found = f"{count(self.volumes, 'volume')}, {count(self.archives, 'archive')}"
        return f"{self.cluster or '(without an id)'}: {found}, {signed}"

    def is_alive(self, now: datetime) -> bool:
        """Whether its provisioner was at work a few minutes ago; a clock that is ahead of ours counts as now."""
        return not is_silent(self.signed, now)

    def is_at_work(self) -> str:
        """What must be known before anything is made of a cluster that seems to be alive."""
        return (
            f"a provisioner of cluster {self.cluster} was at work on these exports at {self.signed}, minutes ago. Two"
            " clusters must never have the same directories: each would delete, archive and hand out what is the"
            f" other's. Stop that provisioner first; where its cluster is gone for good, add {GONE_FLAG}"
        )


def lost_clusters(
    found: Iterable[Remains], archives: Iterable[ArchiveRemains], signs: Iterable[Mapping[str, str]], *, this: str
) -> list[Lost]:
    """The clusters of these records, but for this one."""
    signed: dict[str, str] = {}
    for each in signs:
        for cluster, at in each.items():
            signed[cluster] = max(at, signed.get(cluster, ""))
    volumes = Counter(each.record.cluster for each in found)
    archived = Counter(each.record.was.cluster for each in archives)
    return [
        Lost(
            cluster=cluster,
            volumes=volumes[cluster],
            archives=archived[cluster],
            signed=signed.get(cluster, ""),
        )
        for cluster in sorted({*volumes, *archived} - {this})
    ]


def choose(lost: Sequence[Lost], wanted: str | None, *, this: str) -> Lost | None:
    """The cluster whose volumes are recovered; None where there is no other. Raises InvalidSettings."""
    told = "; ".join(map(str, lost))
    if wanted is not None:
        chosen = next((each for each in lost if each.cluster == wanted), None)
        if wanted and wanted == this:
            raise InvalidSettings(f"--cluster {wanted} is the cluster itself: name single volumes of it with --volume")
        if chosen is None:
            raise InvalidSettings(f"--cluster {wanted}: no export has a record of it; there are {told or 'none'}")
        return chosen
    if len(lost) > 1:
        raise InvalidSettings(f"the exports have records of several other clusters, choose one with --cluster: {told}")
    return lost[0] if lost else None


# ---------------------------------------------------------------------------------------------------- which volumes


def meant(
    found: Iterable[Remains], present: Present, *, lost: str | None, named: Collection[str] = ()
) -> list[Remains]:
    """The records of a lost cluster, and those of this one whose recovery was cut off.

    With `named` these volumes only, and then any of this cluster's too: volumes that were deleted by hand.
    """

    def is_meant(each: Remains) -> bool:
        if named and each.volume not in named:
            return False
        if not present.cluster or each.record.cluster != present.cluster:
            return each.record.cluster == lost
        return bool(named) or (_is_cut_off(each, present) and not each.pending)

    return [each for each in found if is_meant(each)]


def _is_cut_off(each: Remains, present: Present) -> bool:
    """Whether a recovery of this cluster has come no further than the record; older versions left no mark in it."""
    record = each.record
    unmarked = not record.claim_uid and each.volume not in present.volumes
    return not record.retained and (record.volume_uid == NO_OBJECT or unmarked)


def plan(found: Iterable[Remains], present: Present, *, by_name: bool) -> list[Step]:
    """What to do about each, in the order of their claims; `by_name` tells that each was named on purpose."""
    taken = Taken.by(present.volumes.values())
    steps = []
    # The newest first: of two volumes for one claim it is the one that the claim had last.
    for each in sorted(found, key=lambda each: (each.record.created, each.volume), reverse=True):
        action = _decide(each, present, taken, by_name=by_name)
        if isinstance(action, Make):
            taken.add(each)
        if action is not None:
            steps.append(Step(each, action))
    return sorted(steps, key=lambda step: (step.remains.key, step.remains.volume))


@dataclass(slots=True)
class Taken:
    """What cannot be given to a volume any more: directories and claims. For `adopt` as well."""

    directories: DirectoryIndex = field(default_factory=DirectoryIndex)
    claims: dict[str, str] = field(default_factory=dict)
    """The volume that is for a claim, by `namespace/name`."""
    made: set[str] = field(default_factory=set)

    @classmethod
    def by(cls, volumes: Iterable[Volume]) -> Taken:
        """What volumes that are there have, whoever created them."""
        taken = cls()
        for volume in volumes:
            if volume.source is not None:
                taken.directories.add(volume.source.server, volume.source.path, volume.name)
            reference = volume.spec.claim_ref
            if reference is not None and volume.status.phase not in ("Released", "Failed"):
                taken.claims[f"{reference.namespace}/{reference.name}"] = volume.name
        return taken

    def add(self, each: Remains) -> None:
        """A volume that is about to be made has its directory and its claim."""
        location = each.place.location
        self.directories.add(location.server, location.below(each.record.path), each.volume)
        self.claims[each.key] = each.volume
        self.made.add(each.volume)

    def holder(self, each: Remains) -> str | None:
        """Who has the directory, or one above or below it; volumes of the whole export do not count."""
        place = each.place
        return self.directories.holder(
            place.all_locations, each.record.path, folds=place.folds, other_than=(each.volume,)
        )


def _decide(each: Remains, present: Present, taken: Taken, *, by_name: bool) -> Action | None:
    """What to do; None where there is nothing to tell of either."""
    record = each.record
    if record.retained and not by_name:
        return Enter(_ours(record, present), _RETAINED.format(record.retained, each.volume))
    if each.pending and each.contents != "data":
        return Skip("it never had a volume, and there is no data") if by_name else None
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


def _ours(record: Record, present: Present) -> Record:
    return structs.replace(record, cluster=present.cluster, namespace_uid=present.namespace_uid(record.namespace))


def _existing(each: Remains, existing: Volume, present: Present, *, by_name: bool) -> Action:
    """A volume that is there: by checks alone it can become the one that the record is for."""
    record, source, reference = each.record, existing.spec.nfs, existing.spec.claim_ref
    same_place = source is not None and each.place.has(source, record.path)
    same_claim = reference is not None and f"{reference.namespace}/{reference.name}" == each.key
    rebound = by_name and _is_rebound(each, existing, present)
    if not same_place or reference is None or not (same_claim or rebound):
        return Skip("another volume of that name is there, of another directory or claim")
    known = record.cluster == present.cluster and identity.is_for(record, reference)
    if known and record.volume_uid == existing.metadata.uid:
        return Skip("the volume is there")
    if existing.spec.persistent_volume_reclaim_policy == "Delete" and not has_claim(reference, present):
        return Skip(WOULD_GO.format(existing.name))
    ours = structs.replace(
        record,
        cluster=present.cluster,
        namespace=reference.namespace,
        claim=reference.name,
        claim_uid=reference.uid,
        namespace_uid=present.namespace_uid(reference.namespace),
        volume_uid=existing.metadata.uid,
        retained="",
    )
    return Enter(ours, "the volume is there, and the ledger does not have this object of it yet", existing)


WOULD_GO = (
    "the volume is there without its claim, and its reclaim policy Delete would have its directory reclaimed:"
    """ run `kubectl patch pv {} -p '{{"spec":{{"persistentVolumeReclaimPolicy":"Retain"}}}}'` first"""
)


def _is_rebound(each: Remains, existing: Volume, present: Present) -> bool:
    """Whether another claim has the volume, by a binding that nobody saw, and the recorded one is gone."""
    reference = existing.spec.claim_ref
    claim = present.claims.get(f"{reference.namespace}/{reference.name}") if reference is not None else None
    if reference is None or claim is None or (claim.uid, claim.spec.volume_name) != (reference.uid, existing.name):
        return False
    former = present.claims.get(each.key)
    return former is None or former.uid != each.record.claim_uid


def has_claim(reference: ClaimRef, present: Present) -> bool:
    """Whether the claim that a volume names is there, or the next one of its name will be bound to it."""
    claim = present.claims.get(f"{reference.namespace}/{reference.name}")
    return not reference.uid or (claim is not None and claim.uid == reference.uid)


def _left(each: Remains, *, by_name: bool) -> str:
    if not each.pending or by_name:
        return ""
    return f"left: it never had a volume, but its directory holds data; name it with --volume {each.volume} to have it"


def _directory_taken(each: Remains, taken: Taken) -> str:
    holder = taken.holder(each)
    return f"volume {holder} has its directory, or one above or below it" if holder else ""


def _claim_has(each: Remains, claim: Claim | None) -> str:
    if claim is None or claim.spec.volume_name in ("", each.volume):
        return ""
    return f"its claim has volume {claim.spec.volume_name} by now: delete that claim, unless it holds what is wanted"


def _claim_taken(each: Remains, taken: Taken) -> str:
    other = taken.claims.get(each.key)
    if other in taken.made:
        return f"volume {other} is of the same claim, and newer; name this one with --volume to have it instead"
    return f"volume {other} is there for its claim" if other else ""


def _make(each: Remains, present: Present, claim: Claim | None) -> Make:
    record, place = each.record, each.place
    # The very claim is still there when only its volume was deleted by hand: nothing but its uid binds it again.
    uid = record.claim_uid if claim is not None and claim.uid == record.claim_uid else ""
    # An object of that name that comes from elsewhere meanwhile, from a backup for instance, is not the record's.
    ours = structs.replace(_ours(record, present), claim_uid=uid, retained="", volume_uid=NO_OBJECT)
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
    )
    return Make(ours, body)


def plan_archives(archives: Iterable[ArchiveRemains], present: Present, *, lost: str | None) -> list[ArchiveRemains]:
    """The archives of a lost cluster, each with the record by which it can be restored in this one."""
    return [
        ArchiveRemains(
            place=each.place,
            archive=each.archive,
            record=structs.replace(each.record, was=_ours(each.record.was, present)),
        )
        for each in archives
        if each.record.was.cluster == lost and lost != present.cluster
    ]

"""Ledgers and volumes: whether the two match, and which records and which id `recover --ledger` rewrites.

Each PersistentVolume carries the id of its export, and each record names the owner of a directory: a ledger that was
removed, replaced or damaged does not match the volumes on its export. A record is rewritten only for a volume that is
Bound, matches its claim and its directory, and whose record is missing or unreadable. Every other mismatch is reported
with the command that repairs it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import get_args

from provisioner.core import classes, identity, names, paths
from provisioner.core.errors import InvalidPath, InvalidRecord, InvalidSettings
from provisioner.core.locations import Location, RelPath
from provisioner.core.neighbours import shared_message
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.records import OnDelete, Record, require_room
from provisioner.core.recovery import Place, Remains, Taken, settled_record
from provisioner.core.scope import count

RECOVER = "`nfs-provisioner recover --ledger`"
_RULES = get_args(OnDelete)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The content of one export's ledger."""

    place: Place
    """The export; its id is empty if the ledger has none."""
    records: Mapping[str, Record]
    pending: Set[str] = frozenset()
    unreadable: Set[str] = frozenset()
    foreign: Set[str] = frozenset()
    """The unreadable entries that another version wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One provisioner in one cluster: the one whose volumes are compared."""

    provisioner: str
    cluster: str
    """The id of the cluster."""


def is_marked_on(volume: Volume, where: Iterable[Location], provisioner: str) -> bool:
    """Return True if a provisioner's volume carries an export id and says that it is on the export of `where`."""
    source, said = volume.spec.nfs, volume.metadata.annotations
    directory = said.get(names.DIRECTORY, "")
    if source is None or not directory or not said.get(names.EXPORT_ID) or volume.metadata.deletion_timestamp:
        return False
    below = tuple(directory.split("/"))
    return volume.is_by(provisioner) and any(each.relative(source.server, source.path) == below for each in where)


# ---------------------------------------------------------------------------------------------------- what disagrees


def disagreement(volume: Volume, path: RelPath, ledger: Ledger, own: Installation) -> str:
    """Return how a volume and the ledger disagree, and what to do about it; empty if they match.

    `path` is the volume's directory below the export. A missing record is not a disagreement.
    """
    record = ledger.records.get(volume.name)
    if volume.name in ledger.pending:
        return ""  # it is settled soon
    if record is None and volume.name in ledger.unreadable:
        return _unreadable(volume, ledger)
    if record is not None and record.peer and not volume.is_marked:
        return _of_record(volume, path, record, ledger, own)
    return _edited(volume, path, ledger, own) or (
        _of_record(volume, path, record, ledger, own) if record is not None else ""
    )


def is_own(volume: Volume, ledger: Ledger, own: Installation) -> bool:
    """Return True if this provisioner created a volume: by its annotation, or by a record of exactly this object."""
    record = ledger.records.get(volume.name)
    known = record is not None and record.cluster == own.cluster and record.volume_uid == volume.metadata.uid
    return volume.spec.nfs is not None and (volume.is_by(own.provisioner) or known)


def is_edited(volume: Volume, path: RelPath, export_id: str, *, gid: int) -> bool:
    """Return True if an annotation of the provisioner on a volume was changed or removed."""
    said = volume.metadata.annotations
    return (
        said.get(names.EXPORT_ID) != export_id
        or said.get(names.DIRECTORY) != "/".join(path)
        or said.get(names.ON_DELETE) not in _RULES
        or (gid != 0 and said.get(names.GID) != str(gid))
    )


def _edited(volume: Volume, path: RelPath, ledger: Ledger, own: Installation) -> str:
    said, record = volume.metadata.annotations, ledger.records.get(volume.name)
    wanted = {
        names.PROVISIONED_BY: own.provisioner,
        names.EXPORT_ID: ledger.place.id,
        names.DIRECTORY: "/".join(path),
    }
    if said.get(names.ON_DELETE) not in _RULES:
        wanted[names.ON_DELETE] = record.on_delete if record is not None else "retain"
    if record is not None and record.gid:
        wanted[names.GID] = str(record.gid)
    wrong = {key: value for key, value in wanted.items() if said.get(key) != value}
    if not wrong:
        return ""
    values = " ".join(f"{key}={value!r}" if " " in value else f"{key}={value}" for key, value in wrong.items())
    what = "annotations do" if len(wrong) > 1 else "annotation does"
    return (
        f"its {what} not match the ledger of export {ledger.place.name}: {', '.join(wrong)}; if the volume is the right"
        f" one, run kubectl annotate pv {volume.name} --overwrite {values}"
    )


def _unreadable(volume: Volume, ledger: Ledger) -> str:
    if volume.name in ledger.foreign:
        return (
            f"its record on export {ledger.place.name} was written by another version of the provisioner: run that"
            f" version again; if there was none, remove {paths.LEDGER}/volumes/{volume.name} on the export, and"
            f" {RECOVER} rewrites it"
        )
    return f"its record on export {ledger.place.name} cannot be read: {RECOVER} rewrites it"


def _of_record(volume: Volume, path: RelPath, record: Record, ledger: Ledger, own: Installation) -> str:
    """Return why a record is not that of a volume; empty if it is."""
    reference, on_export = volume.spec.claim_ref, f"its record on export {ledger.place.name}"
    take = f"`nfs-provisioner recover --volume {volume.name}` gives the record to this volume"
    if record.cluster != own.cluster:
        return f"{on_export} belongs to cluster {record.cluster or '(without an id)'}: if that one is lost, {take}"
    if record.path != path:
        return (
            f"{on_export} is of directory {record.directory!r}, but the volume has {'/'.join(path)!r}: delete this"
            f" PersistentVolume with its finalizers manually; `nfs-provisioner recover --volume {volume.name}` then"
            " creates the one of the record"
        )
    if record.volume_uid not in ("", volume.metadata.uid):
        return f"{on_export} is for another PersistentVolume object of this name: {take}"
    if volume.status.phase == "Bound" and reference is not None and not identity.is_for(record, reference):
        return f"{on_export} is for claim {record.namespace}/{record.claim}, but another claim has the volume: {take}"
    return ""


# ---------------------------------------------------------------------------------------------------- what is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One volume on an export, as it is now."""

    volume: Volume
    path: RelPath
    """Its directory below the export."""
    claim: Claim | None
    """The claim that now has the name in its claimRef, if any."""
    storage_class: StorageClass | None
    """The class that the volume names, if it exists now."""
    there: bool = True
    """Whether its directory exists; True until it is checked."""
    trouble: str = ""
    """Why its directory cannot be read."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write this record."""

    record: Record


@dataclass(frozen=True, slots=True)
class Skip:
    """Write nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """What to do about one volume that does not match its record."""

    found: Found
    action: Write | Skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What to do about one export."""

    place: Place
    id: str
    """The id for its ledger; empty if there is none."""
    trouble: str
    """Why that is not the id that its volumes carry; empty if it is."""
    steps: Sequence[Step]
    agree: int
    """The number of volumes that match their records."""

    @property
    def records(self) -> Mapping[str, Record]:
        """Return the records to write, by volume."""
        return {step.found.volume.name: step.action.record for step in self.steps if isinstance(step.action, Write)}

    @property
    def has_work(self) -> bool:
        """Return True if anything has to be written."""
        return bool(self.records) or self.id != self.place.id


def is_in_doubt(found: Found, ledger: Ledger) -> bool:
    """Return True if it must be checked whether the volume's directory exists."""
    said = found.volume.metadata.annotations
    return found.volume.name not in ledger.records or said.get(names.EXPORT_ID) != ledger.place.id


def plan(ledger: Ledger, found: Sequence[Found], volumes: Iterable[Volume], own: Installation, *, now: str) -> Sheet:
    """Decide what to do about the volumes on one export.

    `volumes` are all of the cluster, `now` is RFC 3339.
    """
    id, trouble = _reconciled(ledger, found, own)
    taken = Taken.by(volumes)
    restored = replace(ledger, place=replace(ledger.place, id=id))
    judged = [(each, _decide(each, restored, trouble, taken, own, now=now)) for each in found]
    return Sheet(
        place=ledger.place,
        id=id,
        trouble=trouble,
        steps=[Step(each, action) for each, action in judged if action is not None],
        agree=sum(action is None for _, action in judged),
    )


def _reconciled(ledger: Ledger, found: Sequence[Found], own: Installation) -> tuple[str, str]:
    """Return the id for the ledger, and why that is not the one that its volumes carry."""
    carried: defaultdict[str, list[Found]] = defaultdict(list)
    for each in found:
        if is_marked_on(each.volume, ledger.place.all_locations, own.provisioner):
            carried[each.volume.metadata.annotations[names.EXPORT_ID]].append(each)
    has = ledger.place.id
    if not carried or has in carried:
        return has, ""
    bound = {id: [each for each in carriers if _is_bound(each)] for id, carriers in carried.items()}
    wanted = {id: carriers for id, carriers in bound.items() if carriers} or carried
    if len(wanted) > 1:
        return has, f"its volumes carry {count(len(wanted), 'id')}: {', '.join(sorted(wanted))}"
    ((id, carriers),) = wanted.items()
    others = {record.cluster or "(without an id)" for record in ledger.records.values()} - {own.cluster}
    if has and others:
        return has, f"its volumes carry the id {id}, but its ledger has records of cluster {', '.join(sorted(others))}"
    if not any(each.there and not each.trouble for each in carriers):
        return has, _WRONG_EXPORT
    return id, ""


_WRONG_EXPORT = (
    "none of its volumes' directories exists: check that it is the right export; if it is, and their data is gone,"
    " delete those PersistentVolumes"
)


def _is_bound(found: Found) -> bool:
    """Return True if a volume and a claim name each other."""
    reference, claim = found.volume.spec.claim_ref, found.claim
    return (
        found.volume.status.phase == "Bound"
        and reference is not None
        and claim is not None
        and (claim.uid, claim.spec.volume_name) == (reference.uid, found.volume.name)
    )


def _decide(
    found: Found, ledger: Ledger, trouble: str, taken: Taken, own: Installation, *, now: str
) -> Write | Skip | None:
    """Decide what to do about one volume; None if it matches its record."""
    volume = found.volume
    if volume.name in ledger.records or volume.name in ledger.foreign:
        why = disagreement(volume, found.path, ledger, own)
        return Skip(why) if why else None
    if not volume.is_marked:
        return Skip("another provisioner created it: the daemon records it automatically while it is Bound")
    edited = trouble if not ledger.place.id else _edited(volume, found.path, ledger, own)
    if edited or not _is_bound(found):
        return Skip(edited or _NOT_BOUND.format(volume.status.phase))
    if found.trouble or not found.there:
        return Skip(found.trouble or "its directory does not exist, and it has no record")
    record = _record(found, own, now=now)
    remains = Remains(place=ledger.place, volume=volume.name, record=record, pending=False, contents="data")
    holder = taken.holder(remains)
    if holder is not None:
        return Skip(shared_message(record.directory, holder))
    try:
        paths.check(record.directory)
        require_room(volume.name, record)
    except (InvalidPath, InvalidRecord) as exc:
        return Skip(str(exc))
    return Write(record)


_NOT_BOUND = (
    "it is {}, and has no record: bind a claim to it and run this again; or delete it with its finalizers, and then its"
    " directory, manually"
)


def _record(found: Found, own: Installation, *, now: str) -> Record:
    """Return the record of a volume that is Bound and has the provisioner's annotations."""
    volume = found.volume
    rule = next(each for each in _RULES if each == volume.metadata.annotations[names.ON_DELETE])
    retention = ""
    try:
        if found.storage_class is not None and found.storage_class.provisioner == own.provisioner:
            retention = classes.parameters_of(found.storage_class).retention
    except InvalidSettings:
        pass  # without a retention an archive never expires, so nothing is lost
    created = volume.metadata.creation_timestamp or now
    return settled_record(volume, found.path, cluster=own.cluster, on_delete=rule, created=created, retention=retention)

"""Volumes that exist again after their data was moved out of their directory, as after a restore of etcd.

If a claim was deleted after the backup, its directory is in the trash or an archive, but the backup brings back the
claim and its volume. Then the data is kept, and `recover --volume` moves it back into the directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from msgspec import structs

from provisioner.core import identity, names, times
from provisioner.core.locations import RelPath
from provisioner.core.objects import ClaimRef, Volume
from provisioner.core.records import ArchiveRecord, OnDelete, Record
from provisioner.core.recovery import (
    WOULD_GO,
    Action,
    Bring,
    Contents,
    Place,
    Present,
    Remains,
    Skip,
    Step,
    has_claim,
    settled_record,
)

_GOING = ("Released", "Failed")


def keeps(volume: Volume) -> bool:
    """Return True if the data of a volume must be kept: unless it is being deleted and no claim has it."""
    return volume.metadata.deletion_timestamp is None or volume.status.phase == "Bound"


def is_being_reclaimed(volume: Volume) -> bool:
    """Return True if a volume is in the state that every reclaim passes through after the data was moved."""
    return volume.status.phase in _GOING


def volume_of(entry: str) -> str:
    """Return the volume of an entry in the trash, which is named `<volume>.<time>`."""
    return entry.rsplit(".", 2)[0] if times.stamped(entry) is not None else entry


def kept_message(volume_name: str, where: str, export: str) -> str:
    """Return the message for a volume that exists again, and whose data is therefore kept."""
    return (
        f"its data was moved to {where} on export {export} when it was deleted, and now the volume exists again, as"
        " after a restore of etcd from an older backup; the data is kept as long as the volume exists:"
        f" `nfs-provisioner recover --volume {volume_name}` shows how to move it back, and does so with --apply"
    )


# ---------------------------------------------------------------------------------------------------- the way back


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Data of a volume outside of its directory: an archive, or an entry in the trash."""

    place: Place
    volume: Volume
    archive: str = ""
    was: ArchiveRecord | None = None
    """The archive's record."""
    trash: str = ""
    begun: bool = False
    """Whether its purge has begun, so that parts can be missing."""
    there: bool = True
    """Whether the archive's directory exists; its record can be a leftover of a restore."""
    home: Contents
    """The state of the volume's directory."""
    record: Record | None
    """The volume's record."""
    trouble: str = ""
    """Why its directory cannot be read."""

    @property
    def where(self) -> str:
        """Return it as text."""
        return f"archive {self.archive}" if self.archive else f"the trash (entry {self.trash})"


def path_on(place: Place, volume: Volume) -> RelPath | None:
    """Return a volume's directory below an export, by any of the export's locations.

    Return None if it is elsewhere.
    """
    source = volume.spec.nfs
    if source is None:
        return None
    found = (each.relative(source.server, source.path) for each in place.all_locations)
    return next(filter(None, found), None)


def plan(stored: Sequence[Stored], present: Present, now: str) -> Step:
    """Decide what to do about a volume with data outside of its directory.

    `stored` is all data of one volume.
    """
    first = stored[0]
    path = path_on(first.place, first.volume) or ()
    record = _record(first, path, present, now)
    contents: Contents = "data" if first.there else first.home
    remains = Remains(place=first.place, volume=first.volume.name, record=record, pending=False, contents=contents)
    return Step(remains, _decide(stored, record, present))


def _decide(stored: Sequence[Stored], record: Record, present: Present) -> Action:
    first = stored[0]
    volume, reference = first.volume, first.volume.spec.claim_ref
    reasons = (
        first.trouble,
        _several(stored),
        _being_purged(first),
        _another(first, record, present),
        _would_go(volume, reference, present),
        _in_the_way(first),
    )
    reason = next(filter(None, reasons), "")
    return Skip(reason) if reason else Bring(record, volume, archive=first.archive, trash=first.trash)


def _several(stored: Sequence[Stored]) -> str:
    if len(stored) == 1:
        return ""
    return f"there are several: {', '.join(each.where for each in stored)}; move one of them back manually"


def _being_purged(stored: Stored) -> str:
    if not stored.begun:
        return ""
    return (
        f"parts of its data can be gone, since the purge of .provisioner/trash/{stored.trash} had begun: to keep the"
        f" rest, stop the provisioner and move .provisioner/trash/{stored.trash}.begun manually"
    )


def _another(stored: Stored, record: Record, present: Present) -> str:
    """Return why the data may not be this volume's; empty if it is."""
    volume, was = stored.volume, stored.was
    if volume.metadata.annotations.get(names.EXPORT_ID) not in (stored.place.id, None):
        return "the volume was created on another export"
    if was is not None and was.was.cluster != present.cluster:
        return "the archive is another cluster's"
    if was is not None and not identity.is_for(was.was, volume.spec.claim_ref or ClaimRef()):
        return f"the archive is of claim {was.was.namespace}/{was.was.claim}, but the volume is of another one"
    paths = {"/".join(path_on(stored.place, volume) or ()), record.directory}
    paths |= {was.was.directory} if was is not None else set()
    return "" if len(paths) == 1 else f"its directories differ: {', '.join(sorted(paths))}"


def _would_go(volume: Volume, reference: ClaimRef | None, present: Present) -> str:
    policy = volume.spec.persistent_volume_reclaim_policy
    if reference is None or (policy == "Delete" and not has_claim(reference, present)):
        return WOULD_GO.format(volume.name)
    return ""


def _in_the_way(stored: Stored) -> str:
    if stored.home != "data" or (stored.archive and not stored.there):
        return ""
    return f"its directory is not empty: move its contents away first, then {stored.where} can replace it"


def _record(stored: Stored, path: RelPath, present: Present, now: str) -> Record:
    """Return the volume's record: the ledger's, else the archive's, else one made from the volume itself."""
    if stored.record is not None:
        return stored.record
    volume = stored.volume
    reference = volume.spec.claim_ref or ClaimRef()
    if stored.was is not None:
        was = stored.was.was
        return structs.replace(was, claim_uid=reference.uid, volume_uid=volume.metadata.uid, retained="")
    written = volume.metadata.annotations.get(names.ON_DELETE)
    record = settled_record(
        volume,
        path,
        cluster=present.cluster,
        on_delete=next((each for each in get_args(OnDelete) if each == written), "retain"),
        created=volume.metadata.creation_timestamp or now,
    )
    return structs.replace(record, peer=not volume.is_marked)

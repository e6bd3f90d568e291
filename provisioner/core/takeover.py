"""Takeover: what the ledger is told of a volume that nfs-subdir-external-provisioner made under our name.

The PersistentVolume and the directory stay as they are, so that the way back to the peer stays open. What is recorded
is the rule for the volume's deletion, which the peer reads from the class when the claim is gone (peers, harm 5).
Source: nfs-subdir-external-provisioner 4.0.2, cmd/nfs-subdir-external-provisioner/provisioner.go, Delete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import structs

from provisioner.core import names, paths, times
from provisioner.core.errors import InvalidPath, InvalidRecord, InvalidSettings
from provisioner.core.locations import RelPath
from provisioner.core.neighbours import shared_message
from provisioner.core.objects import ClaimRef, StorageClass, Volume
from provisioner.core.parameters import archive_flag
from provisioner.core.records import OnDelete, Record, require_room
from provisioner.core.recovery import settled_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A peer's volume of which the ledger knows nothing, and what a record of it is made of."""

    volume: Volume
    path: RelPath
    """Its directory below the export's root."""
    storage_class: StorageClass | None
    """The class of the name in the volume, if there is one now."""
    holder: Volume | None
    """Another volume that has this directory, or one above or below it."""
    provisioner: str
    cluster: str
    now: str
    """UTC, RFC 3339."""
    since: str
    """Since when there is a ledger on its export, in the same form; empty where it has just been made."""


@dataclass(frozen=True, slots=True)
class Enter:
    """The record to write; `note` is what the log should say of its rule."""

    record: Record
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """No record is written, so that nothing of the volume is ever touched: why, and what to do."""

    message: str


def is_peers(volume: Volume, provisioner: str) -> bool:
    """Whether a volume under our name is of a peer's making: it says where it lies, and bears no key of ours."""
    return volume.is_by(provisioner) and volume.spec.nfs is not None and not volume.is_marked


def decide(find: Find) -> Enter | Refuse:
    """What the ledger is to say of a peer's volume."""
    volume, reference, directory = find.volume, find.volume.spec.claim_ref, "/".join(find.path)
    if reference is None:
        return Refuse("it has no claimRef: nothing says whose directory this is; nothing is touched")
    on_delete, note = rule(find.storage_class, find.provisioner)
    if volume.status.phase != "Bound":
        doubt = _doubt(volume, reference, find.since)
        if doubt:
            return Refuse(
                f"no claim is bound to it, and {doubt}; nothing is touched: have a claim bind it, or delete it by hand,"
                " its finalizers too"
            )
        # Nobody of ours saw it bound: what cannot be taken back is not done on its word alone.
        on_delete, note = ("archive", "it was released before") if on_delete == "delete" else (on_delete, note)
    made = settled_record(volume, find.path, cluster=find.cluster, on_delete=on_delete, created=find.now)
    record = structs.replace(made, peer=True)
    try:
        paths.check(directory)
        require_room(volume.name, record)
    except (InvalidPath, InvalidRecord) as exc:
        return Refuse(f"{exc}; nothing is touched")
    if find.holder is not None:
        return Refuse(shared_message(directory, find.holder.name))
    return Enter(record, note)


def _doubt(volume: Volume, reference: ClaimRef, since: str) -> str:
    """Why a volume that no claim is bound to is perhaps not what the peer made; empty where it looks like that.

    One made by hand, or applied from a backup, is released immediately: it must not get a directory moved.
    """
    if volume.name != names.volume_name(reference.uid):
        return "its name is not pvc- and its claim's uid, as a provisioner's is"
    created, began = times.parse(volume.metadata.creation_timestamp), times.parse(since)
    if began is not None and (created is None or created > began):
        return f"it was created after {since}, when the ledger of its export began: from a backup, perhaps"
    return ""


def rule(storage_class: StorageClass | None, provisioner: str) -> tuple[OnDelete, str]:
    """What the peer would do with a directory of that class, and what to say of it; in doubt it is archived."""
    if storage_class is None:
        return "archive", "its class is gone"
    if storage_class.provisioner != provisioner:
        return "archive", "its class is another provisioner's now"
    return _by_parameters(storage_class.parameters)


def _by_parameters(parameters: Mapping[str, str]) -> tuple[OnDelete, str]:
    match parameters.get("onDelete"):
        case "delete" | "retain" | "archive" as word:
            return word, ""
    try:
        return archive_flag(parameters.get("archiveOnDelete", "true")), ""
    except InvalidSettings as exc:
        return "archive", f"its class's parameter archiveOnDelete: {exc}"

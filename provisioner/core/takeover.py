"""Takeover: the record of a volume that nfs-subdir-external-provisioner created under the same provisioner name.

The PersistentVolume and the directory stay as they are, so that an admin can go back to nfs-subdir. The record keeps
the rule for the volume's deletion, which nfs-subdir reads from the class when the claim is gone (peers, harm 5).
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
from provisioner.core.reasons import Reason
from provisioner.core.records import OnDelete, Record, require_room
from provisioner.core.recovery import settled_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A volume of nfs-subdir without a record, and the facts for its record."""

    volume: Volume
    path: RelPath
    """Its directory below the export's root."""
    storage_class: StorageClass | None
    """The class that the volume names, if it exists now."""
    holder: Volume | None
    """Another volume that has this directory, or one above or below it."""
    provisioner: str
    cluster: str
    now: str
    """UTC, RFC 3339."""
    since: str
    """When the ledger of its export was created, in the same form; empty if it was created just now."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Write this record; `note` says in the log where its rule comes from."""

    record: Record
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write no record, so that the volume's data is never touched: why, and what to do."""

    reason: str
    """The machine reason, for logs and metrics (`core.reasons`)."""
    message: str


def is_of_nfs_subdir(volume: Volume, provisioner: str) -> bool:
    """Return True if nfs-subdir created a volume: it has this provisioner's name, but none of its other annotations."""
    return volume.is_by(provisioner) and volume.spec.nfs is not None and not volume.is_marked


def decide(find: Find) -> Enter | Refuse:
    """Decide what record a volume of nfs-subdir gets."""
    volume, reference, directory = find.volume, find.volume.spec.claim_ref, "/".join(find.path)
    if reference is None:
        message = "it has no claimRef, so nothing says whose directory this is; nothing was changed"
        return Refuse(Reason.MISSING_CLAIM_REF, message)
    on_delete, note = rule(find.storage_class, find.provisioner)
    if volume.status.phase != "Bound":
        doubt = _doubt(volume, reference, find.since)
        if doubt:
            return Refuse(
                Reason.UNBOUND_VOLUME,
                f"no claim is bound to it, and {doubt}; nothing was changed: bind a claim to it, or delete it with its"
                " finalizers manually",
            )
        # This provisioner never saw it bound: on its word alone nothing is done that cannot be undone.
        on_delete, note = ("archive", "it was already released") if on_delete == "delete" else (on_delete, note)
    made = settled_record(volume, find.path, cluster=find.cluster, on_delete=on_delete, created=find.now)
    record = structs.replace(made, peer=True)
    try:
        paths.check(directory)
        require_room(volume.name, record)
    except (InvalidPath, InvalidRecord) as exc:
        return Refuse(exc.reason, f"{exc}; nothing was changed")
    if find.holder is not None:
        return Refuse(Reason.OVERLAPPING_DIRECTORY, shared_message(directory, find.holder.name))
    return Enter(record, note)


def _doubt(volume: Volume, reference: ClaimRef, since: str) -> str:
    """Return why a volume without a bound claim may not be one that nfs-subdir created; empty if it looks like one.

    A volume that was written manually, or applied from a backup, is released immediately: it must not get a directory
    deleted or archived.
    """
    if volume.name != names.volume_name(reference.uid):
        return "its name is not pvc- and its claim's uid, as provisioners name volumes"
    created, began = times.parse(volume.metadata.creation_timestamp), times.parse(since)
    if began is not None and (created is None or created > began):
        return f"it was created after {since}, when the ledger of its export began, so it may come from a backup"
    return ""


def rule(storage_class: StorageClass | None, provisioner: str) -> tuple[OnDelete, str]:
    """Return what nfs-subdir would do with a directory of the class, and a note.

    Archive in case of doubt.
    """
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

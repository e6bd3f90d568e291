"""Volumes as `volumes` lists them: owner, place, reclaim rule, and usage."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from provisioner.core import mount_options, names
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location, label, location
from provisioner.core.objects import Volume
from provisioner.core.quota import Answer

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


class VolumeRow(Struct, frozen=True):
    """One volume; the fields are the columns of the table."""

    volume: str
    namespace: str
    claim: str
    storage_class: str
    phase: str
    capacity: str
    export: str
    """As core.locations.label spells it; only the server if the volume does not say where its export ends."""
    directory: str
    """Relative to the export; the whole path on the server if the export is unknown."""
    on_delete: str
    """`delete`, `archive` or `retain`; empty if the volume does not say."""
    created: str
    """UTC, RFC 3339."""
    used_bytes: int | None
    """None without an answer of a quota agent, and while not all of the content is counted."""
    limit_bytes: int | None
    """The limit in force; None if there is none, or no answer."""
    limit_reason: str
    """The agent's word for why there is no limit, or another one than the size; empty if there is nothing to say."""
    limit_why: str
    """The same for people, with what to do about it."""
    reclaim_policy: str
    access_modes: tuple[str, ...]
    claim_uid: str
    """Empty without a claim."""


def listed(volume: Volume, answer: Answer | None = None) -> VolumeRow:
    """Return the row of a volume, with the quota agent's answer. What the volume says of itself is not checked."""
    source, claim = volume.spec.nfs, volume.spec.claim_ref
    directory = volume.metadata.annotations.get(names.DIRECTORY, "")
    server, path = (source.server, source.path) if source else ("", "")
    root = path.removesuffix(f"/{directory}")
    if directory and root != path:
        server, path = export_of(server, root or "/", volume), directory
    return VolumeRow(
        volume=volume.name,
        namespace=claim.namespace if claim else "",
        claim=claim.name if claim else "",
        storage_class=volume.spec.storage_class_name,
        phase="Terminating" if volume.metadata.deletion_timestamp else volume.status.phase,
        capacity=volume.capacity,
        export=server,
        directory=path,
        on_delete=_rule(volume),
        created=volume.metadata.creation_timestamp,
        used_bytes=answer.used_bytes if answer is not None and answer.whole else None,
        limit_bytes=answer.limit_bytes or None if answer is not None else None,
        limit_reason=answer.reason if answer is not None else "",
        limit_why=answer.why if answer is not None else "",
        reclaim_policy=volume.spec.persistent_volume_reclaim_policy,
        access_modes=volume.spec.access_modes,
        claim_uid=claim.uid if claim else "",
    )


def export_of(server: str, root: str, volume: Volume) -> str:
    """Return the export of a volume as it is spelled everywhere (core.locations.label)."""
    try:
        return label(location(server, root), mount_options.parse(volume.spec.mount_options).port)
    except InvalidSettings:
        return str(Location(server, root))


def _rule(volume: Volume) -> str:
    if volume.spec.persistent_volume_reclaim_policy != "Delete":
        return "retain"
    return volume.metadata.annotations.get(names.ON_DELETE, "")


def age(created: str, now: datetime) -> str:
    """Return how long ago a time was, in at most two units, as kubectl writes it.

    The result is empty if the text is not a time.
    """
    try:
        seconds = max(0, int((now - datetime.fromisoformat(created)).total_seconds()))
    except (ValueError, TypeError):
        return ""
    minutes, hours, days = seconds // _MINUTE_S, seconds // _HOUR_S, seconds // _DAY_S
    if minutes < 10:
        return f"{minutes}m{seconds % _MINUTE_S}s" if minutes else f"{seconds}s"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m"
    if days < 2:
        return f"{hours}h"
    return f"{days}d{hours % 24}h" if days < 8 else f"{days}d"

"""Volumes in use that lack their directory or their record in the ledger.

Without its directory a pod hangs or fails; without its record a volume is never reclaimed. Causes are an older backup
of etcd, a lost ledger, a directory that was removed manually, and a file system that the server has not mounted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import get_args

from provisioner.core.locations import RelPath
from provisioner.core.objects import Volume
from provisioner.core.orphans import Lack, Orphan
from provisioner.core.records import Record

LACKS: tuple[Lack, ...] = get_args(Lack)

_WHY: Mapping[Lack, str] = {
    "directory-missing": "a claim has the volume, but its directory does not exist",
    "record-missing": "a claim has the volume, but the ledger has no record of it: it will not be reclaimed",
}
_WAYS: Mapping[Lack, str] = {
    "directory-missing": "if it was deleted before etcd was restored from a backup: nfs-provisioner recover --volume"
    " {volume}; if it is a file system of its own, mount it on the server; otherwise restore it from a backup",
    "record-missing": "if another provisioner created it, the log says why it was not taken over"
    " (volume_not_taken_over); otherwise `nfs-provisioner recover --ledger` shows whether its record can be rewritten",
}


def is_in_use(volume: Volume, path: RelPath, provisioner: str) -> bool:
    """Return True if a volume must have a directory and a record, because a claim has it; `path` is below its export.

    A path that leads out of the export does not count: users who create volumes can write any path.
    """
    is_bound = volume.is_by(provisioner) and volume.spec.nfs is not None and volume.status.phase == "Bound"
    return is_bound and bool(path) and not any(part in (".", "..") for part in path)


def suspects(volumes: Mapping[str, RelPath], records: Mapping[str, Record], missing: Set[RelPath]) -> dict[str, Lack]:
    """Return what volumes lack, by name, according to the directories and to the ledger in memory."""
    found: dict[str, Lack] = {}
    for name, path in volumes.items():
        if path in missing:
            found[name] = "directory-missing"
        elif name not in records:
            found[name] = "record-missing"
    return found


def listed(export: str, found: Iterable[tuple[Volume, RelPath, Lack]]) -> list[Orphan]:
    """Return the rows that `orphans` lists, in their order."""
    rows = [_listed(export, volume, path, lack) for volume, path, lack in found]
    return sorted(rows, key=lambda row: (row.kind, row.directory, row.volume))


def _listed(export: str, volume: Volume, path: RelPath, lack: Lack) -> Orphan:
    reference = volume.spec.claim_ref
    return Orphan(
        kind=lack,
        export=export,
        directory="/".join(path),
        volume=volume.name,
        claim=f"{reference.namespace}/{reference.name}" if reference is not None else "",
        since=volume.metadata.creation_timestamp,
        why=_WHY[lack],
        advice=_WAYS[lack].format(volume=volume.name),
    )


def message(export: str, path: RelPath, volume: Volume, lack: Lack) -> str:
    """Return the message of an event on the volume."""
    row = _listed(export, volume, path, lack)
    return f"{row.why}: {row.directory!r} on export {export}; {row.advice}"

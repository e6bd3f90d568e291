"""Volumes of ours that a claim has, and that lack their directory or their record in the ledger.

A pod on the one hangs or fails, the other is never reclaimed. etcd that went back to an older backup makes both, and so
do a ledger that was lost, a directory that was removed by hand, and a file system that the server has not mounted.
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
    "directory-missing": "a claim has the volume, and its directory is not there",
    "record-missing": "a claim has the volume, and the ledger has no record of it: it is not reclaimed",
}
_WAYS: Mapping[Lack, str] = {
    "directory-missing": "if it was deleted and etcd went back since: nfs-provisioner recover --volume {volume}; if it"
    " is a file system of its own, have the server mount it; else restore it from a backup",
    "record-missing": "if another provisioner made it, the log says why it was not taken over (volume_not_taken_over);"
    " else `nfs-provisioner recover --ledger` shows whether its record can be written again",
}


def is_in_use(volume: Volume, path: RelPath, provisioner: str) -> bool:
    """Whether a volume of ours must have a directory and a record, since a claim has it; `path` is below its export.

    A path that leads elsewhere is nobody's: whoever creates a volume may write any.
    """
    ours = volume.is_by(provisioner) and volume.spec.nfs is not None and volume.status.phase == "Bound"
    return ours and bool(path) and not any(part in (".", "..") for part in path)


def suspects(volumes: Mapping[str, RelPath], records: Mapping[str, Record], missing: Set[RelPath]) -> dict[str, Lack]:
    """By name, what volumes lack by a look at the directories and at the ledger in memory."""
    found: dict[str, Lack] = {}
    for name, path in volumes.items():
        if path in missing:
            found[name] = "directory-missing"
        elif name not in records:
            found[name] = "record-missing"
    return found


def listed(export: str, found: Iterable[tuple[Volume, RelPath, Lack]]) -> list[Orphan]:
    """The same as `orphans` lists it, in the order of a listing."""
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
    """The words of an event on the volume."""
    row = _listed(export, volume, path, lack)
    return f"{row.why}: {row.directory!r} on export {export}; {row.advice}"

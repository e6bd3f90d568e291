"""Orphans: directories and records on an export that belong to no volume of the cluster.

They are found by comparing the export's ledger and directories with the API server. An orphan is reported, with what an
admin can do about it, and never touched: no program can find out whether the data is still needed. Archives and
retained directories are no orphans: the class's rule kept them on purpose. Nor are directories in which a volume of the
cluster lies, or that lie in the directory of one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from provisioner.core import times
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Volume
from provisioner.core.paths import PathIndex
from provisioner.core.records import Record

Kind = Literal["volume-gone", "attempt-left", "cluster-gone", "unreadable", "unknown"]
Lack = Literal["directory-missing", "record-missing"]
"""What a volume can lack: listed together with the orphans (core.lacking)."""

SILENT_AFTER = timedelta(minutes=10)
"""A leader signs every export once per minute; a rollout or a lost node takes a few minutes."""

_WAYS: Mapping[Kind, str] = {
    "volume-gone": "to get the data back: nfs-provisioner recover --volume {volume} --apply;"
    " otherwise remove the directory on the server: its record is then removed automatically",
    "attempt-left": "find out whose data it is and move it elsewhere, or turn it into a volume:"
    " nfs-provisioner recover --volume {volume} --apply; once the directory is empty, it is removed with its record",
    "cluster-gone": "if that cluster is lost, this one can recover its volumes: nfs-provisioner recover"
    " --cluster {cluster}; if it still exists, find out why its provisioner does not run",
    "unreadable": "if a newer version of the provisioner wrote it, run that version again; otherwise"
    " `nfs-provisioner recover --ledger` rewrites the record of a Bound volume; remove any other entry on the server",
    "unknown": "if the server has other users, leave it; otherwise find out whose data it is, and move it elsewhere",
}


class Orphan(Struct, frozen=True):
    """One orphan, in the order in which a table shows it."""

    kind: Kind | Lack
    export: str
    directory: str
    """Relative to the export; empty for a ledger entry that cannot be read."""
    volume: str
    """The name in the ledger; empty for a directory that the ledger does not know."""
    claim: str
    """`NAMESPACE/NAME`; empty if unknown."""
    since: str
    """When its volume was begun: UTC, RFC 3339; empty if unknown."""
    why: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """The facts that were read of one export and of the cluster."""

    export: str
    """The name that is displayed."""
    cluster: str
    """The id of this cluster."""
    records: Mapping[str, Record]
    pending: Set[str]
    unreadable: Set[str]
    signs: Mapping[str, str]
    """By cluster: when its provisioner was last at work there."""
    now: datetime
    volumes: Container[str]
    """The names of the cluster's volumes."""
    holder: Callable[[RelPath], object | None]
    """Return a volume of the cluster that has this directory, or one above or below it; None if there is none."""
    left: Set[str]
    """Those of doubtful() whose volumes are confirmed gone while the directory exists; an attempt's is not empty."""
    folds: bool = False
    """Whether the server treats names as equal that differ in case or in Unicode normal form."""
    unknown_directories: Sequence[RelPath]
    """Directories that are not empty, and that led to no known directory when they were found."""


def doubtful(
    records: Mapping[str, Record],
    pending: Set[str],
    *,
    cluster: str,
    volumes: Container[str],
    waiting: Container[str],
) -> list[str]:
    """Return the volumes whose records seem to have neither volume nor claim: they are worth a live look.

    `waiting` are the uids of the claims that can still get a volume. Retained directories are never in doubt.
    """
    return [
        name
        for name, record in records.items()
        if record.cluster == cluster
        and not record.retained
        and name not in volumes
        and not (name in pending and record.claim_uid in waiting)
    ]


def known(
    locations: Iterable[Location],
    records: Iterable[Record],
    volumes: Iterable[Volume],
    exports: Iterable[Location],
    *,
    folds: bool = False,
) -> PathIndex:
    """Return all directories of an export, by any of its locations, that belong to a record, a volume or an export."""
    index = PathIndex(folds=folds)
    for record in records:
        index.add(record.path, "record")
    taken = [(source.server, source.path) for volume in volumes if (source := volume.source) is not None]
    taken += [(other.server, other.path) for other in exports]
    for location in locations:
        for server, path in taken:
            below = location.relative(server, path)
            if below:
                index.add(below, "volume")
    return index


def find(facts: ExportFacts) -> list[Orphan]:
    """Return all orphans of one export, in the order of a listing."""
    found = [*_of_records(facts), *_unreadable(facts), *_unknown(facts)]
    return sorted(found, key=lambda each: (each.kind, each.directory, each.volume))


def _of_records(facts: ExportFacts) -> Iterator[Orphan]:
    silent = _silent(facts)
    for name, record in facts.records.items():
        if record.cluster in silent:
            kind, why = _CLUSTER_GONE, silent[record.cluster]
        elif name not in facts.left:
            continue
        elif name in facts.pending:
            kind, why = _ATTEMPT_LEFT, "its claim is gone and never got a volume, but the directory is not empty"
        else:
            kind, why = _VOLUME_GONE, "its PersistentVolume is gone, but the directory still exists"
        if record.retained or name in facts.volumes or facts.holder(record.path) is not None:
            continue
        yield Orphan(
            kind=kind,
            export=facts.export,
            directory=record.directory,
            volume=name,
            claim=f"{record.namespace}/{record.claim}",
            since=record.created,
            why=why,
            advice=_WAYS[kind].format(volume=name, cluster=record.cluster or "''"),
        )


_CLUSTER_GONE: Kind = "cluster-gone"
_ATTEMPT_LEFT: Kind = "attempt-left"
_VOLUME_GONE: Kind = "volume-gone"


def _silent(facts: ExportFacts) -> dict[str, str]:
    """Return the other clusters whose provisioners are not at work, each with the reason as text."""
    clusters = {record.cluster for record in facts.records.values()} - {facts.cluster}
    return {
        cluster: _silence(cluster, facts.signs.get(cluster))
        for cluster in clusters
        if is_silent(facts.signs.get(cluster, ""), facts.now)
    }


def is_silent(sign: str, now: datetime) -> bool:
    """Return True if a provisioner with this last sign has not been at work for minutes.

    An empty sign means that it never was.
    """
    last = times.parse(sign)
    return last is None or now - last > SILENT_AFTER


def _silence(cluster: str, sign: str | None) -> str:
    """Return a text that stays the same from look to look."""
    of = f"of cluster {cluster}" if cluster else "of its cluster, which the record does not name,"
    return f"no provisioner {of} has been at work on this export" + (f" since {sign}" if sign else "")


def _unreadable(facts: ExportFacts) -> Iterator[Orphan]:
    why = "this version cannot read this entry of the ledger"
    for name in facts.unreadable:
        yield Orphan("unreadable", facts.export, "", name, "", "", why, _WAYS["unreadable"])


def _unknown(facts: ExportFacts) -> Iterator[Orphan]:
    if not facts.unknown_directories:
        return
    # A claim may have got one of the directories since they were found.
    index = PathIndex(folds=facts.folds)
    for name, record in facts.records.items():
        index.add(record.path, name)
    why = "no record and no volume of this cluster uses the directory, and it is not empty"
    for path in facts.unknown_directories:
        if index.touching(path) is None and facts.holder(path) is None:
            yield Orphan("unknown", facts.export, "/".join(path), "", "", "", why, _WAYS["unknown"])

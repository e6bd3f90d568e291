"""Orphans: what lies on an export and belongs to no volume, by comparing its ledger and its directories with the API.

An orphan is told of, with what an admin can do about it, and never touched: whether somebody still wants the data is
nothing that a program can find out. What the class's rule left behind on purpose, archives and retained directories, is
none. Nor is anything in which a volume of the cluster lies, or that lies in one.
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
"""What a volume may lack: listed with the orphans, though it is none (core.lacking)."""

SILENT_AFTER = timedelta(minutes=10)
"""A provisioner that leads signs every export each minute; a rollout, or a node that is lost, takes a few."""

_WAYS: Mapping[Kind, str] = {
    "volume-gone": "to have the data again: nfs-provisioner recover --volume {volume} --apply;"
    " else remove the directory by hand: its record ends by itself then",
    "attempt-left": "see whose data that is and move it elsewhere, or have it as a volume:"
    " nfs-provisioner recover --volume {volume} --apply; once the directory is empty, it is removed with its record",
    "cluster-gone": "if that cluster is lost, this one can have its volumes: nfs-provisioner recover"
    " --cluster {cluster}; if it lives, see why its provisioner does not run",
    "unreadable": "if a newer version of the provisioner was here, let that one run again; else"
    " `nfs-provisioner recover --ledger` writes the record of a Bound volume again; remove what is left by hand",
    "unknown": "if somebody else uses the server as well, leave it; else see whose data it is, and move it elsewhere",
}


class Orphan(Struct, frozen=True):
    """One orphan, in the order in which a table shows it."""

    kind: Kind | Lack
    export: str
    directory: str
    """Relative to the export; empty for a ledger entry that does not say."""
    volume: str
    """The name in the ledger; empty for a directory of which the ledger knows nothing."""
    claim: str
    """`NAMESPACE/NAME`; empty where nothing says."""
    since: str
    """When its volume was begun: UTC, RFC 3339; empty where nothing says."""
    why: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """What was read of one export and of the cluster."""

    export: str
    """As people call it."""
    cluster: str
    """Ours."""
    records: Mapping[str, Record]
    pending: Set[str]
    unreadable: Set[str]
    signs: Mapping[str, str]
    """When a provisioner of which cluster was at work there last."""
    now: datetime
    volumes: Container[str]
    """The names of the cluster's volumes."""
    holder: Callable[[RelPath], object | None]
    """A volume of the cluster that has this directory, or one above or below it; None where there is none."""
    left: Set[str]
    """Those of doubtful() that are gone by a live look, while the directory is there; an attempt's holds something."""
    folds: bool = False
    """Whether the server takes names for one that differ in case, or in their normal form."""
    unknown_directories: Sequence[RelPath]
    """Directories that hold something and were on the way to nothing known when they were looked for."""


def doubtful(
    records: Mapping[str, Record],
    pending: Set[str],
    *,
    cluster: str,
    volumes: Container[str],
    waiting: Container[str],
) -> list[str]:
    """The volumes whose records have nobody behind them as far as is known, and that are worth a live look.

    `waiting` are the uids of the claims that may still get a volume. What a rule retained is beyond doubt.
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
    """All directories of an export, by any of its locations, that have an owner: a record, a volume, another export."""
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


def find(evidence: ExportFacts) -> list[Orphan]:
    """All orphans of one export, in the order of a listing."""
    found = [*_of_records(evidence), *_unreadable(evidence), *_unknown(evidence)]
    return sorted(found, key=lambda each: (each.kind, each.directory, each.volume))


def _of_records(evidence: ExportFacts) -> Iterator[Orphan]:
    silent = _silent(evidence)
    for name, record in evidence.records.items():
        if record.cluster in silent:
            kind, why = _CLUSTER_GONE, silent[record.cluster]
        elif name not in evidence.left:
            continue
        elif name in evidence.pending:
            kind, why = _ATTEMPT_LEFT, "its claim is gone and never got a volume, but the directory holds something"
        else:
            kind, why = _VOLUME_GONE, "its PersistentVolume is gone, but the directory is there"
        if record.retained or name in evidence.volumes or evidence.holder(record.path) is not None:
            continue
        yield Orphan(
            kind=kind,
            export=evidence.export,
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


def _silent(evidence: ExportFacts) -> dict[str, str]:
    """The other clusters whose provisioners are not at work, and how that is told."""
    clusters = {record.cluster for record in evidence.records.values()} - {evidence.cluster}
    return {
        cluster: _silence(cluster, evidence.signs.get(cluster))
        for cluster in clusters
        if is_silent(evidence.signs.get(cluster, ""), evidence.now)
    }


def is_silent(sign: str, now: datetime) -> bool:
    """Whether the provisioner of a cluster that signed then has not been at work for minutes; "" is never."""
    last = times.parse(sign)
    return last is None or now - last > SILENT_AFTER


def _silence(cluster: str, sign: str | None) -> str:
    """The same words from look to look."""
    of = f"of cluster {cluster}" if cluster else "of the cluster that it is of, which it does not name,"
    return f"no provisioner {of} has been at work on this export" + (f" since {sign}" if sign else "")


def _unreadable(evidence: ExportFacts) -> Iterator[Orphan]:
    why = "this entry of the ledger is no record that this version can read"
    for name in evidence.unreadable:
        yield Orphan("unreadable", evidence.export, "", name, "", "", why, _WAYS["unreadable"])


def _unknown(evidence: ExportFacts) -> Iterator[Orphan]:
    if not evidence.unknown_directories:
        return
    # Somebody may have got one of them since it was found.
    index = PathIndex(folds=evidence.folds)
    for name, record in evidence.records.items():
        index.add(record.path, name)
    why = "neither a record nor a volume of this cluster knows the directory, and it holds something"
    for path in evidence.unknown_directories:
        if index.touching(path) is None and evidence.holder(path) is None:
            yield Orphan("unknown", evidence.export, "/".join(path), "", "", "", why, _WAYS["unknown"])

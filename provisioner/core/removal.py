"""Whether an archive can be deleted, or an orphan archived, when an admin names it: the first reason against it counts.

Whatever is unknown is a reason. The ledger has checks of its own right before it moves anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from provisioner.core import names, neighbours, returned
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, Volume
from provisioner.core.orphans import Orphan
from provisioner.core.records import ArchiveRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFacts:
    """The facts about one archive, read live."""

    archive: str
    record: ArchiveRecord | None
    cluster: str
    """This cluster."""
    stopped: bool
    """Whether two instances with this cluster's id were at work on the export."""
    locations: Sequence[Location]
    """All that lead to the export."""
    folds: bool
    volumes: Sequence[Volume]
    claims: Sequence[Claim]


def why_not_delete(facts: ArchiveFacts) -> str:
    """Return why an archive must stay; empty if it can be deleted."""
    record = facts.record
    reasons: Iterable[str] = (
        STOPPED if facts.stopped else "",
        _of_another_cluster(record, facts.cluster),
        _holder(facts),
        _returned(record, facts.volumes),
        _wanted(facts),
    )
    return next(filter(None, reasons), "")


STOPPED = (
    "two clusters with one id were at work on the export, and nothing is deleted until an admin decides:"
    " see `nfs-provisioner instances`"
)


def _of_another_cluster(record: ArchiveRecord | None, cluster: str) -> str:
    if record is None or record.was.cluster == cluster:
        return ""
    return "it belongs to another cluster that shares the export: delete it in that cluster"


def _holder(facts: ArchiveFacts) -> str:
    for volume in facts.volumes:
        if neighbours.needs(volume, facts.locations, (facts.archive,), folds=facts.folds):
            return f"volume {volume.name} uses its directory: delete that volume first"
    return ""


def _returned(record: ArchiveRecord | None, volumes: Iterable[Volume]) -> str:
    for volume in volumes:
        if record is not None and volume.name == record.volume and returned.keeps(volume):
            return (
                f"its volume {volume.name} exists: `nfs-provisioner recover --volume {volume.name}` shows how to move"
                " the data back"
            )
    return ""


def _wanted(facts: ArchiveFacts) -> str:
    for claim in facts.claims:
        if claim.status.phase == "Pending" and claim.metadata.annotations.get(names.RESTORE) == facts.archive:
            return f"claim {claim.key} asks for it: delete that claim first"
    return ""


def why_not_archive(orphan: Orphan, *, stopped: bool, claim: Claim | None, claim_uid: str) -> str:
    """Return why an orphan cannot be archived; empty if it can.

    `claim` is the one that now has the name in its record, and `claim_uid` is the uid in the record.
    """
    if stopped:
        return STOPPED
    if orphan.kind not in ("volume-gone", "unknown"):
        return f"it is {orphan.kind}: {orphan.advice}"
    if claim is not None and claim_uid in ("", claim.uid):
        return (
            f"its claim {claim.key} still exists: `nfs-provisioner recover --volume {orphan.volume} --apply` gives it"
            " the volume back"
        )
    return ""

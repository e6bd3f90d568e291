"""What `check` finds of the running daemon and of its work: its Lease, its version, claims, volumes, default classes.

A missing daemon is a failure, for nothing is done without one. All else here is a warning: it may be what a tenant did,
or be over in a moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import datetime, timedelta

from provisioner.core import ledgers, mount_options, names
from provisioner.core.checks import Finding, Kind, Use
from provisioner.core.claims import ClaimView, Provision, Refuse, Wait, decide
from provisioner.core.errors import InvalidSettings
from provisioner.core.lacking import suspects
from provisioner.core.leases import LeaseRecord
from provisioner.core.ledgers import Ledger, Us
from provisioner.core.listing import age, listed
from provisioner.core.locations import NFS_PORT, Location, RelPath, label
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.orphans import Lack
from provisioner.core.records import Record
from provisioner.core.scope import count

LISTED = 10
"""Claims, and volumes, that are listed one by one, the oldest first."""
_NAMED = 5
"""Volumes that are named in one finding."""
_AHEAD = timedelta(seconds=5)
"""By how much the clock of a holder may be ahead of the API server's before its word is not taken."""


# ---------------------------------------------------------------------------------------------------- the daemon


def is_fresh(lease: LeaseRecord, now: datetime) -> bool:
    """Whether a lease was renewed within its duration, as far as the clocks agree; `now` is the API server's time.

    Where this says no, a second look is needed: only a change of the lease tells for sure.
    """
    renewed = _time(lease.renewed)
    if not lease.holder or renewed is None:
        return False
    return -_AHEAD <= now - renewed <= timedelta(seconds=lease.duration_s)


def leader(
    lease: LeaseRecord | None,
    *,
    held: bool,
    namespace: str,
    name: str,
    classes: Iterable[StorageClass],
    now: datetime,
) -> Finding:
    """Whether a daemon leads; `held` is what the looks at the lease came to."""
    where = f"{namespace}/{name}"
    if lease is not None and held:
        held_by = f"held by {lease.holder} since {lease.acquired or 'an unknown time'}"
        return Finding(kind="leader", name=where, ok=True, result=f"{held_by}, renewed {_when(lease, now)}")
    served = ", ".join(sorted(each.name for each in classes))
    return Finding(
        kind="leader",
        name=where,
        ok=False,
        result=_unheld(lease, now) + (f"; no daemon serves StorageClass {served}" if served else ""),
        advice=f"see whether its pods run: kubectl get pods -n {namespace} -l app.kubernetes.io/name=nfs-provisioner;"
        " where the daemon runs in another namespace, give that with --lease-namespace",
    )


def _unheld(lease: LeaseRecord | None, now: datetime) -> str:
    if lease is None:
        return "there is no such Lease"
    if not lease.holder:
        return f"no daemon holds the Lease, released {_when(lease, now)}"
    each = f"for {lease.duration_s:g} s each time"
    return f"the Lease is stale: {lease.holder} holds it, renewed {_when(lease, now)}, {each}"


def _when(lease: LeaseRecord, now: datetime) -> str:
    ago = age(lease.renewed, now)
    return f"{ago} ago" if ago else "at an unknown time"


def not_elected(namespace: str) -> Finding:
    """Without leader election nothing tells whether a daemon runs."""
    return Finding(
        kind="leader",
        name="(none)",
        ok=True,
        warning=True,
        result="leader election is off, so no Lease tells whether the daemon runs",
        advice=f"see that its pod runs: kubectl get pods -n {namespace} -l app.kubernetes.io/name=nfs-provisioner",
    )


def versions(command: str, lease: LeaseRecord | None) -> Finding:
    """The versions of this command and of the daemon that holds the lease."""
    daemon = lease.program if lease is not None else ""
    differ = bool(daemon) and daemon != command
    return Finding(
        kind="version",
        name="",
        ok=True,
        warning=differ,
        result=f"command {command}, daemon {daemon or 'unknown'}",
        advice="run the commands in the daemon's pod, with kubectl exec" if differ else "",
    )


# ---------------------------------------------------------------------------------------------------- its work


def pending(claims: Iterable[Claim], provisioner: str) -> list[Claim]:
    """The claims that the cluster handed to a provisioner and that have no volume, the oldest first."""
    waiting = [
        claim
        for claim in claims
        if claim.status.phase == "Pending" and claim.is_for(provisioner) and not claim.metadata.deletion_timestamp
    ]
    return sorted(waiting, key=lambda claim: (claim.metadata.creation_timestamp, claim.key))


def reckoned(
    claim: Claim,
    storage_class: StorageClass | None,
    provisioner: str,
    default_export: Location | None,
    failing: Mapping[str, str],
) -> str:
    """Why a claim has no volume, by the daemon's own rules; empty where they do not tell.

    `failing` are the exports that cannot be used, and why. Whether another volume has the directory is left out.
    """
    view = ClaimView(
        provisioner=provisioner,
        claim=claim,
        storage_class=storage_class,
        volume=None,
        default_export=default_export,
        holder=lambda export, path: None,
        now="",
    )
    match decide(view):
        case Refuse(message=message):
            return message
        case Wait(why):
            return why
        case Provision() as plan:
            where = label(plan.export, plan.mount_options.port)
            return f"export {where}: {failing[where]}" if where in failing else ""
    return ""


def unreclaimed(volumes: Iterable[Volume], provisioner: str) -> list[Volume]:
    """The volumes of a provisioner whose claims are gone, and that are to be reclaimed; the oldest first."""
    left = [
        volume
        for volume in volumes
        if volume.is_by(provisioner)
        and volume.status.phase in ("Released", "Failed")
        and volume.spec.persistent_volume_reclaim_policy == "Delete"
    ]
    return sorted(left, key=lambda volume: (volume.metadata.creation_timestamp, volume.name))


def waits(claim: Claim, reason: str, now: datetime) -> Finding:
    """A claim without a volume; `reason` is what was said of it last."""
    since = age(claim.metadata.creation_timestamp, now)
    meta = claim.metadata
    return Finding(
        kind="claim",
        name=claim.key,
        ok=True,
        warning=True,
        result=f"Pending for {since or 'an unknown time'}: {reason}",
        advice=f"kubectl describe pvc -n {meta.namespace} {meta.name}",
    )


def stays(volume: Volume, reason: str) -> Finding:
    """A volume that is not reclaimed; `reason` is what was said of it last."""
    return Finding(
        kind="volume",
        name=volume.name,
        ok=True,
        warning=True,
        result=f"{volume.status.phase}, with reclaim policy Delete, and not reclaimed: {reason}",
        advice=f"kubectl describe pv {volume.name}",
    )


def more(claims: int, volumes: int) -> list[Finding]:
    """What is not listed one by one."""
    rest: tuple[tuple[Kind, int, str, str], ...] = (
        ("claim", claims, f"{count(claims, 'more claim')}, Pending too", "kubectl get pvc -A"),
        ("volume", volumes, f"{count(volumes, 'more volume')}, not reclaimed either", "kubectl get pv"),
    )
    return [
        Finding(kind=kind, name="(more)", ok=True, warning=True, result=result, advice=advice)
        for kind, number, result, advice in rest
        if number > 0
    ]


def homeless(
    volumes: Iterable[Volume], provisioner: str, *, uses: Iterable[Use], mounted: Collection[Location]
) -> list[Finding]:
    """The exports of a provisioner's volumes that neither a class nor a setting names, with the volumes on each."""
    known = {(use.export, use.options.port or NFS_PORT) for use in uses}
    astray: defaultdict[str, list[str]] = defaultdict(list)
    for volume in volumes:
        source = volume.spec.nfs
        if not volume.is_by(provisioner) or source is None:
            continue
        port = _port(volume)
        if not any(
            where.relative(source.server, source.path) and (where in mounted or at == port) for where, at in known
        ):
            astray[_place(volume)].append(volume.name)
    return [_unknown_export(place, sorted(found)) for place, found in sorted(astray.items())]


def on_export(
    volumes: Iterable[Volume], use: Use, uses: Sequence[Use], mounted: Collection[Location]
) -> list[tuple[Volume, RelPath]]:
    """The volumes of NFS on an export, and on none of the others that lies in it, with their directories on it."""
    found = []
    for volume in volumes:
        source, port = volume.spec.nfs, _port(volume)
        if source is None:
            continue
        roots = [
            each.export
            for each in uses
            if each.export.relative(source.server, source.path)
            and (each.export in mounted or (each.options.port or NFS_PORT) == port)
        ]
        deepest = max(roots, key=lambda root: len(root.components), default=None)
        if deepest == use.export and (deepest in mounted or (use.options.port or NFS_PORT) == port):
            found.append((volume, deepest.relative(source.server, source.path) or ()))
    return found


def of_ledger(ledger: Ledger, found: Iterable[tuple[Volume, RelPath]], us: Us) -> list[Finding]:
    """Whether the ledger of an export is that of the volumes on it, and how many do not agree with their records."""
    ours = [(volume, path) for volume, path in found if ledgers.is_ours(volume, ledger, us)]
    where = ledger.place.all_locations
    carried = {
        volume.name: volume.metadata.annotations[names.EXPORT_ID]
        for volume, _ in ours
        if ledgers.is_marked_on(volume, where, us.provisioner)
    }
    if carried and ledger.place.id not in carried.values():
        lost = "its ledger has another id than they carry" if ledger.place.id else "its ledger is gone"
        result = f"{lost}: {count(len(carried), 'volume')} on it ({_shown(sorted(carried))})"
        return [Finding(kind="export", name=ledger.place.name, ok=False, result=result, advice=_RESTORE)]
    wrong = sorted(volume.name for volume, path in ours if ledgers.disagreement(volume, path, ledger, us))
    if not wrong:
        return []
    result = f"{count(len(wrong), 'volume')} whose record or export id does not agree: {_shown(wrong)}"
    return [Finding(kind="export", name=ledger.place.name, ok=True, warning=True, result=result, advice=_LIST)]


def lacking(
    export: str, used: Iterable[tuple[Volume, RelPath]], records: Mapping[str, Record], missing: Set[RelPath]
) -> list[Finding]:
    """How many of the volumes that claims have lack their directory or their record."""
    paths = {volume.name: path for volume, path in used}
    by_lack: defaultdict[Lack, list[str]] = defaultdict(list)
    for name, lack in suspects(paths, records, missing).items():
        by_lack[lack].append(name)
    return [
        Finding(
            kind="export",
            name=export,
            ok=True,
            warning=True,
            result=f"{count(len(names_), 'volume')} in use, {_LACKS[lack]}: {_shown(sorted(names_))}",
            advice="`nfs-provisioner orphans` says what to do about each; delete nothing before",
        )
        for lack, names_ in sorted(by_lack.items())
    ]


_LACKS: Mapping[Lack, str] = {"directory-missing": "without a directory", "record-missing": "without a record"}
_LIST = f"{ledgers.RECOVER} lists each of them with what to do about it"
_RESTORE = (
    f"bring back the export, or the ledger, that was there; if it is lost, {ledgers.RECOVER} shows what can be written"
    " again from the volumes"
)


def _shown(found: Sequence[str]) -> str:
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _unknown_export(place: str, found: Sequence[str]) -> Finding:
    return Finding(
        kind="export",
        name=place,
        ok=True,
        warning=True,
        result=f"{count(len(found), 'volume')} on it, and neither a StorageClass nor --export names it:"
        f" {_shown(found)}",
        advice="give it with --export (the chart's value exports), or correct the server's name",
    )


def _place(volume: Volume) -> str:
    """The volume's export; its server and path where the volume does not tell the one from the other."""
    found = listed(volume)
    return found.export if ":/" in found.export else f"{found.export}:{found.directory}"


def _port(volume: Volume) -> int:
    try:
        options = mount_options.parse(volume.spec.mount_options)
    except InvalidSettings:
        options = MountOptions()
    return options.port or NFS_PORT


def defaults(classes: Iterable[StorageClass], provisioner: str) -> list[Finding]:
    """More than one default class, one of them of this provisioner: claims without a class get the newest."""
    found = sorted(
        (each for each in classes if any(each.metadata.annotations.get(key) == "true" for key in _DEFAULT)),
        key=lambda each: each.name,
    )
    if len(found) < 2 or not any(each.provisioner == provisioner for each in found):
        return []
    return [
        Finding(
            kind="StorageClass",
            name="(default)",
            ok=True,
            warning=True,
            result=f"{len(found)} classes are the default, and a claim without a class gets the newest:"
            f" {', '.join(each.name for each in found)}",
            advice=f"keep one: kubectl annotate sc CLASS {_DEFAULT[0]}=false --overwrite",
        )
    ]


_DEFAULT = names.DEFAULT_CLASS_ANNOTATIONS


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None

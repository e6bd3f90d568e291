"""What `check` reports of the running daemon and of its work: Lease, version, claims, volumes, default classes.

A missing daemon is a failure, since nothing works without it. Everything else here is a warning: a tenant can be the
cause, or it can be over in a moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import datetime, timedelta

from provisioner.core import ledgers, mount_options, names, paths
from provisioner.core.checks import Finding, Kind, Use
from provisioner.core.claims import ClaimView, Provision, Refuse, Wait, decide
from provisioner.core.errors import InvalidSettings
from provisioner.core.lacking import suspects
from provisioner.core.leases import LeaseRecord
from provisioner.core.ledgers import Installation, Ledger
from provisioner.core.listing import age, listed
from provisioner.core.locations import NFS_PORT, Location, RelPath, label
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.orphans import Lack
from provisioner.core.records import Record
from provisioner.core.scope import count

LISTED = 10
"""Number of claims, and of volumes, that are listed one by one, oldest first."""
_NAMED = 5
"""Number of volumes that one finding names."""
_AHEAD = timedelta(seconds=5)
"""How far the clock of a holder can be ahead of the API server's before its renewal is not believed."""


# ---------------------------------------------------------------------------------------------------- the daemon


def is_fresh(lease: LeaseRecord, now: datetime) -> bool:
    """Return True if a lease was renewed within its duration; `now` is the API server's time.

    Clocks differ: if this returns False, a second look is needed, since only a change of the lease is proof.
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
    """Report whether a daemon leads; `held` is the result of the looks at the lease."""
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
        advice=f"check whether its pods run: kubectl get pods -n {namespace} -l app.kubernetes.io/name=nfs-provisioner;"
        " if the daemon runs in another namespace, set --lease-namespace to it",
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
    """Report that leader election is off, so that it is unknown whether a daemon runs."""
    return Finding(
        kind="leader",
        name="(none)",
        ok=True,
        warning=True,
        result="leader election is off, so no Lease shows whether the daemon runs",
        advice=f"check that its pod runs: kubectl get pods -n {namespace} -l app.kubernetes.io/name=nfs-provisioner",
    )


def versions(command: str, lease: LeaseRecord | None) -> Finding:
    """Report the versions of this command and of the daemon that holds the lease."""
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
    """Return the claims that the cluster assigned to a provisioner and that have no volume, oldest first."""
    waiting = [
        claim
        for claim in claims
        if claim.status.phase == "Pending" and claim.is_for(provisioner) and not claim.metadata.deletion_timestamp
    ]
    return sorted(waiting, key=lambda claim: (claim.metadata.creation_timestamp, claim.key))


def expected_reason(
    claim: Claim,
    storage_class: StorageClass | None,
    provisioner: str,
    default_export: Location | None,
    failing: Mapping[str, str],
) -> str:
    """Return why a claim has no volume, by the daemon's own rules; empty if they give no reason.

    `failing` are the exports that cannot be used, with the reason. Conflicts with other volumes are not checked.
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
    """Return the volumes of a provisioner that wait to be reclaimed, oldest first."""
    left = [
        volume
        for volume in volumes
        if volume.is_by(provisioner)
        and volume.status.phase in ("Released", "Failed")
        and volume.spec.persistent_volume_reclaim_policy == "Delete"
    ]
    return sorted(left, key=lambda volume: (volume.metadata.creation_timestamp, volume.name))


def waits(claim: Claim, reason: str, now: datetime) -> Finding:
    """Report a claim without a volume.

    `reason` is its latest event, or the reason that the rules give.
    """
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
    """Report a volume that is not reclaimed; `reason` is its latest event."""
    return Finding(
        kind="volume",
        name=volume.name,
        ok=True,
        warning=True,
        result=f"{volume.status.phase}, with reclaim policy Delete, and not reclaimed: {reason}",
        advice=f"kubectl describe pv {volume.name}",
    )


def more(claims: int, volumes: int) -> list[Finding]:
    """Report how many claims and volumes are not listed one by one."""
    rest: tuple[tuple[Kind, int, str, str], ...] = (
        ("claim", claims, f"{count(claims, 'more claim')}, also Pending", "kubectl get pvc -A"),
        ("volume", volumes, f"{count(volumes, 'more volume')}, also not reclaimed", "kubectl get pv"),
    )
    return [
        Finding(kind=kind, name="(more)", ok=True, warning=True, result=result, advice=advice)
        for kind, number, result, advice in rest
        if number > 0
    ]


def on_unknown_exports(
    volumes: Iterable[Volume], provisioner: str, *, uses: Iterable[Use], mounted: Collection[Location]
) -> list[Finding]:
    """Report the exports of a provisioner's volumes that neither a class nor a setting names."""
    known = {(use.export, use.options.port or NFS_PORT) for use in uses}
    unknown: defaultdict[str, list[str]] = defaultdict(list)
    for volume in volumes:
        source = volume.spec.nfs
        if not volume.is_by(provisioner) or source is None:
            continue
        port = _port(volume)
        if not any(
            where.relative(source.server, source.path) and (where in mounted or at == port) for where, at in known
        ):
            unknown[_place(volume)].append(volume.name)
    return [_unknown_export(place, sorted(found)) for place, found in sorted(unknown.items())]


def on_export(
    volumes: Iterable[Volume], use: Use, uses: Sequence[Use], mounted: Collection[Location]
) -> list[tuple[Volume, RelPath]]:
    """Return the NFS volumes on an export with their directories.

    Those on another export inside of it are left out.
    """
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


def of_ledger(ledger: Ledger, found: Iterable[tuple[Volume, RelPath]], own: Installation) -> list[Finding]:
    """Report whether an export has the ledger of its volumes, and how many volumes do not match their records."""
    checked = [(volume, path) for volume, path in found if ledgers.is_own(volume, ledger, own)]
    where = ledger.place.all_locations
    carried = {
        volume.name: volume.metadata.annotations[names.EXPORT_ID]
        for volume, _ in checked
        if ledgers.is_marked_on(volume, where, own.provisioner)
    }
    if carried and ledger.place.id not in carried.values():
        lost = "its ledger has another id than its volumes" if ledger.place.id else "its ledger is gone"
        result = f"{lost}: {count(len(carried), 'volume')} on it ({_shown(sorted(carried))})"
        return [Finding(kind="export", name=ledger.place.name, ok=False, result=result, advice=_RESTORE)]
    wrong = sorted(volume.name for volume, path in checked if ledgers.disagreement(volume, path, ledger, own))
    if not wrong:
        return []
    result = f"{count(len(wrong), 'volume')} whose record or export id does not match: {_shown(wrong)}"
    return [Finding(kind="export", name=ledger.place.name, ok=True, warning=True, result=result, advice=_LIST)]


def lacking(
    export: str, used: Iterable[tuple[Volume, RelPath]], records: Mapping[str, Record], missing: Set[RelPath]
) -> list[Finding]:
    """Report how many volumes in use lack their directory or their record."""
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
            advice="`nfs-provisioner orphans` says what to do about each; delete nothing until then",
        )
        for lack, names_ in sorted(by_lack.items())
    ]


_LACKS: Mapping[Lack, str] = {"directory-missing": "without a directory", "record-missing": "without a record"}
_LIST = f"{ledgers.RECOVER} lists each of them with what to do"
_RESTORE = (
    f"restore the previous export or its {paths.LEDGER}; if it is lost, {ledgers.RECOVER} shows which records can be"
    " rewritten from the PersistentVolumes"
)


def _shown(found: Sequence[str]) -> str:
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _unknown_export(place: str, found: Sequence[str]) -> Finding:
    return Finding(
        kind="export",
        name=place,
        ok=True,
        warning=True,
        result=f"{count(len(found), 'volume')} on it, but neither a StorageClass nor --export names it:"
        f" {_shown(found)}",
        advice="name it with --export (chart value exports), or correct the server's name",
    )


def _place(volume: Volume) -> str:
    """Return the volume's export.

    It is server and whole path if the volume does not say where its export ends.
    """
    found = listed(volume)
    return found.export if ":/" in found.export else f"{found.export}:{found.directory}"


def _port(volume: Volume) -> int:
    try:
        options = mount_options.parse(volume.spec.mount_options)
    except InvalidSettings:
        options = MountOptions()
    return options.port or NFS_PORT


def defaults(classes: Iterable[StorageClass], provisioner: str) -> list[Finding]:
    """Report several default classes, one of them this provisioner's: claims without a class get the newest."""
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

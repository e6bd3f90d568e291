"""The work of `check`: asks the API server, then all exports concurrently, and collects the findings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from provisioner import __version__
from provisioner.commands.session import connect, list_all
from provisioner.commands.warning_events import Warnings, read_warnings
from provisioner.commands.wiring import build_registry
from provisioner.core import agents, checks, classes, health, snapshot_classes, snapshot_health
from provisioner.core.agents import Wish
from provisioner.core.checks import Finding, Use
from provisioner.core.errors import InvalidSettings
from provisioner.core.lacking import is_in_use
from provisioner.core.leases import LeaseRecord
from provisioner.core.ledgers import Installation, Ledger
from provisioner.core.locations import Location, RelPath, label
from provisioner.core.objects import Claim, Snapshot, SnapshotClass, StorageClass, Volume
from provisioner.core.scope import count
from provisioner.core.snapshot_health import SnapshotFacts
from provisioner.kube.cluster import KubeCluster, Limits
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, ledger_of
from provisioner.ledger.selftest import TrialRun, trial_run
from provisioner.ports.aio import map_bounded
from provisioner.ports.cluster import ApiUnavailable, Cluster, ClusterError, KindMissing
from provisioner.ports.tree import Cause, ExportError, Tree
from provisioner.settings import Settings

_CALL_S = 4.0
"""Time limit for one call: the admin waits for all of them."""
_EXPORT_S = 8.0
"""Time limit for one export."""
_LEASE_S = 8.0
"""How long to watch a Lease that seems to have no holder."""
_POLL_S = 0.5
_UNEXPECTED = "check the API server, and that --kubeconfig names the right one"
_CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, and a summary of what was checked."""

    findings: Sequence[Finding]
    scope: str


@dataclass(slots=True)
class _Seen:
    """What the API server returned; the rest stays empty."""

    classes: Sequence[StorageClass] = ()
    volumes: Sequence[Volume] = ()
    cluster: str = ""
    """The cluster's UID."""
    claims: Sequence[Claim] = ()
    snapshots: SnapshotFacts | None = None
    warnings: Warnings = field(default_factory=Warnings)
    """The last warning event about each claim and volume."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    """The API server's time, if its answers have one."""


async def run_checks(settings: Settings) -> Report:
    """Check the daemon and everything that it needs.

    Only creates and removes one directory per export. Up to 32 hanging exports take four seconds together; a hanging
    API server takes four seconds per call; a Lease that looks stale is watched for some seconds more.
    Raises InvalidSettings.
    """
    settings = replace(settings, nfs_timeout_s=min(settings.nfs_timeout_s, _CALL_S))
    async with connect(settings, limits=Limits(call_s=_CALL_S)) as cluster:
        findings, seen = await _ask_cluster(cluster, settings)
    own = [each for each in seen.classes if each.provisioner == settings.provisioner]
    judged = [checks.judge(each, settings.default_export) for each in own]
    mounted = {each.location for each in settings.exports if each.directory}
    uses = checks.uses(
        [use for _, use in judged if use is not None],
        [*(each.location for each in settings.exports), *_of_snapshots(seen, settings.provisioner)],
        mounted,
    )
    on = [(each, checks.use_of(use, mounted)) for each, (_, use) in zip(own, judged, strict=True) if use is not None]
    tried = await map_bounded(
        lambda use: _try_export(
            use,
            settings,
            health.on_export(seen.volumes, use, uses, mounted),
            agents.wishes(each for each, of_class in on if of_class == use),
            seen.now,
        ),
        uses,
        limit=_CONCURRENCY,
    )
    exports = [each.finding for each in tried]
    return Report(
        [
            *findings,
            *(finding for finding, _ in judged),
            *health.defaults(seen.classes, settings.provisioner),
            *exports,
            *health.on_unknown_exports(seen.volumes, settings.provisioner, uses=uses, mounted=mounted),
            *_of_ledgers(settings, seen, dict(zip(uses, (each.ledger for each in tried), strict=True)), mounted),
            *(finding for each in tried for finding in (*each.agent, *each.lacking)),
            *(snapshot_health.judge(seen.snapshots) if seen.snapshots is not None else ()),
            *_work(settings, seen, exports),
        ],
        _looked_at(settings, seen, exports=len(uses)),
    )


def _of_snapshots(seen: _Seen, provisioner: str) -> list[Location]:
    """Return the exports on which VolumeSnapshotClasses keep snapshots."""
    found = seen.snapshots.classes if seen.snapshots is not None else None
    return snapshot_classes.exports_of(found or (), provisioner)


def _of_ledgers(
    settings: Settings, seen: _Seen, ledgers: Mapping[Use, Ledger | None], mounted: Collection[Location]
) -> list[Finding]:
    """Check that ledgers and volumes agree; each export once, even if it is reached in several ways."""
    if not seen.cluster:
        return []
    own = Installation(provisioner=settings.provisioner, cluster=seen.cluster)
    read = {label(use.export, use.options.port): (use, ledger) for use, ledger in ledgers.items() if ledger is not None}
    return [
        finding
        for use, ledger in read.values()
        for finding in health.of_ledger(ledger, health.on_export(seen.volumes, use, list(ledgers), mounted), own)
    ]


def _looked_at(settings: Settings, seen: _Seen, *, exports: int) -> str:
    classes = sum(each.provisioner == settings.provisioner for each in seen.classes)
    volumes = sum(each.is_by(settings.provisioner) for each in seen.volumes)
    counted = (count(classes, "StorageClass"), count(exports, "export"), count(volumes, "volume"))
    return f"provisioner {settings.provisioner}: looked at {', '.join(counted)}"


async def _ask_cluster(cluster: KubeCluster, settings: Settings) -> tuple[list[Finding], _Seen]:
    """Check the API server, the permissions and the daemon, and read the objects; as far as the server answers."""
    seen = _Seen()
    try:
        await cluster.ping()
    except ClusterError as exc:
        return [_api_finding(exc)], seen
    of_classes: list[Finding] = []
    try:
        seen.classes = await list_all(cluster, StorageClass)
    except ClusterError as exc:
        of_classes.append(replace(_api_finding(exc), kind="StorageClass", name="(unknown)"))
    else:
        names = Counter(each.provisioner for each in seen.classes)
        if settings.provisioner not in names:
            of_classes.append(checks.no_class(settings.provisioner, names))
    own = [each for each in seen.classes if each.provisioner == settings.provisioner]
    findings = [
        Finding(kind="API server", name="", ok=True, result="responding and ready"),
        *await _ask_permissions(cluster, settings, auto_grow=any(wish.grows for wish in agents.wishes(own))),
        *of_classes,
    ]
    findings += await _ask_leader(cluster, settings, seen.classes)
    try:
        seen.volumes, seen.claims = await list_all(cluster, Volume), await list_all(cluster, Claim)
        seen.cluster = await cluster.cluster_uid()
    except ClusterError as exc:
        findings.append(replace(_api_finding(exc), kind="volume", name="(unknown)"))
    findings += await _ask_snapshots(cluster, settings, seen)
    await _ask_why(cluster, settings, seen)
    return findings, seen


async def _ask_snapshots(cluster: Cluster, settings: Settings, seen: _Seen) -> list[Finding]:
    """Read the objects of snapshots, if they are enabled or a class needs them."""
    scheduled = sorted(each.name for each in seen.classes if each.provisioner == settings.provisioner and _snaps(each))
    of_snapshots: list[SnapshotClass] | None = None
    snapshots: list[Snapshot] = []
    if settings.snapshots:
        try:
            of_snapshots = await list_all(cluster, SnapshotClass)
            snapshots = await list_all(cluster, Snapshot)
        except KindMissing:
            of_snapshots = None
        except ClusterError as exc:
            return [replace(_api_finding(exc), kind="snapshots", name="(unknown)")]
    seen.snapshots = SnapshotFacts(
        driver=settings.provisioner,
        enabled=settings.snapshots,
        scheduled=scheduled,
        classes=of_snapshots,
        snapshots=snapshots,
        now=_now(cluster),
    )
    return []


def _snaps(storage_class: StorageClass) -> bool:
    """Return True if a class makes snapshots of its volumes."""
    try:
        return classes.parameters_of(storage_class).schedule is not None
    except InvalidSettings:
        return False  # another finding says so


# ---------------------------------------------------------------------------------------------------- the daemon


async def _ask_leader(cluster: KubeCluster, settings: Settings, classes: Sequence[StorageClass]) -> list[Finding]:
    """Report the leader and its version."""
    namespace, name = settings.lease_namespace, settings.lease_name
    if not settings.leader_election:
        return [health.not_elected(namespace), health.versions(__version__, None)]
    try:
        lease, held = await _watch_lease(cluster, settings)
    except ClusterError as exc:
        return [replace(_api_finding(exc), kind="leader", name=f"{namespace}/{name}")]
    found = health.leader(
        lease,
        held=held,
        namespace=namespace,
        name=name,
        classes=[each for each in classes if each.provisioner == settings.provisioner],
        now=_now(cluster),
    )
    return [found, health.versions(__version__, lease if held else None)]


async def _watch_lease(cluster: Cluster, settings: Settings) -> tuple[LeaseRecord | None, bool]:
    """Return the Lease, and whether a daemon holds it: the Lease is fresh, or is renewed while it is watched.

    Watching is needed because clocks can differ, and because right after a rollout the next leader has yet to take it.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + min(_LEASE_S, 3 * settings.lease_times.retry_period_s)
    first = lease = await cluster.get_lease(settings.lease_namespace, settings.lease_name)
    while True:
        renewed = lease is not None and bool(lease.holder) and lease != first
        if renewed or (lease is not None and health.is_fresh(lease, _now(cluster))):
            return lease, True
        if loop.time() >= ends_s:
            return lease, False
        await asyncio.sleep(_POLL_S)
        lease = await cluster.get_lease(settings.lease_namespace, settings.lease_name)


def _now(cluster: Cluster) -> datetime:
    """Return the API server's time, which decides whether a Lease is fresh; the local time if that is unknown."""
    return cluster.server_time() or datetime.now(UTC)


# ---------------------------------------------------------------------------------------------------- pending work


async def _ask_why(cluster: KubeCluster, settings: Settings, seen: _Seen) -> None:
    """Read the last warning about each pending claim and each volume that is not reclaimed."""
    seen.now = _now(cluster)
    claims = health.pending(seen.claims, settings.provisioner)[: health.LISTED]
    volumes = health.unreclaimed(seen.volumes, settings.provisioner)[: health.LISTED]
    about = {claim.uid: claim.metadata.namespace for claim in claims}
    about |= {volume.metadata.uid: "default" for volume in volumes}
    seen.warnings = await read_warnings(cluster, about)


def _work(settings: Settings, seen: _Seen, exports: Sequence[Finding]) -> list[Finding]:
    """Report pending claims and volumes that are not reclaimed, each with its last warning or the present reason."""
    claims = health.pending(seen.claims, settings.provisioner)
    volumes = health.unreclaimed(seen.volumes, settings.provisioner)
    classes = {each.name: each for each in seen.classes}
    failing = {each.name: f"{each.result}; {each.advice}" for each in exports if not each.ok}

    def why(claim: Claim) -> str:
        return seen.warnings.of.get(claim.uid) or health.expected_reason(
            claim, classes.get(claim.class_name), settings.provisioner, settings.default_export, failing
        )

    return [
        *(health.waits(claim, why(claim) or seen.warnings.none, seen.now) for claim in claims[: health.LISTED]),
        *(
            health.stays(volume, seen.warnings.of.get(volume.metadata.uid) or seen.warnings.none)
            for volume in volumes[: health.LISTED]
        ),
        *health.more(len(claims) - health.LISTED, len(volumes) - health.LISTED),
    ]


# ---------------------------------------------------------------------------------------------------- permissions


async def _ask_permissions(cluster: Cluster, settings: Settings, *, auto_grow: bool) -> list[Finding]:
    lease = (settings.lease_namespace, settings.lease_name) if settings.leader_election else None
    wanted = checks.permissions(lease=lease, auto_grow=auto_grow, snapshots=settings.snapshots)
    try:
        answers = await asyncio.gather(*(cluster.is_allowed(permission) for permission in wanted))
    except ClusterError as exc:
        return [replace(_api_finding(exc), kind="permission", name="(unknown)")]
    return checks.permitted(dict(zip(wanted, answers, strict=True)))


def _api_finding(error: ClusterError) -> Finding:
    advice = error.advice
    if isinstance(error, ApiUnavailable):
        advice = "check that it is running and reachable from here, and that --kubeconfig names the right one"
    return Finding(kind="API server", name="", ok=False, result=str(error), advice=advice or _UNEXPECTED)


# ---------------------------------------------------------------------------------------------------- exports


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a trial of an export showed."""

    finding: Finding
    ledger: Ledger | None = None
    agent: Sequence[Finding] = ()
    """About the quota agent of the export."""
    lacking: Sequence[Finding] = ()
    """About volumes on the export that lack their directory or record."""


async def _try_export(
    use: Use, settings: Settings, volumes: Sequence[tuple[Volume, RelPath]], wanted: Sequence[Wish], now: datetime
) -> _Tried:
    """Use one export as the daemon would for this class, and read its ledger."""
    name, manner = label(use.export, use.options.port), checks.manner(use.options)
    by = f"with {' '.join(manner)}: " if manner else ""
    trees: dict[Export, Tree] = {}
    own = tuple(each for each in settings.exports if each.location == use.export)
    exports = build_registry(replace(settings, exports=own), reached=trees.__setitem__)
    try:
        export = exports.get(use.export, use.options)
        async with asyncio.timeout(_EXPORT_S):
            done = await trial_run(trees[export])
        read = await _read(export, exports)
        return _Tried(
            _reached(name, by, done, read=read is not None),
            read,
            await _agent(name, export, read, wanted, now),
            await _lacking(export, read, volumes, settings.provisioner),
        )
    except ExportError as exc:
        return _Tried(Finding(kind="export", name=name, ok=False, result=f"{by}{exc}", advice=exc.advice))
    except TimeoutError:
        late = ExportError(Cause.UNREACHABLE, f"not done within {_EXPORT_S:g} s")
        return _Tried(Finding(kind="export", name=name, ok=False, result=f"{by}{late}", advice=late.advice))
    finally:
        for each in exports:
            await each.close()


def _reached(name: str, by: str, done: TrialRun, *, read: bool) -> Finding:
    gib = 1 << 30
    room = f"{done.space.free_bytes / gib:.1f} of {done.space.size_bytes / gib:.1f} GiB free"
    ledger = "" if done.ledger else "; no ledger yet, the first start of the daemon creates it"
    if not read:
        ledger = f"; the ledger was not read within {_EXPORT_S:g} s"
    modes = f"; the server does not set modes ({done.mode_refused})" if done.mode_refused else ""
    return Finding(kind="export", name=name, ok=True, result=f"{by}reachable and writable, {room}{ledger}{modes}")


async def _agent(
    name: str, export: Export, ledger: Ledger | None, wanted: Sequence[Wish], now: datetime
) -> Sequence[Finding]:
    """Report the quota agent; nothing if that takes too long. Raises ExportError."""
    asking = sum(record.quota != "none" for record in ledger.records.values()) if ledger is not None else 0
    try:
        async with asyncio.timeout(_EXPORT_S):
            heartbeat = await export.answers.heartbeat()
    except TimeoutError:
        return ()
    return agents.of_agent(name, heartbeat, wanted, asking=asking, now=now)


async def _lacking(
    export: Export, ledger: Ledger | None, volumes: Sequence[tuple[Volume, RelPath]], provisioner: str
) -> Sequence[Finding]:
    """Report volumes that lack their directory or record; nothing if that takes too long. Raises ExportError."""
    if ledger is None or not ledger.place.id:
        return ()
    used = [(volume, path) for volume, path in volumes if is_in_use(volume, path, provisioner)]
    try:
        async with asyncio.timeout(_EXPORT_S):
            missing = await export.missing(path for _, path in used)
    except TimeoutError:
        return ()
    return health.lacking(ledger.place.name, used, ledger.records, missing)


async def _read(export: Export, exports: ExportRegistry) -> Ledger | None:
    """Read the ledger; None if it could not be read in time. Raises ExportError."""
    try:
        async with asyncio.timeout(_EXPORT_S):
            await export.open(create=False)
    except TimeoutError:
        return None
    except ExportError as exc:
        if exc.cause is not Cause.NO_LEDGER:
            raise
    return ledger_of(export, exports.places)

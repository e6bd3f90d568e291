"""The composition root of `check`: asks the API server, then all exports side by side, and gives what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from provisioner.core import checks
from provisioner.core.checks import Finding, Use
from provisioner.core.objects import StorageClass
from provisioner.exports import served
from provisioner.kube.cluster import Limits, open_cluster
from provisioner.kube.pages import classes_of
from provisioner.nfs.rehearsal import Rehearsal, rehearse
from provisioner.ports import ApiUnavailable, Cause, Cluster, ClusterError, Export, ExportError, Tree
from provisioner.settings import Settings, identity

_CALL_S = 4.0
"""The longest that one call may take: somebody waits for all of them."""
_EXPORT_S = 8.0
_EXPORTS_AT_ONCE = 32


async def inspect(settings: Settings) -> list[Finding]:
    """Everything that must be right for the daemon to work, whether it is or not.

    The only thing that is changed is a directory that is made on each export and taken away. Up to 32 exports that hang
    cost four seconds together, an API server that hangs as much a call. Raises InvalidSettings.
    """
    settings = replace(settings, nfs_timeout_s=min(settings.nfs_timeout_s, _CALL_S))
    async with open_cluster(
        settings.kubeconfig,
        provisioner=settings.provisioner,
        identity=identity(),
        limits=Limits(call_s=_CALL_S),
    ) as cluster:
        findings, classes = await _ask_cluster(cluster, settings)
    judged = [checks.judge(each, settings.default_export) for each in classes]
    uses = checks.uses(
        [use for _, use in judged if use is not None],
        [each.location for each in settings.exports],
        {each.location for each in settings.exports if each.directory},
    )
    at_once = asyncio.Semaphore(_EXPORTS_AT_ONCE)
    exports = await asyncio.gather(*(_try_export(use, settings, at_once) for use in uses))
    return [*findings, *(finding for finding, _ in judged), *exports]


async def _ask_cluster(cluster: Cluster, settings: Settings) -> tuple[list[Finding], Sequence[StorageClass]]:
    """What the API server lets us do, and our classes; none where it does not tell."""
    try:
        await cluster.ping()
    except ClusterError as exc:
        return [_api_finding(exc)], ()
    findings = [
        Finding(kind="API server", name="", ok=True, result="it answers and is ready"),
        *await _ask_permissions(cluster, settings),
    ]
    try:
        classes = await classes_of(cluster, settings.provisioner)
    except ClusterError as exc:
        return [*findings, replace(_api_finding(exc), kind="StorageClass", name="(unknown)")], ()
    if not classes:
        findings.append(checks.no_class(settings.provisioner))
    return findings, classes


async def _ask_permissions(cluster: Cluster, settings: Settings) -> list[Finding]:
    lease = (settings.lease_namespace, settings.lease_name) if settings.leader_election else None
    wanted = checks.permissions(lease=lease)
    try:
        answers = await asyncio.gather(*(cluster.may(permission) for permission in wanted))
    except ClusterError as exc:
        return [replace(_api_finding(exc), kind="permission", name="(unknown)")]
    return checks.permitted(dict(zip(wanted, answers, strict=True)))


def _api_finding(error: ClusterError) -> Finding:
    advice = "give us a token, and a role, that the API server accepts"
    if isinstance(error, ApiUnavailable):
        advice = "see that it runs, that it can be reached from here, and that --kubeconfig names the right one"
    return Finding(kind="API server", name="", ok=False, result=str(error), advice=advice)


async def _try_export(use: Use, settings: Settings, at_once: asyncio.Semaphore) -> Finding:
    """Reach one export in the way in which the daemon would if this were the only class."""
    name = checks.way(use)
    async with at_once:
        try:
            done = await _rehearse(use, settings)
        except ExportError as exc:
            return Finding(kind="export", name=name, ok=False, result=str(exc), advice=exc.advice)
    gib = 1 << 30
    room = f"{done.space.free_bytes / gib:.1f} of {done.space.size_bytes / gib:.1f} GiB free"
    ledger = "" if done.ledger else "; it has no ledger yet, the first start makes it"
    return Finding(kind="export", name=name, ok=True, result=f"reachable and writable, {room}{ledger}")


async def _rehearse(use: Use, settings: Settings) -> Rehearsal:
    """Raises ExportError, UNREACHABLE too when it all takes too long."""
    trees: dict[Export, Tree] = {}
    own = tuple(each for each in settings.exports if each.location == use.export)
    exports = served(replace(settings, exports=own), reached=trees.__setitem__)
    try:
        tree = trees[exports.at(use.export, use.options)]
        async with asyncio.timeout(_EXPORT_S):
            return await rehearse(tree)
    except TimeoutError as exc:
        raise ExportError(Cause.UNREACHABLE, f"not done within {_EXPORT_S:g} s") from exc
    finally:
        for export in exports:
            await export.close()

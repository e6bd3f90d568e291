"""Expansion of bound volumes, step by step, as core.expansion decides.

The ledger records the new size: afterwards, or first for a volume with `quota: required`, which then waits until the
quota agent on the server enforces that size.
"""

from __future__ import annotations

from contextlib import suppress

import structlog
from msgspec import structs

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.enforcement import PATIENCE, shortfall
from provisioner.controllers.free_space import space_conflict
from provisioner.core import classes, expansion, names
from provisioner.core.backoff import is_logged
from provisioner.core.enforcement import Shortfall
from provisioner.core.errors import InvalidRecord, InvalidSettings
from provisioner.core.expansion import Expansion, outgrown
from provisioner.core.objects import Claim, Volume
from provisioner.core.parameters import ClassParameters
from provisioner.core.reasons import Reason
from provisioner.core.records import quota_of, require_room
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ApiUnavailable, ClusterError, Conflict, NotFound, Rejected
from provisioner.ports.tree import ExportError
from provisioner.runtime.requeue import ENFORCING, FAILED, REFUSED, Requeue

log = structlog.get_logger(__name__)


async def expand(claim: Claim, ctx: ControllerContext, *, tries: int = 0) -> Requeue | None:
    """Grow the volume of a bound claim that asks for more. `tries` is the number of looks in a row before this one."""
    volume = ctx.cache.volumes.get(claim.spec.volume_name)
    now = ctx.stamp()
    plan = expansion.decide(claim, volume, ctx.provisioner, now)
    if plan is None or volume is None:
        return None
    refused = await _refuse_without_room(plan, claim, volume, ctx)
    if refused is not None:
        return refused
    recorder = ctx.recorder
    try:
        lacking = await _carry_out(plan, claim, volume, ctx)
        if lacking is not None:
            return await _wait(plan, claim, lacking, ctx, tries)
    except ExportError as exc:
        return _refuse(plan, claim, volume, ctx, exc.reason, exc.event_message(_export_name(volume, ctx)), FAILED)
    except InvalidRecord as exc:
        return _refuse(plan, claim, volume, ctx, exc.reason, str(exc), REFUSED)
    except Rejected as exc:
        ctx.metrics.failures.labels("resize", exc.reason).inc()
        recorder.claim(claim, "Warning", names.VOLUME_RESIZE_FAILED, f"resizing to {plan.size}: {exc}")
        with suppress(ClusterError):
            await ctx.cluster.patch_claim_status(
                claim.metadata.namespace, claim.metadata.name, expansion.failed(str(exc), now)
            )
        return REFUSED
    except (Conflict, NotFound, ApiUnavailable) as exc:
        # In most cases an object changed since it was read, and the watch will deliver the change.
        log.info("resize_interrupted", claim=claim.key, volume=volume.name, error=str(exc))
        return FAILED
    recorder.claim(claim, "Normal", names.VOLUME_RESIZE_SUCCESSFUL, f"resized volume {volume.name} to {plan.size}")
    log.info("volume_resized", claim=claim.key, volume=volume.name, size=plan.size)
    await _record_now(volume, plan.size, ctx)
    return None


async def _refuse_without_room(plan: Expansion, claim: Claim, volume: Volume, ctx: ControllerContext) -> Requeue | None:
    """Refuse the expansion if the class's `minFree` or `overcommit` leave no room.

    Returns None if there is room.
    """
    located, parameters = ctx.exports.locate(volume), _parameters(volume, ctx)
    if plan.grow is None or located is None or parameters is None or not parameters.limits_space:
        return None
    export, _ = located
    ctx.health.add(export, named=False)
    try:
        export = await ctx.health.require_ready(export)
        refusal = space_conflict(ctx, export, parameters, plan.size, volume_name=volume.name)
        if refusal is None:
            return None
        reason, message, requeue = refusal.reason, refusal.message, REFUSED
    except ExportError as exc:
        reason, message, requeue = exc.reason, exc.event_message(export.name), FAILED
    return _refuse(plan, claim, volume, ctx, reason, message, requeue)


def _refuse(
    plan: Expansion,
    claim: Claim,
    volume: Volume,
    ctx: ControllerContext,
    reason: str,
    message: str,
    requeue: Requeue,
) -> Requeue:
    ctx.metrics.failures.labels("resize", reason).inc()
    log.info("resize_refused", claim=claim.key, volume=volume.name, size=plan.size, reason=reason, message=message)
    text = f"resizing to {plan.size} is refused for now: {message}"
    ctx.recorder.claim(claim, "Warning", names.VOLUME_RESIZE_FAILED, text)
    return requeue


def _parameters(volume: Volume, ctx: ControllerContext) -> ClassParameters | None:
    """The parameters of the volume's class.

    Returns None if it is gone or unusable, so that no limit applies.
    """
    storage_class = ctx.cache.classes.get(volume.spec.storage_class_name)
    try:
        return None if storage_class is None else classes.parameters_of(storage_class)
    except InvalidSettings:
        return None


async def _carry_out(plan: Expansion, claim: Claim, volume: Volume, ctx: ControllerContext) -> Shortfall | None:
    """Write each step under the resourceVersion that was read.

    A newer change by a user is never overwritten. Stop before the volume grows, and return why, while the new size is
    not enforced although it has to be.
    """
    cluster, meta = ctx.cluster, claim.metadata
    version = meta.resource_version
    if plan.mark is not None:
        marked = await cluster.patch_claim_status(meta.namespace, meta.name, _at(plan.mark, version))
        version = marked.metadata.resource_version
        ctx.recorder.claim(claim, "Normal", names.RESIZING, f"resizing volume {volume.name} to {plan.size}")
    lacking = await _enforce(plan, volume, ctx)
    if lacking is not None:
        return lacking
    if plan.grow is not None:
        await cluster.patch_volume(volume.name, _at(plan.grow, volume.metadata.resource_version))
    await cluster.patch_claim_status(meta.namespace, meta.name, _at(plan.finish, version))
    return None


def _at(patch: dict[str, object], version: str) -> dict[str, object]:
    return {**patch, "metadata": {"resourceVersion": version}}


# --------------------------------------------------------------------------------------------------- enforced sizes


async def _enforce(plan: Expansion, volume: Volume, ctx: ControllerContext) -> Shortfall | None:
    """Record the size of a volume with `quota: required`, and return what is missing until it is enforced.

    A request that was lowered again lowers the record: the agent keeps the limit above what the volume holds. Raises
    ExportError, InvalidRecord.
    """
    located = ctx.exports.locate(volume)
    if located is None or not _is_enforced(volume, located[0]):
        return None
    export, _ = located
    ctx.health.add(export, named=False)
    export = await ctx.health.require_ready(export)
    async with ctx.health.fail_fast(export):
        live = await export.refresh_record(volume.name)
        if live is None or live.cluster != ctx.cluster_id:
            return expansion.unrecorded(export.name) if plan.is_raise else None
        if live.quota != "required":
            return None
        wanted = structs.replace(live, capacity=plan.recorded)
        if expansion.differs(live.capacity, plan.recorded):
            require_room(volume.name, wanted)
            await export.replace_record(volume.name, wanted)
    return await shortfall(ctx, export, volume.name, wanted) if plan.is_raise else None


def _is_enforced(volume: Volume, export: Export) -> bool:
    """Whether the size of a volume has to be enforced, by its record or, while that is unknown, its annotation."""
    record = export.records.get(volume.name)
    return (quota_of(volume.metadata.annotations) if record is None else record.quota) == "required"


async def _wait(plan: Expansion, claim: Claim, lacking: Shortfall, ctx: ControllerContext, tries: int) -> Requeue:
    """Wait for the quota agent, or for an admin, and say what is missing. Raises ClusterError."""
    if not lacking.needs_admin and tries < PATIENCE:
        return ENFORCING
    ctx.metrics.failures.labels("resize", Reason.QUOTA_NOT_IN_FORCE).inc()
    message = f"resizing to {plan.size} waits, as the class asks for quota: required: {lacking.message}"
    ctx.recorder.claim(claim, "Warning", names.VOLUME_RESIZE_FAILED, message)
    if is_logged(tries + 1):
        log.info("resize_waits", claim=claim.key, size=plan.size, message=lacking.message)
    if lacking.needs_admin and not expansion.is_infeasible(claim):
        patch = expansion.infeasible(lacking.message, ctx.stamp())
        await ctx.cluster.patch_claim_status(claim.metadata.namespace, claim.metadata.name, patch)
    return ENFORCING


def _export_name(volume: Volume, ctx: ControllerContext) -> str:
    located = ctx.exports.locate(volume)
    return located[0].name if located is not None else ""


# --------------------------------------------------------------------------------------------------- the ledger's copy


async def note_sizes(export: Export, ctx: ControllerContext) -> None:
    """Update recorded sizes, so that `recover` recreates volumes with their current capacity.

    The sweep calls this for expansions that were interrupted by a crash or an unreachable export. Raises ExportError.
    """
    for name, record in list(export.records.items()):
        volume = ctx.cache.volumes.get(name)
        if volume is not None and volume.is_by(ctx.provisioner) and outgrown(record.capacity, volume.capacity):
            await _record_size(name, volume.capacity, export, ctx)


async def _record_now(volume: Volume, size: str, ctx: ControllerContext) -> None:
    """Record a size, best effort.

    The expansion is done, and must not wait for an unreachable export.
    """
    located = ctx.exports.locate(volume)
    if located is None:
        return
    export, _ = located
    ctx.health.add(export, named=False)
    try:
        export = await ctx.health.require_ready(export)
        async with ctx.health.fail_fast(export):
            await _record_size(volume.name, size, export, ctx)
    except ExportError as exc:
        log.info("size_not_recorded", volume=volume.name, size=size, error=str(exc), hint="the sweep does it later")


async def _record_size(volume_name: str, size: str, export: Export, ctx: ControllerContext) -> None:
    """Update the record as it is on the export.

    The one in memory may be older than a `recover` run.
    """
    live = await export.refresh_record(volume_name)
    if live is None or live.cluster != ctx.cluster_id or not outgrown(live.capacity, size):
        return
    grown = structs.replace(live, capacity=size)
    try:
        # Also for the record of its archive, which could not be written or restored later otherwise.
        require_room(volume_name, grown)
        await export.replace_record(volume_name, grown)
    except InvalidRecord as exc:
        log.warning("size_not_recorded", volume=volume_name, size=size, error=str(exc))

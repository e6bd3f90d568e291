"""Schedules: creates the periodic snapshots that StorageClasses ask for, and deletes those that are not kept.

`core.schedules` decides, by the cached objects. Every attempt gives a snapshot the same name, and only exactly the
object that was read is deleted.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.core import classes, identity, names, schedules, times
from provisioner.core.errors import InvalidSettings
from provisioner.core.objects import Claim, Snapshot, SnapshotClass, StorageClass, Volume
from provisioner.core.parameters import Schedule
from provisioner.core.schedules import Plan
from provisioner.ports.cluster import AlreadyExists, ClusterError, Conflict, KindMissing, NotFound, Rejected

log = structlog.get_logger(__name__)

EVERY_S = 15.0
"""Between two looks; a schedule is exact to the minute."""
AGAIN_S = 300.0
"""After an attempt that failed."""


class Schedules:
    """The periodic snapshots of one term of leadership."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._made: dict[str, datetime] = {}
        """By the uid of a claim: when its newest snapshot was due. A user can delete that, and it is not made again."""
        self._again_s: dict[str, float] = {}
        """By the uid of a claim: when to try again after a failure."""

    async def run(self) -> None:
        """Look periodically until cancelled."""
        while True:
            await self._ctx.clock.sleep(EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Create and delete what is due now."""
        scheduled = self._classes()
        claims = [each for each in self._ctx.cache.claims.values() if each.class_name in scheduled]
        self._forget({each.uid for each in claims})
        if not claims:
            return
        taken = self._taken()
        for claim in claims:
            storage_class, schedule, due = scheduled[claim.class_name]
            volume = self._volume_of(claim)
            if volume is None or self._ctx.clock.monotonic() < self._again_s.get(claim.uid, 0.0):
                continue
            since = schedules.begins(volume, storage_class)
            since = max(since, self._made.get(claim.uid, since))
            plan = schedules.plan(claim, taken[claim.uid], due=due, since=since, keep=schedule.keep)
            with self._ctx.supervisor.shield("snapshots", claim=claim.key):
                await self._carry_out(claim, plan)

    def _classes(self) -> dict[str, tuple[StorageClass, Schedule, datetime]]:
        """Return the classes with a schedule, by name, and when it was due last."""
        ctx, found = self._ctx, {}
        now = times.parse(ctx.stamp())
        for each in ctx.cache.classes.values():
            if each.provisioner != ctx.provisioner or now is None:
                continue
            try:
                schedule = classes.parameters_of(each).schedule
            except InvalidSettings:
                continue  # no claim of the class is ever provisioned
            if schedule is not None:
                found[each.name] = (each, schedule, schedules.last_due(schedule.cron, now))
        return found

    def _taken(self) -> dict[str, list[Snapshot]]:
        """Return all scheduled snapshots, by the uid of the claim in their label."""
        taken: dict[str, list[Snapshot]] = defaultdict(list)
        for snapshot in self._ctx.cache.snapshots.values():
            uid = snapshot.metadata.labels.get(names.SCHEDULED)
            if uid:
                taken[uid].append(snapshot)
        return taken

    def _volume_of(self, claim: Claim) -> Volume | None:
        """Return the volume of a claim that can have snapshots."""
        if claim.status.phase != "Bound" or claim.metadata.deletion_timestamp:
            return None
        volume = self._ctx.cache.volumes.get(claim.spec.volume_name)
        is_own = volume is not None and volume.is_by(self._ctx.provisioner) and volume.spec.nfs is not None
        return volume if is_own and volume is not None and identity.is_bound(volume, claim) else None

    def _forget(self, uids: set[str]) -> None:
        for known in (self._made, self._again_s):
            for uid in known.keys() - uids:
                del known[uid]

    # ------------------------------------------------------------------------------------------- what is due

    async def _carry_out(self, claim: Claim, plan: Plan) -> None:
        try:
            for snapshot in plan.delete:
                await self._delete(claim, snapshot)
            if plan.create is not None:
                await self._create(claim, plan.create)
        except ClusterError as exc:
            self._again_s[claim.uid] = self._ctx.clock.monotonic() + AGAIN_S
            log.warning("snapshot_not_scheduled", claim=claim.key, error=str(exc))
            if isinstance(exc, Rejected):
                self._warn(claim, f"the API server refuses its scheduled snapshot: {exc}")

    async def _create(self, claim: Claim, due: datetime) -> None:
        snapshot_class = await self._class(claim)
        if snapshot_class is None:
            self._again_s[claim.uid] = self._ctx.clock.monotonic() + AGAIN_S
            return
        body = schedules.body(claim, snapshot_class, due)
        try:
            created = await self._ctx.cluster.create_snapshot(body)
        except AlreadyExists:
            log.debug("snapshot_exists", claim=claim.key, due=times.text(due))
        else:
            log.info("snapshot_scheduled", claim=claim.key, snapshot=created.key, due=times.text(due))
        self._made[claim.uid] = due

    async def _class(self, claim: Claim) -> SnapshotClass | None:
        """Return the class for a scheduled snapshot; if there is none, an event on the claim says why."""
        ctx = self._ctx
        found = schedules.class_for(ctx.cache.snapshot_classes, ctx.provisioner)
        if found is not None:
            return found
        message = schedules.no_class(ctx.provisioner)
        if not ctx.cache.with_snapshots:
            message = schedules.NOT_ENABLED
        else:
            try:
                await ctx.cluster.version("snapshot_classes")
            except KindMissing:
                message = schedules.NO_CRDS
        self._warn(claim, message)
        return None

    async def _delete(self, claim: Claim, snapshot: Snapshot) -> None:
        try:
            await self._ctx.cluster.delete_snapshot(snapshot)
        except (NotFound, Conflict):
            return  # it is gone, or has changed: the next look sees that
        log.info("snapshot_not_kept", claim=claim.key, snapshot=snapshot.key)

    def _warn(self, claim: Claim, message: str) -> None:
        self._ctx.recorder.claim(claim, "Warning", names.SNAPSHOT_SCHEDULE_FAILED, message)

"""The usage of volumes: reads the answers of quota agents, reports volumes that fill up, and lets claims grow.

An agent writes its heartbeat after each look at everything. So the leader reads one symlink per look, and the answers
only if the heartbeat is a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

import structlog

from provisioner.controllers.context import ControllerContext
from provisioner.controllers.usage_table import Usage
from provisioner.core import fullness, growth, names, quota
from provisioner.core.backoff import Backoff
from provisioner.core.fullness import Level
from provisioner.core.growth import Growth
from provisioner.core.objects import Claim, Volume
from provisioner.core.quota import Answer, Heartbeat
from provisioner.core.records import Record
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ClusterError, Rejected
from provisioner.ports.tree import ExportError

log = structlog.get_logger(__name__)

_EVERY_S = 30.0
_UNASKED_EVERY_S = 300.0
"""Between two looks at an export on which no volume asks for a quota: an agent can limit all volumes all the same."""
_BATCH = 200
"""Volumes that are looked at before other tasks get their turn."""
_AGAIN = Backoff(first_s=300.0, limit_s=3600.0)
"""Delays after a refusal to let a claim grow."""


@dataclass(slots=True)
class _Seen:
    """The results of the last looks at one export."""

    looked_s: float = -inf
    read: str | None = None
    """The time of the heartbeat with which the answers were read; None before the first time."""
    judged: bool = False
    """Whether volumes have been reported from this leader's own looks."""
    silent: bool = False
    reported: dict[str, Level] = field(default_factory=dict)
    """The level that counts as reported, by volume; ROOM is left out."""


@dataclass(slots=True)
class _Refusal:
    """A claim that was not allowed to grow."""

    failures: int = 0
    until_s: float = -inf


class VolumeUsage:
    """Looks at the answers on each export that is ready."""

    def __init__(self, ctx: ControllerContext) -> None:
        self._ctx = ctx
        self._seen: dict[Export, _Seen] = {}
        self._refused: dict[str, _Refusal] = {}

    def forget(self, export: Export) -> None:
        """Stop looking at an export."""
        self._seen.pop(export, None)
        self._ctx.usage.forget(export.name)

    def clear(self) -> None:
        """Forget everything: another replica leads from now on."""
        self._seen.clear()
        self._ctx.usage.clear()

    def volume_deleted(self, volume: Volume) -> None:
        """Remove the series of a volume that is gone."""
        self._ctx.usage.drop(volume.name)

    async def keep(self, export: Export) -> None:
        """Look at an export periodically until cancelled."""
        while True:
            try:
                await self.look(export)
            except ExportError as exc:
                log.debug("usage_not_read", export=export.name, error=str(exc))
            await self._ctx.clock.sleep(_EVERY_S)

    async def look(self, export: Export) -> None:
        """Look at one export, if that is due. Raises ExportError."""
        seen, now_s = self._seen.setdefault(export, _Seen()), self._ctx.clock.monotonic()
        asked = any(record.quota != "none" for record in export.records.values())
        if not asked and seen.read is None and now_s - seen.looked_s < _UNASKED_EVERY_S:
            return
        seen.looked_s = now_s
        heartbeat = await export.answers.heartbeat()
        now = self._ctx.cluster.server_time() or self._ctx.clock.now()
        self._hear(export, seen, heartbeat, now, asked=asked)
        if heartbeat is None:
            return
        if seen.read != heartbeat.at:
            answers = await export.answers.read_all()
            await self._take(export, seen, answers, now if quota.is_alive(heartbeat, now) else None)
            seen.read = heartbeat.at

    def _hear(self, export: Export, seen: _Seen, heartbeat: Heartbeat | None, now: datetime, *, asked: bool) -> None:
        """Note the heartbeat, and log when an agent that is needed falls silent or is back."""
        known = heartbeat.at if heartbeat is not None else "" if asked else None
        self._ctx.usage.set_heartbeat(export.name, known)
        silent = asked and not quota.is_alive(heartbeat, now)
        if silent != seen.silent:
            seen.silent = silent
            if silent:
                log.warning("quota_agent_silent", export=export.name, since=known or None, hint=_SILENT)
            else:
                log.info("quota_agent_back", export=export.name)

    async def _take(self, export: Export, seen: _Seen, answers: Mapping[str, Answer], now: datetime | None) -> None:
        """Take over the answers; with `now`, when the agent is alive, also report volumes and let claims grow."""
        found: dict[str, Usage] = {}
        reported: dict[str, Level] = {}
        for number, (name, answer) in enumerate(answers.items()):
            if number % _BATCH == 0:
                await asyncio.sleep(0)
            volume = self._volume(export, name)
            if volume is None or volume.spec.claim_ref is None or not _is_about(answer, export.records[name]):
                continue
            of, reached = volume.spec.claim_ref, fullness.level(answer)
            used, limit = answer.used_bytes if answer.whole else None, answer.limit_bytes or None
            found[name] = Usage(of.namespace, of.name, used, limit, reached)
            before = seen.reported.get(name, Level.ROOM if seen.judged else None)
            after = before if now is None else await self._act(volume, answer, before, now)
            if after:
                reported[name] = after
        seen.reported, seen.judged = reported, seen.judged or now is not None
        # A volume can have been deleted in the meantime, and its claim can have been bound to another one.
        self._ctx.usage.set_volumes(export.name, {name: found[name] for name in found if self._volume(export, name)})
        self._refused = {uid: refusal for uid, refusal in self._refused.items() if uid in self._ctx.cache.claims}

    def _volume(self, export: Export, volume_name: str) -> Volume | None:
        """Return the volume to which an answer belongs: a Bound one of this provisioner and cluster."""
        volume, record = self._ctx.cache.volumes.get(volume_name), export.records.get(volume_name)
        if volume is None or record is None or record.cluster != self._ctx.cluster_id:
            return None
        return volume if volume.is_by(self._ctx.provisioner) and volume.status.phase == "Bound" else None

    async def _act(self, volume: Volume, answer: Answer, before: Level | None, now: datetime) -> Level:
        """Let the claim grow, or report the level if that is due; return the level that counts as reported."""
        after, due = fullness.to_report(before, answer, now)
        claim = self._ctx.cache.claims.get(volume.spec.claim_ref.uid) if volume.spec.claim_ref is not None else None
        if claim is None or (not after and due is None):
            return after
        rule = growth.rule_of(self._ctx.cache.classes.get(volume.spec.storage_class_name))
        plan = growth.decide(claim, volume, answer, rule, self._ctx.provisioner)
        grows = growth.is_growing(claim) or (plan is not None and await self._grow(claim, plan))
        # A claim that is about to get more needs no action yet.
        if due is not None and not (grows and due is Level.NEARLY):
            self._report(claim, volume, due, answer)
        return after

    def _report(self, claim: Claim, volume: Volume, due: Level, answer: Answer) -> None:
        reason = names.VOLUME_FULL if due is Level.FULL else names.VOLUME_NEARLY_FULL
        self._ctx.recorder.claim(claim, "Warning", reason, fullness.message(due, answer))
        log.warning("volume_filling", claim=claim.key, volume=volume.name, percent=int(due), used=answer.used_bytes)

    async def _grow(self, claim: Claim, plan: Growth) -> bool:
        """Raise what a claim requests; return True if that was done."""
        ctx, refusal = self._ctx, self._refused.get(claim.uid, _Refusal())
        if ctx.clock.monotonic() < refusal.until_s:
            return False
        try:
            await ctx.cluster.request_size(claim, plan.size)
        except Rejected as exc:
            failures = refusal.failures + 1
            until_s = ctx.clock.monotonic() + _AGAIN.delay_s(failures, ctx.clock.random())
            self._refused[claim.uid] = _Refusal(failures, until_s)
            self._refuse(claim, plan, exc, first=failures == 1)
            return False
        except ClusterError as exc:
            # In most cases the claim has changed since it was read. If the outcome is unknown, the next look shows it.
            log.info("growth_interrupted", claim=claim.key, size=plan.size, error=str(exc))
            return False
        self._refused.pop(claim.uid, None)
        ctx.recorder.claim(claim, "Normal", names.AUTO_GROW, growth.message(plan))
        log.info("claim_grown", claim=claim.key, size=plan.size, was=plan.was)
        return True

    def _refuse(self, claim: Claim, plan: Growth, error: Rejected, *, first: bool) -> None:
        self._ctx.metrics.failures.labels("resize", error.reason).inc()
        if first:
            text = f"requesting {plan.size} instead of {plan.was} was refused: {error}"
            self._ctx.recorder.claim(claim, "Warning", names.AUTO_GROW_FAILED, text)
            log.warning("claim_not_grown", claim=claim.key, size=plan.size, error=str(error), hint=_REFUSED)


def _is_about(answer: Answer, record: Record) -> bool:
    """Whether an answer is about this record: a volume can have two in turn, if the first attempt was undone."""
    return answer.record in ("", quota.stamp(record.created))


_SILENT = "limits stay in force, and new sizes wait: check that the quota agent runs on the server"
_REFUSED = "raise the ResourceQuota, or set autoGrow.enabled in the chart, which grants patch on claims"

"""The composition root of `recover`: what the ledgers have of other clusters' volumes, and the making of them anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from provisioner.commands.session import Ledgers, opened, side_by_side, surveyed
from provisioner.controllers.orphan_facts import has_leftovers
from provisioner.core import recovery, returned, times
from provisioner.core.errors import InvalidRecord, InvalidSettings, ProvisionerError
from provisioner.core.objects import Claim, Volume
from provisioner.core.orphans import doubtful
from provisioner.core.places import Places
from provisioner.core.recovery import ArchiveRemains, Bring, Enter, Lost, Make, Place, Present, Remains, Skip, Step
from provisioner.core.returned import Stored
from provisioner.core.scope import Scope, Unseen
from provisioner.kube.pages import everything
from provisioner.ledger.errors import AlreadyThere, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.cluster import AlreadyExists, ApiUnavailable, Cluster, ClusterError
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

Told = Callable[[int, int], None]
"""Told of progress: how many of how many are done."""


class StillAtWork(ProvisionerError):
    """The lost cluster's provisioner was at work a few minutes ago; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What can be recovered, and what stands in the way; nothing has been changed yet."""

    lost: Lost | None
    alive: bool
    """Whether the lost cluster's provisioner was at work a few minutes ago."""
    steps: Sequence[Step]
    archives: Sequence[ArchiveRemains]
    scope: Scope
    """Which exports were looked at, and which could not be."""
    gone: Sequence[str]
    """Volumes of this cluster whose PersistentVolumes are gone, and whose directories are there."""
    away: Sequence[str]
    """Volumes of this cluster that exist, and whose data are in an archive or the trash."""
    there: Container[str]
    """The claims of this cluster, by `namespace/name`."""
    unreadable: Mapping[str, Collection[str]]
    """Entries of ledgers that are no records that we know, by export."""
    unknown: Collection[str]
    """Volumes that were named, and of which there is no record."""
    offline: str
    """Why nothing could be compared with the cluster; empty where it was."""


def place_of(export: Export, places: Places) -> Place:
    """An export as the rules of a recovery know it."""
    return Place(
        name=export.name,
        location=export.location,
        id=export.id,
        locations=places.same(export.location),
        folds=export.folds,
    )


class Recovery:
    """One look at the ledgers and the cluster, and what can be made of it. `recovering` makes it."""

    def __init__(
        self,
        exports: Iterable[Export],
        cluster: Cluster | None,
        present: Present,
        *,
        scope: Scope,
        offline: str,
        places: Places | None = None,
    ) -> None:
        # An export that is reached by two names has one ledger: the first name counts.
        known = {export.id: export for export in reversed(list(exports))}
        self._exports = {place_of(export, places or Places()): export for export in known.values()}
        self._cluster = cluster
        self._present = present
        self._scope = scope
        self._offline = offline

    async def look(self, wanted: str | None, named: Collection[str]) -> Prospect:
        """What there is to recover. Raises InvalidSettings where it is not clear of which cluster, ExportError."""
        records, archives = self._records(), self._archives()
        stored = await self._stored()
        back = [returned.plan(each, self._present, self._now()) for name, each in stored.items() if name in named]
        if named:
            wanted_records = set(named) - stored.keys()
            records, archives = [each for each in records if each.volume in wanted_records], []
        signs = await asyncio.gather(*(export.heartbeats() for export in self._exports.values()))
        present = self._present = await self._with_namespaces(records, archives)
        others = recovery.lost_clusters(records, archives, signs, this=present.cluster)
        lost = recovery.choose(others, wanted, this=present.cluster)
        cluster = None if lost is None else lost.cluster
        meant = recovery.selected(records, present, lost=cluster, named=named)
        return Prospect(
            lost=lost,
            alive=lost is not None and lost.is_alive(datetime.now(UTC)),
            steps=[*back, *recovery.plan(await side_by_side(self._examine, meant), present, by_name=bool(named))],
            archives=recovery.plan_archives(archives, present, lost=cluster),
            scope=self._scope,
            gone=[] if named else await self._gone(),
            away=[] if named else self._away(stored),
            there=present.claims,
            unreadable={
                place.name: sorted(each.unreadable) for place, each in self._exports.items() if each.unreadable
            },
            unknown=sorted(set(named) - {each.volume for each in records} - stored.keys()),
            offline=self._offline,
        )

    async def _with_namespaces(self, records: Sequence[Remains], archives: Sequence[ArchiveRemains]) -> Present:
        """The cluster with the namespaces that records name, and the claims of volumes. Raises ClusterError."""
        cluster = self._cluster
        if cluster is None:
            return self._present
        volumes = (self._present.volumes.get(each.volume) for each in records)
        references = (each.spec.claim_ref for each in volumes if each is not None)
        wanted = {
            *(each.record.namespace for each in records),
            *(each.record.was.namespace for each in archives),
            *(reference.namespace for reference in references if reference is not None),
        }
        found = await side_by_side(cluster.get_namespace, sorted(wanted - {""}))
        uids = {each.metadata.name: each.metadata.uid for each in found if each is not None}
        return replace(self._present, namespaces=uids)

    async def _gone(self) -> list[str]:
        """The volumes of this cluster that were deleted by hand: they are recovered only when they are named."""
        lost = [
            (export, name)
            for export in self._exports.values()
            for name in doubtful(
                export.records,
                export.pending,
                cluster=self._present.cluster,
                volumes=self._present.volumes,
                waiting=(),
            )
            # One without a claim's uid is a recovery that was cut off, which needs no name.
            if self._present.cluster and name not in export.pending and export.records[name].claim_uid
        ]
        there = await side_by_side(self._is_there, lost)
        return sorted(name for (_, name), holds in zip(lost, there, strict=True) if holds)

    async def _is_there(self, each: tuple[Export, str]) -> bool:
        try:
            return await has_leftovers(*each)
        except ExportError:
            return False

    async def _stored(self) -> dict[str, list[Stored]]:
        """By volume, what the exports have of volumes that exist outside of their directories."""
        found: dict[str, list[Stored]] = {}
        for place, export in self._exports.items():
            trash, begun = await export.trash(), await export.begun()
            entries = [(returned.volume_of(name), {"trash": name, "begun": name in begun}) for name in trash]
            entries += [(each.volume, {"archive": name, "was": each}) for name, each in export.archived.items()]
            known = [(volume, what) for name, what in entries if (volume := self._returned(place, name)) is not None]
            archives = await export.archives() if any("archive" in what for _, what in known) else []
            for volume, what in known:
                what["there"] = "trash" in what or what["archive"] in archives
                each = await self._look_home(place, export, volume, what)
                if each.there or each.home != "gone":
                    found.setdefault(volume.name, []).append(each)
        return found

    def _returned(self, place: Place, name: str) -> Volume | None:
        """The volume of ours of that name on an export, where it keeps its data."""
        volume = self._present.volumes.get(name)
        if volume is None or not volume.is_by(self._present.provisioner) or not returned.keeps(volume):
            return None
        return volume if returned.path_on(place, volume) else None

    async def _look_home(self, place: Place, export: Export, volume: Volume, what: Mapping[str, Any]) -> Stored:
        record = export.records.get(volume.name)
        try:
            home, trouble = await export.contents(returned.path_on(place, volume) or ()), ""
        except ExportError as exc:
            home, trouble = "data", f"its directory cannot be looked at: {exc}"
        return Stored(place=place, volume=volume, home=home, record=record, trouble=trouble, **what)

    def _away(self, stored: Iterable[str]) -> list[str]:
        """Those that are not just being reclaimed."""
        return sorted(name for name in stored if not returned.is_being_reclaimed(self._present.volumes[name]))

    def _now(self) -> str:
        return times.text(datetime.now(UTC))

    def _records(self) -> list[Remains]:
        return [
            Remains(place=place, volume=volume, record=record, pending=volume in export.pending, contents="data")
            for place, export in self._exports.items()
            for volume, record in export.records.items()
        ]

    def _archives(self) -> list[ArchiveRemains]:
        return [
            ArchiveRemains(place=place, archive=archive, record=record)
            for place, export in self._exports.items()
            for archive, record in export.archived.items()
        ]

    async def _examine(self, each: Remains) -> Remains:
        """With what there is of its directory."""
        export, contents, trouble = self._exports[each.place], each.contents, ""
        try:
            if await export.directory_missing(each.volume):
                contents = "gone"
            elif each.pending:
                contents = "data" if await export.has_leftovers(each.volume) else "empty"
        except ExportError as exc:
            trouble = f"its directory cannot be looked at: {exc}"
        return replace(each, contents=contents, trouble=trouble)

    # ------------------------------------------------------------------------------------------- making

    async def apply(self, prospect: Prospect, told: Told, *, cluster_gone: bool) -> Mapping[str, str]:
        """Carry out what was found. Returns by volume, or archive, why for what failed; all of it may be repeated.

        Where the lost cluster seems to live, raises StillAtWork before all else, unless `cluster_gone`.
        """
        jobs: list[tuple[str, Step | ArchiveRemains]] = [
            *((step.remains.volume, step) for step in prospect.steps if not isinstance(step.action, Skip)),
            *((each.archive, each) for each in prospect.archives),
        ]
        if jobs and prospect.lost is not None and prospect.alive and not cluster_gone:
            raise StillAtWork(f"{prospect.lost.is_at_work()}. Nothing was changed")
        done = 0

        async def carry_out(job: tuple[str, Step | ArchiveRemains]) -> tuple[str, str]:
            nonlocal done
            name, what = job
            why = await self._carry_out(what)
            done += 1
            told(done, len(jobs))
            return name, why

        return {name: why for name, why in await side_by_side(carry_out, jobs) if why}

    async def _carry_out(self, what: Step | ArchiveRemains) -> str:
        """Why it could not be done; empty when it was."""
        try:
            if isinstance(what, ArchiveRemains):
                await self._exports[what.place].amend_archive(what.archive, what.record)
                return ""
            if isinstance(what.action, Bring):
                return await self._bring(what, what.action)
            return await self.make(what)
        except (ExportError, ClusterError, InvalidRecord, PathTaken, AlreadyThere) as exc:
            return str(exc)

    async def _bring(self, step: Step, action: Bring) -> str:
        """The record first: with it the volume's archive does not expire, wherever this is cut off."""
        export, volume = self._exports[step.remains.place], step.remains.volume
        if await self._has_changed(action.volume):
            return "the volume has changed meanwhile: run this again to see what it is now"
        await export.reinstate(volume, action.record, archive=action.archive, trash=action.trash)
        return ""

    async def make(self, step: Step) -> str:
        """Carry out one step; why it could not be done, empty when it was. Raises ExportError, ClusterError.

        The record comes first: a crash before the volume leaves one that the next recovery knows as begun.
        """
        assert self._cluster is not None
        assert not isinstance(step.action, Skip | Bring)
        export, volume, record = self._exports[step.remains.place], step.remains.volume, step.action.record
        live = await export.reread(volume)
        if live not in (step.remains.record, record):
            return "its record has changed meanwhile: is the cluster that had it still at work?"
        seen = step.action.volume if isinstance(step.action, Enter) else None
        if seen is not None and await self._has_changed(seen):
            return "the volume has changed meanwhile: run this again to see what it is now"
        if live != record:
            await export.amend(volume, record)
        uid = ""
        if isinstance(step.action, Make):
            try:
                uid = (await self._cluster.create_volume(step.action.body)).metadata.uid
            except AlreadyExists:
                return "a volume of that name has appeared meanwhile: run this again to see whether it is the one"
        await export.settle(volume, uid)
        return ""

    async def _has_changed(self, seen: Volume) -> bool:
        assert self._cluster is not None
        now = await self._cluster.get_volume(seen.name)
        return now is None or (now.metadata.uid, now.spec) != (seen.metadata.uid, seen.spec)


@asynccontextmanager
async def recovering(settings: Settings, *, offline: bool) -> AsyncIterator[Recovery]:
    """Open all exports, and compare with the cluster; with `offline` without it, where there is no way to it.

    Raises ClusterError, InvalidSettings.
    """
    async with AsyncExitStack() as stack:
        cluster, why = None, ""
        try:
            survey = await stack.enter_async_context(surveyed(settings))
            present, cluster = await present_in(survey.cluster, settings.provisioner), survey.cluster
            ledgers: Ledgers = survey
            scope = ledgers.scope
        except (ApiUnavailable, InvalidSettings) as exc:
            if not offline or (isinstance(exc, InvalidSettings) and settings.kubeconfig is not None):
                raise
            ledgers, present, why = (
                await stack.enter_async_context(opened(settings)),
                Present(provisioner=settings.provisioner),
                str(exc),
            )
            missed = [Unseen("the cluster", why)] if isinstance(exc, ApiUnavailable) else []
            scope = ledgers.scope.but(missed)
        yield Recovery(ledgers.exports, cluster, present, scope=scope, offline=why, places=ledgers.served.places)


async def present_in(cluster: Cluster, provisioner: str) -> Present:
    """The cluster as it is now. Raises ClusterError."""
    volumes, claims = await everything(cluster, Volume), await everything(cluster, Claim)
    return Present(
        provisioner=provisioner,
        cluster=await cluster.cluster_uid(),
        volumes={volume.name: volume for volume in volumes},
        claims={claim.key: claim for claim in claims},
    )

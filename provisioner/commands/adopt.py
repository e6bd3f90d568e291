"""The work of `adopt`: finds the directory, applies core.adoption, and creates the volume as `recover` does."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from provisioner.commands.recover import Recovery, place_of, present_in
from provisioner.commands.session import Session, open_session
from provisioner.core import adoption, names, times
from provisioner.core.adoption import Found, NotAdopted, Plan, Wish
from provisioner.core.checks import Permission
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.objects import Volume
from provisioner.core.recovery import Place, Present
from provisioner.core.scope import NOTHING
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError
from provisioner.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What `apply` would do, and what an admin should check first; nothing has been changed yet."""

    plan: Plan
    export: str
    claim_is_there: bool
    doubts: Sequence[Volume]
    """Volumes of other provisioners with the same absolute path, on servers that nothing names.

    Their server may be this one under another name.
    """


class Adoption:
    """The adoption of one directory for one claim. `open_adoption` creates it."""

    def __init__(self, session: Session, wish: Wish, named: Set[Location]) -> None:
        """`named` are the exports to search; empty for all."""
        self._session = session
        self._wish = wish
        self._named = named

    @property
    def lines(self) -> list[str]:
        """What was looked at, one line per export."""
        return self._session.scope.lines()

    async def look(self, provisioner: str) -> Prospect:
        """Return the plan. Raises NotAdopted, PathTaken, InvalidRecord, InvalidSettings, ExportError, ClusterError."""
        session, wish = self._session, self._wish
        if session.scope.status == NOTHING:
            raise InvalidSettings("; ".join(self.lines))
        self._export = export = await self._find()
        # Read after the ledgers, so that a volume created during the command is in neither of them, or in both.
        self._present = present = await self._read(provisioner)
        plan = self._plan(export, present)
        await export.vet(plan.step.remains.volume, plan.record)
        return Prospect(
            plan=plan,
            export=export.name,
            claim_is_there=wish.key in present.claims,
            doubts=self._elsewhere(plan.step.remains.place, present),
        )

    async def apply(self, prospect: Prospect) -> None:
        """Carry out the plan; repeating it is harmless. Raises the same errors as look()."""
        plan, export = prospect.plan, self._export
        volume = plan.step.remains.volume
        if not await self._session.cluster.is_allowed(Permission(verb="create", resource="persistentvolumes")):
            raise NotAdopted("this needs the right to create persistentvolumes: use an admin's kubeconfig")
        if plan.fresh:
            taken = await export.take_over({volume: plan.record})
            if taken:
                raise NotAdopted(taken[volume])
        recovery = Recovery(
            [export],
            self._session.cluster,
            self._present,
            scope=self._session.scope,
            offline="",
            places=self._session.registry.places,
        )
        why = await recovery.make(plan.step)
        if why:
            raise NotAdopted(why)

    # ------------------------------------------------------------------------------------------- looking

    async def _find(self) -> Export:
        """Return the only export that has the directory. Raises NotAdopted, ExportError."""
        same, wish = self._session.registry.places.same, self._wish
        searched = [
            export
            for export in self._session.exports
            if not self._named or not self._named.isdisjoint(same(export.location))
        ]
        there = [export for export in searched if await self._is_on(export)]
        if len(there) > 1:
            places = " and ".join(export.name for export in there)
            raise NotAdopted(f"directory {wish.directory!r} exists on {places}: name one of them with --export")
        if not there:
            raise NotAdopted(self._why_not_found([export.name for export in searched]))
        root = self._session.registry.places.root_within(
            there[0].location, wish.path, (other.location for other in self._session.registry if other is not there[0])
        )
        if root is not None:
            raise NotAdopted(f"directory {wish.directory!r} overlaps with the root of export {root}")
        return there[0]

    async def _is_on(self, export: Export) -> bool:
        try:
            return await export.contents(self._wish.path) != "gone"
        except ExportError as exc:
            if exc.cause is Cause.SYMLINK:
                return False
            raise

    def _why_not_found(self, searched: Sequence[str]) -> str:
        bare = [each.export for each in self._session.scope.exports if not each.has_ledger]
        without = f"; no provisioner has created a volume on {', '.join(bare)} yet: create one first" if bare else ""
        unseen = "; not all exports could be read" if self._session.scope.unseen else ""
        return (
            f"no directory {self._wish.directory!r} that is reached without a symbolic link on"
            f" {', '.join(searched) or 'any export with a ledger'}{without}{unseen}"
        )

    async def _read(self, provisioner: str) -> Present:
        cluster, name = self._session.cluster, self._wish.namespace
        present, namespace = await present_in(cluster, provisioner), await cluster.get_namespace(name)
        return replace(present, namespaces={name: namespace.metadata.uid} if namespace is not None else {})

    def _plan(self, export: Export, present: Present) -> Plan:
        path = self._wish.path
        records = {volume: record for volume, record in export.records.items() if record.path == path}
        place = place_of(export, self._session.registry.places)
        for volume in self._elsewhere(place, present):
            if volume.is_by(present.provisioner) and volume.source is not None:
                raise NotAdopted(
                    f"volume {volume.name} lies on {volume.source.server}:{volume.source.path}, and its server may be"
                    f" {export.name} under another name: add --export for it too, or delete that volume"
                )
        return adoption.plan(
            self._wish,
            Found(place=place, records=records, pending=frozenset(export.pending & records.keys())),
            present,
            {each.name: each for each in self._session.classes},
            now=times.text(self._session.cluster.server_time() or datetime.now(UTC)),
            new_name=lambda: names.volume_name(str(uuid.uuid4())),
        )

    def _elsewhere(self, place: Place, present: Present) -> list[Volume]:
        places = self._session.registry.places
        known = tuple(place_of(export, places) for export in self._session.exports)
        return adoption.elsewhere(place, self._wish.path, present.volumes, known)


@asynccontextmanager
async def open_adoption(settings: Settings, wish: Wish, *, named: Set[Location]) -> AsyncIterator[Adoption]:
    """Open all exports for one adoption. Raises ClusterError, InvalidSettings."""
    async with open_session(settings) as session:
        yield Adoption(session, wish, named)

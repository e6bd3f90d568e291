"""The work of `usage`: what each volume uses, by the quota agent's answer or by a paced walk of its directory.

A walk waits after each page of entries: for the chosen rate, and at least as long as the server took for the page. So
it never takes more than half of the server's time, and what it has counted is kept when it is interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from provisioner.commands.session import Session, connect, list_all, open_session_on
from provisioner.core import measured
from provisioner.core.errors import InvalidSettings
from provisioner.core.listing import VolumeRow, listed
from provisioner.core.locations import RelPath
from provisioner.core.measured import UsageRow
from provisioner.core.objects import Claim, ClaimRef, Volume
from provisioner.core.scope import Scope
from provisioner.core.selectors import Choice
from provisioner.ledger.export import Export
from provisioner.ledger.measuring import Measured
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast, and how long, directories are walked."""

    entries_per_s: int
    budget_s: float | None


@dataclass(slots=True)
class _Place:
    """A volume whose directory can be walked."""

    volume: VolumeRow
    export: Export
    path: RelPath


@dataclass(slots=True)
class Meter:
    """The usage of volumes, as far as it is known; `open_meter` creates it."""

    session: Session
    places: Sequence[_Place]
    rows: dict[str, UsageRow] = field(default_factory=dict)
    """By volume."""

    @property
    def scope(self) -> Scope:
        """The exports that were read."""
        return self.session.scope

    async def ask_agents(self) -> None:
        """Take the answers of quota agents."""
        now = datetime.now(UTC)
        for export in {place.export for place in self.places}:
            try:
                answers, heartbeat = await export.answers.read_all(), await export.answers.heartbeat()
            except ExportError:
                continue  # the walk reports it
            for place in self.places:
                row = measured.of_agent(place.volume, answers.get(place.volume.volume), heartbeat, now)
                if place.export is export and row is not None:
                    self.rows[place.volume.volume] = row

    async def walk(self, pace: Pace, report: Report) -> bool:
        """Walk the directories of volumes without an answer; return False if the budget was used up before the end."""
        waiting = [place for place in self.places if not self.rows[place.volume.volume].complete]
        try:
            async with asyncio.timeout(pace.budget_s):
                for number, place in enumerate(waiting, 1):
                    report(f"{number} of {len(waiting)}: {place.volume.directory} on {place.export.name}")
                    await self._walk(place, pace, report)
        except TimeoutError:
            return False
        return True

    def resume(self, path: str) -> None:
        """Take what an earlier walk has counted to the end. Raises InvalidSettings if the file cannot be read."""
        try:
            with open(path, "rb") as file:
                counted = msgspec.json.decode(file.read(), type=list[UsageRow])
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as exc:
            raise InvalidSettings(f"--resume {path}: it is not the file of an earlier walk: {exc}") from exc
        for row in counted:
            known = self.rows.get(row.volume)
            if known is not None and (known.export, known.directory) == (row.export, row.directory):
                self.rows[row.volume] = row

    def keep(self, path: str) -> None:
        """Write what the walk has counted to the end, or remove the file if nothing is left to count."""
        counted = [row for row in self.rows.values() if row.source == "walk" and row.complete]
        try:
            if all(row.complete for row in self.rows.values()):
                Path(path).unlink(missing_ok=True)
            else:
                Path(path).write_bytes(msgspec.json.encode(counted))
        except OSError as exc:
            raise InvalidSettings(f"--resume {path}: {exc.strerror}: name a file that can be written") from exc

    async def _walk(self, place: _Place, pace: Pace, report: Report) -> None:
        name = place.volume.volume
        try:
            async with aclosing(_paced(place.export.measure(place.path), pace)) as pages:
                async for found in pages:
                    self.rows[name] = _row(place, found, "the walk was interrupted")
                    report(f"{place.volume.directory}: {found.files} files")
            closed = f"{found.closed} directories are closed to the provisioner" if found.closed else ""
            self.rows[name] = _row(place, found, closed)
        except ExportError as exc:
            self.rows[name] = measured.unknown(place.volume, f"{exc}; {exc.advice}")


def _row(place: _Place, found: Measured, why: str) -> UsageRow:
    return measured.counted(place.volume, found.used_bytes, found.files, source="walk", why=why)


async def _paced(pages: AsyncGenerator[Measured, None], pace: Pace) -> AsyncGenerator[Measured, None]:
    """Yield the pages of a walk, each after a pause."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async for found in pages:
        took_s = loop.time() - began_s
        yield found
        await asyncio.sleep(max(took_s, found.seen / pace.entries_per_s - took_s))
        began_s = loop.time()


@asynccontextmanager
async def open_meter(settings: Settings, choice: Choice, class_name: str | None) -> AsyncIterator[Meter]:
    """Find the chosen volumes and their directories. Raises ClusterError, InvalidSettings."""
    async with connect(settings) as cluster, open_session_on(cluster, settings) as session:
        labels: Mapping[str, Mapping[str, str]] = {}
        if choice.has_labels:
            labels = {claim.key: claim.metadata.labels for claim in await list_all(cluster, Claim)}
        meter = Meter(session, places := [])
        for volume in await list_all(cluster, Volume):
            reference = volume.spec.claim_ref or ClaimRef()
            of_volume = {**volume.metadata.labels, **labels.get(f"{reference.namespace}/{reference.name}", {})}
            wanted = volume.is_by(settings.provisioner) and class_name in (None, volume.spec.storage_class_name)
            if not wanted or not choice.has(reference.namespace, of_volume):
                continue
            located, row = session.registry.locate(volume), listed(volume)
            meter.rows[volume.name] = measured.unknown(row, "it was not counted")
            if located is None or located[0] not in session.exports or not located[1]:
                meter.rows[volume.name] = measured.unknown(row, "its export could not be read")
            else:
                places.append(_Place(row, *located))
        yield meter

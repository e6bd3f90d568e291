"""The server of an export in the simulation: its quotas, and the quota agent as one more process."""

from __future__ import annotations

import asyncio

from provisioner.core import names, times
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, Volume
from provisioner.core.paths import LEDGER
from provisioner.core.quantities import is_less, parse_bytes
from provisioner.core.quota import Answer, decode_answer, enforces, limit_for
from provisioner.core.records import decode
from provisioner.ports.cluster import AnyItem, Kind
from provisioner.quota.agent import ExportAgent, Options
from provisioner.quota.book import Holders
from provisioner.quota.rounds import Rounds
from tests.simulation.world import NAS, Script, World
from tests.support.fakes.clock import LoopClock
from tests.support.fakes.disk import MemoryDisk, Quotas
from tests.support.fakes.tree import Directory, Symlink

PASSES_S = 200.0
"""Time for an agent to come to rest."""


class Killed(BaseException):
    """The process of the agent ends at this call."""


class Server:
    """The NFS server of the export: its quotas, and the agent, which is killed now and then."""

    def __init__(self, world: World, *, kill_rate: float) -> None:
        self.world = world
        self.tree = world.trees[NAS]
        self.quotas = Quotas(self.tree)
        self.kill_rate = kill_rate
        self.kills = 0
        others = self.tree.before

        async def before(call: str, path: RelPath) -> None:
            await others(call, path)
            self.quotas.settle()  # what was created until now has its parent's project

        self.tree.before = before
        world.site.cluster.listeners.append(self._changed)

    async def run(self) -> None:
        """Run an agent, and another one whenever it was killed."""
        clock = asyncio.get_running_loop()
        while True:
            disk = MemoryDisk(self.quotas, self.tree, before=self._maybe_kill, after=self._maybe_kill)
            options = Options(version="1", all_volumes=True)
            rounds = Rounds(
                [ExportAgent("/srv", disk, Holders(), options, now=lambda: times.text(LoopClock().now()))], clock.time
            )
            try:
                while True:
                    wait_s = rounds.turn()
                    await asyncio.sleep(min(wait_s, 1.0) + self.world.chance.uniform(0.0, 0.1))
            except Killed:
                self.kills += 1
                disk.release()
            await asyncio.sleep(self.world.chance.uniform(0.1, 5.0))

    def _changed(self, kind: Kind, before: AnyItem | None, after: AnyItem | None) -> None:
        """No volume with `quota: required` exists, and no claim has more, before its size is enforced."""
        if kind == "volumes" and before is None and isinstance(after, Volume):
            self._require_limit(after, after.capacity)
        if kind == "claims" and isinstance(before, Claim) and isinstance(after, Claim):
            had, has = (each.status.capacity.get("storage", "0") for each in (before, after))
            volume = self.world.site.cluster.volume(after.spec.volume_name)
            if volume is not None and is_less(had, has):
                self._require_limit(volume, has)

    def _require_limit(self, volume: Volume, size: str) -> None:
        storage_class = self.world.site.cluster.storage_class(volume.spec.storage_class_name)
        if storage_class is None or storage_class.parameters.get("quota") != "required":
            return
        self.quotas.settle()
        directory = self.tree.look(tuple(volume.metadata.annotations[names.DIRECTORY].split("/")))
        project, _ = self.quotas.project(directory) if directory is not None else (0, False)
        limit = self.quotas.limits.get(project, 0)
        if not project or limit < limit_for(parse_bytes(size)):
            self.world.judge.blame(f"quota: {volume.name} has {size}, and its limit is {limit}")

    def _maybe_kill(self, _call: str, _path: RelPath) -> None:
        if self.world.chance.random() < self.kill_rate:
            raise Killed

    def wrong(self) -> list[str]:
        """Return what is wrong at rest."""
        self.quotas.settle()
        answers = self._answers()
        held = [answer.project for answer in answers.values() if answer.project]
        found = [f"project {each} is held twice" for each in set(held) if held.count(each) > 1]
        found += [f"project {each} has a limit and no volume" for each, limit in self.quotas.limits.items()
                  if limit and each not in held]  # fmt: skip
        for path in ((), (LEDGER,), (LEDGER, "trash")):
            node = self.tree.look(path)
            assert node is not None
            found += [f"{path} passes a project on"] if self.quotas.project(node)[1] else []
        for name, record in self._records():
            directory, answer = self.tree.look(record[0]), answers.get(name, Answer())
            if not isinstance(directory, Directory):
                continue
            limit = self.quotas.limits.get(answer.project, 0)
            if not answer.project or self.quotas.project(directory) != (answer.project, True):
                found.append(f"{name} has project {self.quotas.project(directory)}, and its answer {answer}")
            elif (limit, answer.limit_bytes, answer.whole) != (record[1], record[1], True):
                found.append(f"{name} has the limit {limit}, and its answer {answer}")
        for volume in self.world.site.cluster.volumes():
            asks = volume.metadata.annotations.get(names.QUOTA) == "required" and volume.status.phase == "Bound"
            if asks and not enforces(answers.get(volume.name), parse_bytes(volume.capacity)):
                found.append(f"{volume.name} has {volume.capacity}, and its answer is {answers.get(volume.name)}")
        return found

    def _records(self) -> list[tuple[str, tuple[RelPath, int]]]:
        found = []
        for part in ("pending", "volumes"):
            node = self.tree.look((LEDGER, part))
            links = node.entries if isinstance(node, Directory) else {}
            for name, link in links.items():
                assert isinstance(link, Symlink)
                record = decode(link.target)
                found.append((name, (record.path, limit_for(parse_bytes(record.capacity)))))
        return found

    def _answers(self) -> dict[str, Answer]:
        node = self.tree.look((LEDGER, "quota"))
        links = node.entries if isinstance(node, Directory) else {}
        return {name: decode_answer(link.target) for name, link in links.items() if isinstance(link, Symlink)}


def with_agent(script: Script, *, kill_rate: float) -> Script:
    """Return a script that runs beside an agent, and then looks at what the agent has done."""

    async def run(world: World) -> None:
        server = Server(world, kill_rate=kill_rate)
        world.later(server.run())
        await script(world)
        server.kill_rate = 0.0
        await asyncio.sleep(PASSES_S)
        for what in server.wrong():
            world.judge.blame(f"quota: {what}")

    return run

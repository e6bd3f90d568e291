"""The quota agent as one more process of the simulation, beside a provisioner that meets faults and restarts.

The agent limits every volume, so that each directory that the provisioner moves has a project of its own.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, decode_answer, limit_for
from provisioner.core.records import OnDelete, decode
from provisioner.quota.agent import ExportAgent, Options
from provisioner.quota.book import Holders
from provisioner.quota.rounds import Rounds
from tests.simulation import scripts
from tests.simulation.faults import Chance
from tests.simulation.histories import report
from tests.simulation.world import NAS, Script, World, play
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

    async def run(self) -> None:
        """Run an agent, and another one whenever it was killed."""
        clock = asyncio.get_running_loop()
        while True:
            disk = MemoryDisk(self.quotas, self.tree, before=self._maybe_kill, after=self._maybe_kill)
            options = Options(version="1", all_volumes=True)
            rounds = Rounds([ExportAgent("/srv", disk, Holders(), options, now=lambda: "now")], clock.time)
            try:
                while True:
                    wait_s = rounds.turn()
                    await asyncio.sleep(min(wait_s, 1.0) + self.world.chance.uniform(0.0, 0.1))
            except Killed:
                self.kills += 1
                disk.release()
            await asyncio.sleep(self.world.chance.uniform(0.1, 5.0))

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


def history(script: Script, seed: int) -> World:
    """Run a history; seed 0 is without faults."""

    def make(chance: random.Random) -> World:
        return World(chance, plan=Chance(chance, rate=0.02, slow=True) if seed else None)

    return play(make, with_agent(script, kill_rate=0.005 if seed else 0.0), seed)


@pytest.mark.parametrize("rule", ["delete", "archive", "retain"])
@pytest.mark.parametrize("seed", range(8))
def test_the_life_of_a_volume(rule: OnDelete, seed: int) -> None:
    """The provisioner keeps its promises beside an agent; at rest each volume has its limit, and an id of its own."""
    world = history(scripts.lifecycle(rule), seed)
    assert not world.judge.violations, report(world, f"seed {seed}")


@pytest.mark.parametrize("rule", ["delete", "archive"])
@pytest.mark.parametrize("seed", range(4))
def test_two_volumes(rule: OnDelete, seed: int) -> None:
    """The same for two volumes whose directories need different names."""
    world = history(scripts.lifecycle(rule, pattern="${.PVC.namespace}-${.PV.name}"), seed)
    assert not world.judge.violations, report(world, f"seed {seed}")

"""The agent is killed between any two calls, or each call fails, while people and provisioners go on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from provisioner.core.quota import Answer, encode
from provisioner.quota.agent import ExportAgent
from provisioner.quota.rounds import Rounds
from tests.support.fakes.tree import Directory, Symlink
from tests.support.quota_world import Killed, QuotaWorld

MI = 1 << 20

Scenario = Callable[[QuotaWorld], None]


def new_volumes(world: QuotaWorld) -> None:
    """Two volumes are created, one of them with content."""
    world.fill(world.volume("a"), 1000)
    for number in range(4):
        world.make(f"a/{number}")
    world.volume("b", "shop/b")


def expansion(world: QuotaWorld) -> None:
    """A volume grows, and another one shrinks."""
    world.volume("a")
    world.volume("b", size="9Mi")
    world.run(agents := world.agents())
    world.end(agents)
    world.write_record("a", world.record("a", "9Mi"))
    world.write_record("b", world.record("b", "2Mi"))


def end_of_a_volume(world: QuotaWorld) -> None:
    """A volume is deleted and purged, and another one is created."""
    world.volume("a")
    world.run(agents := world.agents())
    world.end(agents)
    world.delete("a")
    world.purge("a")
    world.volume("b")


def restored_archive(world: QuotaWorld) -> None:
    """An archive becomes another volume."""
    world.volume("a")
    world.run(agents := world.agents())
    world.end(agents)
    archive = world.archive("a")
    world.write_record("b", world.record("b", "2Mi", archive=archive))
    world.move(archive, "b")
    del world.part("archives").entries[archive]


def adopted(world: QuotaWorld) -> None:
    """A volume adopts the directory of a retained one, whose record is still there."""
    world.volume("a", "data", retained="2026-11-28T08:10:00Z")
    world.run(agents := world.agents())
    world.end(agents)
    world.write_record("b", world.record("data", "4Mi"), state="pending")
    del world.part("volumes").entries["a"]


def replaced(world: QuotaWorld) -> None:
    """A directory is replaced by one without a project."""
    world.fill(world.volume("a"), 500)
    world.run(agents := world.agents())
    world.end(agents)
    world.move("a", "aside")
    world.fill(world.make("a"), 800)


def forged(world: QuotaWorld) -> None:
    """The answer of a new volume has the id of another one."""
    world.volume("b")
    world.run(agents := world.agents())
    world.end(agents)
    world.volume("a")
    text = encode(Answer(project=world.said("b").project, whole=True, limit_bytes=MI))
    world.part("quota").entries["a"] = Symlink(text)


SCENARIOS = [new_volumes, expansion, end_of_a_volume, restored_archive, adopted, replaced, forged]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("how", ["killed", "failed"])
def test_at_each_call(scenario: Scenario, how: str) -> None:
    """After a crash or an error at any call, the next agent or the next pass brings each volume to its limit."""
    for after_calls in range(1, 1000):
        world = QuotaWorld()
        scenario(world)
        agents = world.agents()
        at = world.calls + after_calls
        world.kill_at, world.fail_at = (at, None) if how == "killed" else (None, at)
        try:
            world.run(agents, passes=1)
        except Killed:
            world.end(agents)
            agents = world.agents()
        if scenario not in (forged, replaced):  # these are wrong until the agent looks
            world.check_promises()
        if world.calls < at:  # the whole run had fewer calls
            world.check_rest()
            return
        world.kill_at = world.fail_at = None
        world.run(agents)
        world.check_rest()
    pytest.fail("the agent never comes to rest")


@pytest.mark.parametrize("scenario", SCENARIOS[:5], ids=lambda each: each.__name__)
def test_no_answer_promises_too_much(scenario: Scenario) -> None:
    """After every call, each answer that says that a size is enforced is right."""
    world = QuotaWorld()
    scenario(world)
    agents = world.agents()
    for agent in agents:
        agent.disk.after = lambda call, path: world.check_promises()  # type: ignore[attr-defined]
    world.run(agents)
    world.check_rest()


class History:
    """A random history of people, provisioners and agents on two exports of one file system."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = QuotaWorld()
        self.number = 0
        self.running: list[tuple[Sequence[ExportAgent], Rounds]] = []
        self.swapped: tuple[str, Directory] | None = None
        self.archives: list[str] = []
        self.start()

    def start(self) -> None:
        """Another process of the agent begins."""
        agents = self.world.agents()
        self.running.append((agents, Rounds(agents, lambda: self.world.clock_s)))

    def step(self) -> None:
        """A person, a provisioner or an agent does something."""
        people = [self.create, self.fill, self.end_one, self.archive, self.restore, self.purge, self.grow, self.swap]
        machine = [self.forge, self.unfull, self.full, self.kill, self.second]
        self.chance.choice([*people, *machine, *[self.turn] * 12])()
        self.world.check_promises()

    def pick(self) -> str | None:
        """Return a volume whose directory is in its place."""
        gone = self.swapped[0] if self.swapped else None
        names = [name for name in self.world.part("volumes").entries if name.startswith("v") and name != gone]
        return self.chance.choice(names) if names else None

    def create(self) -> None:
        """A provisioner creates a volume, with content now and then."""
        self.number += 1
        if len(self.world.records()) < 5:
            directory = self.world.volume(f"v{self.number}", size=f"{self.chance.randint(1, 4)}Mi")
            for number in range(self.chance.choice([0, 0, 3, 9])):
                self.world.fill(directory, 10, str(number))

    def fill(self) -> None:
        """A tenant writes a file, perhaps beyond the size of a volume that has no limit yet."""
        if name := self.pick():
            self.world.fill(self.world.make(name), self.chance.randint(1, 2 * MI), "data")

    def end_one(self) -> None:
        """A provisioner deletes a volume."""
        if name := self.pick():
            self.world.delete(name)

    def archive(self) -> None:
        """A provisioner archives a volume."""
        if (name := self.pick()) and len(self.archives) < 2:
            self.archives.append(self.world.archive(name))

    def restore(self) -> None:
        """A provisioner restores an archive into a new volume."""
        if self.archives:
            archive = self.archives.pop()
            self.number += 1
            name = f"v{self.number}"
            self.world.write_record(name, self.world.record(name, "3Mi", archive=archive), state="pending")
            self.turn()
            self.world.move(archive, name)
            self.turn()
            self.world.part("volumes").entries[name] = self.world.part("pending").entries.pop(name)
            del self.world.part("archives").entries[archive]

    def purge(self) -> None:
        """The trash is emptied."""
        for name in list(self.world.part("trash").entries):
            self.world.purge(name)

    def grow(self) -> None:
        """A tenant expands a claim."""
        if name := self.pick():
            self.world.write_record(name, self.world.record(name, f"{self.chance.randint(2, 8)}Mi"))

    def swap(self) -> None:
        """A tenant replaces a directory by a symlink, or puts it back."""
        root = self.world.tree.root.entries
        if self.swapped is not None:
            name, directory = self.swapped
            root[name], self.swapped = directory, None
        elif picked := self.pick():
            self.swapped = (picked, self.world.make(picked))
            root[picked] = Symlink("precious")

    def forge(self) -> None:
        """A record of another namespace claims a directory that a volume has."""
        name = self.pick()
        if name and "evil" not in self.world.records():
            self.world.write_record("evil", self.world.record(name, "9Gi", namespace="evil"))
        else:
            self.world.part("volumes").entries.pop("evil", None)

    def full(self) -> None:
        """The file system is full."""
        self.world.quotas.is_full = True

    def unfull(self) -> None:
        """The file system has room again."""
        self.world.quotas.is_full = False

    def kill(self) -> None:
        """An agent is killed at one of its next calls, and a new one begins."""
        self.world.kill_at = self.world.calls + self.chance.randint(1, 60)
        self.turn()
        self.world.kill_at = None

    def second(self) -> None:
        """A second agent begins."""
        if len(self.running) < 2:
            self.start()

    def turn(self) -> None:
        """An agent works for a while."""
        agents, rounds = running = self.chance.choice(self.running)
        self.world.clock_s += self.chance.choice([0.0, 0.1, 5.0, 60.0])
        try:
            for _ in range(self.chance.randint(1, 4)):
                rounds.turn()
        except Killed:
            self.world.end(agents)
            self.running.remove(running)
            self.start()

    def rest(self) -> None:
        """People stop, what they broke is repaired, and agents bring everything to rest."""
        self.unfull()
        if self.swapped is not None:
            self.swap()
        self.world.part("volumes").entries.pop("evil", None)
        self.world.kill_at = None
        for _ in range(3):
            for _, rounds in self.running:
                self.world.clock_s += 60.0
                rounds.turn()
                while rounds.is_at_work:
                    rounds.turn()
        self.world.check_rest()


@pytest.mark.parametrize("seed", range(60))
def test_a_random_history(seed: int) -> None:
    """Whatever happens, no answer promises too much; at rest each volume has its limit, and an id of its own."""
    history = History(seed)
    history.world.make("precious")
    for _ in range(120):
        history.step()
    history.rest()
    precious = history.world.make("precious")
    assert history.world.quotas.project(precious) == (0, False)

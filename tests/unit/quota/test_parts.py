"""Smaller parts of quota: rounds, metrics, the rehearsal, mounts and the output of zfs(8)."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from provisioner.cli.quota_agent import quota_agent
from provisioner.core.paths import LEDGER
from provisioner.core.quota import Answer, encode
from provisioner.ports.quota import DiskError, Usage
from provisioner.quota import capabilities, metrics, zfs
from provisioner.quota.agent import ExportAgent
from provisioner.quota.book import Holders
from provisioner.quota.kernel import Mount, find_mount
from provisioner.quota.rehearsal import Rehearsal
from provisioner.quota.rounds import Rounds
from provisioner.quota.zfs import ZfsDisk
from tests.support.fakes.tree import Symlink
from tests.support.quota_world import QuotaWorld, options_of

MI = 1 << 20


class Running:
    """An agent at work, on a clock that only the test moves."""

    def __init__(self, world: QuotaWorld) -> None:
        self.world = world
        self.agents = world.agents()
        self.rounds = Rounds(self.agents, lambda: world.clock_s)

    def turn(self, after_s: float = 0.0) -> float:
        """Let some time pass, then work until nothing is due; return when the next turn is."""
        self.world.clock_s += after_s
        wait_s = self.rounds.turn()
        while self.rounds.is_at_work:
            wait_s = self.rounds.turn()
        return wait_s


def test_a_record_is_seen_immediately() -> None:
    """A record that appears between two passes gets its answer in the next turn."""
    running = Running(world := QuotaWorld())
    running.turn()
    world.volume("a")
    assert running.turn(0.1) > 50
    world.check_rest()


@pytest.mark.parametrize("state", ["pending", "volumes"])
def test_a_directory_that_appears_later(state: str) -> None:
    """A directory that follows its record is looked for again soon, less and less often, and then only by passes."""
    running = Running(world := QuotaWorld())
    running.turn()
    world.write_record("a", world.record("a"), state=state)
    waits = []
    wait_s = running.turn(0.1)
    while wait_s < 40:
        waits.append(wait_s)
        wait_s = running.turn(wait_s)
    assert waits == sorted(waits)
    assert waits[0] < 0.05
    assert len(waits) < 14
    world.make("a")
    running.turn(60.0)
    world.check_rest()


def test_a_busy_file_is_visited_soon() -> None:
    """A file that a client holds is visited again after two seconds."""
    running = Running(world := QuotaWorld())
    file = world.fill(world.volume("a"), 10)
    for number in range(5):
        world.fill(world.make("a"), 10, str(number))
    world.quotas.busy.add(id(file))
    assert running.turn() <= 2.0
    world.quotas.busy.clear()
    running.turn(2.0)
    world.check_rest()


def test_lost_events() -> None:
    """If events are lost, the agent looks at everything."""
    running = Running(world := QuotaWorld())
    running.turn()
    disk = running.agents[0].disk
    world.volume("a")
    disk.changed = lambda: None  # type: ignore[method-assign]
    running.turn(0.1)
    world.check_rest()


def test_events_that_cannot_be_read() -> None:
    """An error while events are read is logged, and the agent looks at everything."""
    running = Running(world := QuotaWorld())
    running.turn()
    world.volume("a")

    def fail() -> set[str] | None:
        raise DiskError("changes of records: Input/output error")

    running.agents[0].disk.changed = fail  # type: ignore[method-assign]
    running.turn(0.1)
    world.check_rest()


def test_descriptors() -> None:
    """A root whose disk has no events, or where nothing can be done, has no descriptor."""
    running = Running(QuotaWorld())
    assert running.rounds.descriptors() == []
    running.turn()
    running.agents[0].disk.events = lambda: 7  # type: ignore[method-assign]
    assert running.rounds.descriptors() == [7]


def test_a_walk_that_fails() -> None:
    """A walk that fails is reported, and begins again in the next pass."""
    running = Running(world := QuotaWorld())
    directory = world.volume("a")
    for number in range(9):
        world.fill(directory, 10, str(number))
    calls = 0

    def fail(call: str, path: tuple[str, ...]) -> None:
        nonlocal calls
        calls += call == "walk"
        if calls == 3:
            raise DiskError("a: Input/output error")

    disk = running.agents[0].disk
    disk.after = fail  # type: ignore[attr-defined]
    running.turn()
    assert world.said("a").reason == "failed"
    running.turn(60.0)
    world.check_rest()


def test_metrics() -> None:
    """The metrics say what can be done on each root, and how many volumes have their limit."""
    running = Running(world := QuotaWorld())
    world.volume("a")
    world.write_record("b", "garbage")
    running.turn()
    running.agents[0].pass_took_s = 0.5
    text = metrics.render(running.agents, version="1")
    for line in (
        'enforces{root="/srv/0"} 1.0',
        'volumes{root="/srv/0"} 2.0',
        'limited{root="/srv/0"} 1.0',
        'answers{root="/srv/0",reason="invalid"} 1.0',
        'pass_seconds{root="/srv/0"} 0.5',
    ):
        assert f"nfs_provisioner_quota_agent_{line}\n" in text
    assert "last_pass_timestamp_seconds" in text


def test_a_rehearsal() -> None:
    """A rehearsal says each step, in order, and changes nothing."""
    world = QuotaWorld()
    world.fill(world.volume("a"), 500)
    world.write_record("b", "garbage")
    world.make(f"{LEDGER}/quota").entries["gone"] = Symlink(encode(Answer(project=1005)))
    lines: list[str] = []
    disk = Rehearsal(world.disk(), lines.append)
    world.run([ExportAgent("/srv", disk, Holders(), options_of({}), now=lambda: "now")], passes=1)
    said = "\n".join(lines)
    assert "a: would set project 1000\na: would set project 1000 on all content" in said
    assert "project 1000: would set the limit to 1Mi" in said
    assert "a: would answer: project 1000, limit 1Mi" in said
    assert "gone: would remove the answer" in said
    assert "the record cannot be read" in said
    assert not world.quotas.limits
    assert world.answer("a") is None
    assert world.said("gone").project == 1005
    disk.release()
    assert (disk.events(), disk.changed()) == (None, set())


MOUNTS = r"""
22 1 253:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 8:16 / /srv rw shared:9 - xfs /dev/sdb rw,prjquota
31 22 8:16 /nfs /exports/my\040data rw shared:9 - xfs /dev/sdb rw,prjquota
garbage
""".strip()


@pytest.mark.parametrize(
    ("device", "root", "mount"),
    [
        ("8:16", "/srv/nfs", Mount("xfs", "/srv", "/dev/sdb")),
        ("8:16", "/exports/my data/a", Mount("xfs", "/exports/my data", "/dev/sdb")),
        ("253:1", "/home", Mount("ext4", "/", "/dev/vda1")),
        ("9:9", "/srv", Mount("", "/srv", "")),
    ],
)
def test_the_mount_of_a_root(device: str, root: str, mount: Mount) -> None:
    """The mount of a root is that of its device, nearest above it."""
    assert find_mount(MOUNTS, device, root) == mount


def test_zfs() -> None:
    """Usage and limits of ZFS come from zfs(8), in bytes."""
    calls: list[Sequence[str]] = []

    def run(arguments: Sequence[str]) -> str:
        calls.append(arguments)
        return "project\t7\t4096\t8192\t3\nproject\t8\t512\tnone\t-\n" if arguments[0] == "projectspace" else ""

    disk = ZfsDisk("/tank", run=run)
    assert disk.lacks_quota(0, Mount("zfs", "/tank", "tank/nfs")) == []
    assert disk.usages() == {7: Usage(4096, 3, 8192), 8: Usage(512, 0, 0)}
    assert disk.usage(9).is_free
    disk.set_limit(7, 0)
    disk.set_limit(7, 4096)
    assert [call[1] for call in calls[-2:]] == ["projectquota@7=none", "projectquota@7=4096"]


def test_zfs_without_projects() -> None:
    """An error of zfs(8), or an answer that cannot be read, says what the dataset lacks."""

    def fail(arguments: Sequence[str]) -> str:
        return "not a table"

    assert "project_quota" in ZfsDisk("/tank", run=fail).lacks_quota(0, Mount("zfs", "/tank", "tank"))[0]


@pytest.mark.parametrize("program", ["false", "no-such-program"])
def test_zfs_8(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zfs(8) that fails or is missing is an error of the port."""
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **options: real([program, *words[1:]], **options))
    with pytest.raises(DiskError, match="zfs list"):
        zfs.run_zfs(["list"])


def test_a_heartbeat_that_cannot_be_written() -> None:
    """An agent whose heartbeat cannot be written works on."""
    world = QuotaWorld()
    agents = world.agents()
    disk = agents[0].disk
    write = disk.write

    def full(path: tuple[str, ...], text: str) -> None:
        if path[-1] == "agent":
            raise DiskError("no room")
        write(path, text)

    disk.write = full  # type: ignore[method-assign]
    world.volume("a")
    world.run(agents)
    world.check_rest()


def test_an_agent_that_looks_before_its_first_pass() -> None:
    """A change of a record before the first pass is left to the pass; a call that fails then makes it idle."""
    world = QuotaWorld()
    world.volume("a")
    agents = world.agents()
    agents[0].look_at("a")
    assert world.answer("a") is None
    world.fail_at = world.calls + 4
    world.run(agents, passes=1)
    assert "Input/output error" in agents[0].idle_because
    world.fail_at = None
    world.run(agents)
    world.check_rest()
    world.fail_at = world.calls + 1
    agents[0].look_at("a")
    world.check_rest()


def test_a_damaged_archive_record() -> None:
    """The record of an archive that cannot be read counts for no volume."""
    world = QuotaWorld()
    world.part("archives").entries["archived-x"] = Symlink("garbage")
    world.volume("a")
    world.run()
    world.check_rest()


def test_a_file_system_that_keeps_nothing() -> None:
    """A limit that the file system accepts and does not keep is a failure in the answer, and no endless loop."""
    world = QuotaWorld()
    world.volume("a")
    agents = world.agents()
    agents[0].disk.set_limit = lambda project, limit_bytes: None  # type: ignore[method-assign]
    world.run(agents)
    assert world.said("a").reason == "failed"
    assert "does not keep" in world.said("a").why


def test_a_walk_is_not_begun_twice() -> None:
    """A volume whose walk is under way is looked at without another walk; its end is its own."""
    running = Running(world := QuotaWorld())
    directory = world.volume("a")
    for number in range(9):
        world.fill(directory, 10, str(number))
    list(running.agents[0].full_pass())
    assert running.agents[0].is_walking
    running.agents[0].look_at("a")
    running.turn()
    world.check_rest()


def test_a_directory_that_is_replaced_under_a_walk() -> None:
    """If a directory is replaced while its content is labelled, the walk ends, and the new one is labelled."""
    running = Running(world := QuotaWorld())
    directory = world.volume("a")
    for number in range(9):
        world.fill(directory, 10, str(number))
    list(running.agents[0].full_pass())
    walk = running.agents[0].go_on()
    next(walk)
    world.move("a", "aside")
    world.fill(world.make("a"), 20)
    running.agents[0].look_at("a")
    list(walk)
    running.turn(60.0)
    world.check_rest()


def test_many_volumes_and_records_that_go() -> None:
    """A pass over many volumes is done in parts, and forgets what is gone from the disk."""
    world = QuotaWorld()
    for number in range(70):
        world.volume(f"v{number}", quota="none")
    for name in ("a", "b", "c"):
        world.volume(name)
    agents = world.agents()
    world.run(agents)
    del world.part("volumes").entries["v1"], world.part("quota").entries["b"]
    world.part("quota").entries[".draft"] = Symlink("text")
    assert len(list(agents[0].full_pass())) == 0
    for number in range(70):
        world.write_record(f"v{number}", world.record(f"v{number}", quota="preferred", size="8Ki"))
    world.quotas.lacks = ()
    assert len(list(agents[0].full_pass())) == 1


def test_a_root_that_becomes_usable() -> None:
    """Where nothing can be done the agent looks again soon, and at the other roots as usual."""
    running = Running(world := QuotaWorld(exports=2))
    ledger = world.trees[1].root.entries.pop(LEDGER)
    world.volume("a")
    assert running.turn() <= 5.0
    world.trees[1].root.entries[LEDGER] = ledger
    world.volume("b", tree=world.trees[1])
    running.turn(5.0)
    world.check_rest()
    assert running.agents[1].passed_at


def test_the_unit_of_systemd() -> None:
    """The unit grants what the agent needs and what it needs to drop the rest, and sets variables that it knows."""
    unit = Path(__file__).parents[3].joinpath("deploy/quota-agent.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    granted = set(settings["CapabilityBoundingSet"].split())
    assert granted == {*capabilities.KEPT, "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"}
    assert settings["ExecStart"].endswith(" quota-agent")
    assert settings["Environment"].split("=")[0] in {option.envvar for option in quota_agent.params}
    assert "PrivateUsers" not in settings

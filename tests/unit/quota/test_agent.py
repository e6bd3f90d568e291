"""quota.agent: an agent on exports in memory."""

from __future__ import annotations

import json

import pytest

from provisioner.core.paths import LEDGER
from provisioner.core.quota import Answer, encode
from provisioner.ports.quota import Usage
from tests.support.fakes.tree import Directory, Symlink
from tests.support.quota_world import ADMIN, IDS, QuotaWorld

MI = 1 << 20


def record_text(directory: str, size: str) -> str:
    """Return the text of a record, with any directory and size."""
    fields = {"v": 1, "dir": directory, "ns": "n", "pvc": "p", "uid": "", "class": "c", "del": "delete", "at": ""}
    return json.dumps({**fields, "size": size, "quota": "required"})


@pytest.fixture
def world() -> QuotaWorld:
    """One export with a ledger."""
    return QuotaWorld()


def test_a_new_volume_gets_its_limit(world: QuotaWorld) -> None:
    """A volume whose class asks for it gets a project that its content inherits, a limit, and an answer."""
    directory = world.volume("a", "shop/a", "5Mi")
    world.run()
    world.check_rest()
    answer = world.said("a")
    assert (answer.limit_bytes, answer.whole, answer.reason) == (5 * MI, True, "")
    assert world.quotas.project(directory) == (answer.project, True)
    assert world.heartbeat().limited == 1


def test_a_volume_that_does_not_ask(world: QuotaWorld) -> None:
    """Without the wish in its record a volume stays as it is, and gets no answer."""
    directory = world.volume("a", quota="none")
    world.run()
    assert world.answer("a") is None
    assert world.quotas.project(directory) == (0, False)


def test_all_volumes(world: QuotaWorld) -> None:
    """--all-volumes limits each volume; without it, the limit is lifted and the id stays."""
    world.volume("a", quota="none")
    world.end(agents := world.agents(all_volumes=True))
    world.run(agents, all_volumes=True)
    assert world.limit("a") == MI
    world.end(agents)
    world.run()
    assert (world.limit("a"), world.said("a").reason) == (0, "not-wanted")


def test_content_that_was_there_first(world: QuotaWorld) -> None:
    """Content of an adopted directory counts before the limit is set."""
    directory = world.volume("a", size="5Mi")
    for number in range(7):
        world.fill(world.make(f"a/{number}"), 1000)
    world.run()
    world.check_rest()
    assert world.said("a").used_bytes == 7000
    assert {world.quotas.project(node)[0] for node in directory.entries.values()} == {world.said("a").project}


def test_symlinks_that_were_there_first(world: QuotaWorld) -> None:
    """A symlink that cannot get the project id is counted, and does not prevent the limit."""
    world.volume("a").entries["link"] = Symlink("file")
    world.run()
    assert (world.said("a").special, world.said("a").limit_bytes) == (1, MI)


def test_a_file_that_a_client_holds(world: QuotaWorld) -> None:
    """No limit is set while a file cannot be labelled; the agent comes back until none is left."""
    file = world.fill(world.volume("a"), 500)
    world.quotas.busy.add(id(file))
    agents = world.agents()
    world.run(agents)
    assert (world.said("a").reason, world.said("a").busy, world.limit("a")) == ("busy", 1, 0)
    world.quotas.busy.clear()
    world.run(agents)
    world.check_rest()
    assert world.said("a").busy == 0


def test_never_below_the_usage(world: QuotaWorld) -> None:
    """A volume that holds more than its size is limited to what it holds, and to its size once data is removed."""
    directory = world.volume("a")
    world.fill(directory, 3 * MI)
    agents = world.agents()
    world.run(agents)
    assert (world.limit("a"), world.said("a").reason) == (3 * MI, "overfull")
    del directory.entries["file"]
    world.run(agents)
    world.check_rest()
    assert world.limit("a") == MI


def test_expansion(world: QuotaWorld) -> None:
    """A larger size in the record is in force as soon as the agent sees it."""
    world.volume("a")
    agents = world.agents()
    world.run(agents)
    world.write_record("a", world.record("a", "9Mi"))
    agents[0].look_at("a")
    assert world.said("a").limit_bytes == world.limit("a") == 9 * MI


def test_the_trash_keeps_its_id(world: QuotaWorld) -> None:
    """The id of a deleted volume is free, and its limit gone, only when nothing has it."""
    world.fill(world.volume("a"), 100)
    agents = world.agents()
    world.run(agents)
    project = world.said("a").project
    world.delete("a")
    world.volume("b")
    world.run(agents)
    assert (world.said("a").reason, world.limit("a")) == ("held", MI)
    assert world.said("b").project != project
    world.purge("a")
    world.quotas.elsewhere[project] = Usage(100, 1)  # a client has a file open
    world.run(agents)
    assert world.said("a").project == project
    world.quotas.elsewhere.clear()
    world.run(agents)
    assert world.answer("a") is None
    assert not world.quotas.limits[project]


@pytest.mark.parametrize(("lifted", "limit"), [(False, MI), (True, 0)])
def test_an_archive_keeps_its_limit(world: QuotaWorld, *, lifted: bool, limit: int) -> None:
    """The limit of an archive stays, unless an option lifts it; the id stays."""
    world.volume("a")
    agents = world.agents(lift_archives=lifted)
    world.run(agents)
    world.archive("a")
    world.run(agents)
    assert world.limit("a") == limit
    assert world.said("a").reason == "held"


def test_a_restored_archive(world: QuotaWorld) -> None:
    """A volume that gets an archive takes its id over, without a walk through the data."""
    directory = world.volume("a")
    agents = world.agents()
    world.run(agents)
    project = world.said("a").project
    archive = world.archive("a")
    world.run(agents)
    world.write_record("b", world.record("b", "2Mi", archive=archive), state="pending")
    world.move(archive, "b")
    world.run(agents)
    world.check_rest()
    assert (world.said("b").project, world.answer("a")) == (project, None)
    assert world.quotas.project(directory)[0] == project


def test_another_claim_does_not_get_an_archive_s_id(world: QuotaWorld) -> None:
    """A directory with the project of an archive gets an id of its own, if it is not the restored archive."""
    world.make("a/below")
    world.volume("a")
    agents = world.agents()
    world.run(agents)
    project = world.said("a").project
    world.archive("a")
    world.move("archived-a-1/below", "b")
    world.write_record("b", world.record("b"))
    world.run(agents)
    world.check_rest()
    assert world.said("b").project != project


def test_a_retained_directory_that_is_adopted(world: QuotaWorld) -> None:
    """The volume that adopts a retained directory takes its id over while the former record still exists."""
    world.volume("a", "data", retained="2026-11-28T08:10:00Z")
    agents = world.agents()
    world.run(agents)
    project = world.said("a").project
    world.write_record("b", world.record("data", "4Mi", created="2026-11-28T08:20:00Z"), state="pending")
    world.run(agents)
    assert (world.said("b").project, world.limit("b"), world.answer("a")) == (project, 4 * MI, None)
    del world.part("pending").entries["b"]  # the attempt is undone
    world.run(agents)
    world.check_rest()
    assert (world.said("a").project, world.limit("a")) == (project, MI)


@pytest.mark.parametrize("forged", ["a", "a/below", "shop"])
def test_two_records_of_one_directory(world: QuotaWorld, forged: str) -> None:
    """A record that claims a directory of another namespace, or one above or below it, changes nothing."""
    world.volume("a", "a")
    world.volume("c", "shop/c")
    agents = world.agents()
    world.run(agents)
    before = {project: limit for project, limit in world.quotas.limits.items() if limit}
    world.make(forged)
    world.write_record("evil", world.record(forged, "9Gi", namespace="evil"))
    world.run(agents)
    assert world.said("evil").reason == "conflict"
    assert {project: limit for project, limit in world.quotas.limits.items() if limit} == before


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        '{"v":2}',
        "caf\udce9",
        *(record_text(*each) for each in [
            ("../a", "1Gi"), ("/a", "1Gi"), (".provisioner/trash/a", "1Gi"), ("", "1Gi"), ("a", "much"), ("a", "0"),
            ("a", "-5Gi"),
        ]),
    ],
)  # fmt: skip
def test_a_corrupt_record(world: QuotaWorld, text: str) -> None:
    """A record that cannot be used changes nothing but its answer, which says why."""
    world.make("a")
    world.write_record("a", text)
    world.run()
    assert world.said("a").reason == "invalid"
    assert not world.quotas.limits
    assert world.quotas.project(world.make("a")) == (0, False)


def test_a_directory_that_became_a_symlink(world: QuotaWorld) -> None:
    """A symlink in place of a directory is not followed: nothing is labelled, and the limit stays."""
    world.volume("a")
    other = world.make("precious")
    agents = world.agents()
    world.run(agents)
    world.move("a", "aside")
    world.tree.root.entries["a"] = Symlink("precious")
    world.run(agents)
    assert (world.said("a").reason, world.limit("a")) == ("missing", MI)
    assert world.quotas.project(other) == (0, False)


def test_a_pending_record_comes_before_its_directory(world: QuotaWorld) -> None:
    """A record without a directory yet gets no answer; the directory gets its limit as soon as it is there."""
    world.write_record("a", world.record("a"), state="pending")
    agents = world.agents()
    world.run(agents)
    assert (world.answer("a"), agents[0].awaited["a"] > 0) == (None, True)
    world.make("a")
    agents[0].look_at("a")
    world.check_rest()
    assert not agents[0].awaited


def test_a_project_of_an_admin(world: QuotaWorld) -> None:
    """A directory whose project an admin has set stays as it is, and the answer says what to type."""
    directory = world.volume("a")
    world.quotas.give(directory, ADMIN, inherits=True)
    world.quotas.limits[ADMIN] = 5
    world.run()
    assert world.said("a").reason == "foreign-project"
    assert "project -C" in world.said("a").why
    assert (world.quotas.project(directory), world.quotas.limits) == ((ADMIN, True), {ADMIN: 5})


def test_ids_that_others_use(world: QuotaWorld) -> None:
    """An id that anything on the file system has, or that has a limit, is not given to a volume."""
    world.quotas.elsewhere[1000] = Usage(10, 1)
    world.quotas.limits[1001] = 5
    world.volume("a")
    world.run()
    assert world.said("a").project == 1002


def test_no_id_is_left(world: QuotaWorld) -> None:
    """A volume for which no id is left says so, and gets one when another one is freed."""
    for number in range(11):
        world.volume(f"v{number:02}")
    agents = world.agents()
    world.run(agents)
    lacking = [name for name in world.records() if world.said(name).reason == "no-free-id"]
    assert len(lacking) == 1
    gone = next(name for name in world.records() if name not in lacking)
    world.delete(gone)
    world.purge(gone)
    world.run(agents, passes=3)
    world.check_rest()


def test_lost_answers(world: QuotaWorld) -> None:
    """Without the answers, each directory keeps the id that it has."""
    for name in "abc":
        world.volume(name)
    agents = world.agents()
    world.run(agents)
    before = {name: world.said(name).project for name in "abc"}
    world.end(agents)
    del world.part("quota").entries["a"], world.part("quota").entries["b"]
    world.part("quota").entries["c"] = Symlink("garbage")
    world.run()
    world.check_rest()
    assert {name: world.said(name).project for name in "abc"} == before


def test_a_forged_answer(world: QuotaWorld) -> None:
    """Of two volumes whose answers have one id, the one whose directory has it keeps it."""
    world.volume("b")
    agents = world.agents()
    world.run(agents)
    project = world.said("b").project
    world.volume("a")
    world.part("quota").entries["a"] = Symlink(encode(Answer(project=project, whole=True, limit_bytes=MI)))
    world.run(agents)
    world.check_rest()
    assert world.said("b").project == project


@pytest.mark.parametrize("project", [-1, 0, 1 << 32])
def test_an_impossible_id(world: QuotaWorld, project: int) -> None:
    """An answer with an id that no project can have is no answer."""
    world.volume("a")
    world.make(f"{LEDGER}/quota").entries["a"] = Symlink(json.dumps({"v": 1, "id": project}))
    world.run()
    world.check_rest()


def test_a_full_file_system(world: QuotaWorld) -> None:
    """Without room for answers nothing is labelled and no limit changes; later everything is done."""
    world.volume("a")
    agents = world.agents()
    world.run(agents)
    world.quotas.is_full = True
    directory = world.volume("b")
    world.run(agents)
    assert (world.answer("b"), world.quotas.project(directory)) == (None, (0, False))
    assert agents[0].counts.failures == 1
    world.quotas.is_full = False
    world.run(agents)
    world.check_rest()


def test_two_agents(world: QuotaWorld) -> None:
    """The second agent of an export does nothing until the first one has ended."""
    world.volume("a")
    first, second = world.agents(), world.agents()
    world.run(first)
    world.volume("b")
    world.run(second)
    assert "another quota agent" in second[0].idle_because
    assert world.answer("b") is None
    world.end(first)
    world.run(second)
    world.check_rest()


def test_two_exports_on_one_file_system() -> None:
    """Volumes of two exports on one file system never have one id."""
    world = QuotaWorld(exports=2)
    for tree in world.trees:
        for name in "abc":
            world.volume(name, tree=tree)
    world.run()
    world.check_rest()
    assert len({world.said(name, tree).project for tree in world.trees for name in "abc"}) == 6


def test_what_the_file_system_lacks(world: QuotaWorld) -> None:
    """Without project quotas nothing changes, and the heartbeat says what is missing."""
    directory = world.volume("a")
    world.quotas.lacks = ("/srv is mounted without prjquota",)
    agents = world.agents()
    world.run(agents)
    assert not world.heartbeat().enforces
    assert "prjquota" in world.heartbeat().lacks
    assert world.quotas.project(directory) == (0, False)
    world.quotas.lacks = ()
    world.run(agents)
    assert world.heartbeat().enforces
    world.check_rest()


@pytest.mark.parametrize(
    ("filesystem", "said", "holds"), [("xfs", False, True), ("ext4", False, False), ("ext4", True, True)]
)
def test_whether_root_is_held(filesystem: str, *, said: bool, holds: bool) -> None:
    """The heartbeat says that limits hold root, except on ext4, where an admin has to say it."""
    world = QuotaWorld()
    world.quotas.filesystem = filesystem
    world.run(root_is_held=said)
    assert world.heartbeat().holds_root is holds


def test_an_export_without_a_ledger(world: QuotaWorld) -> None:
    """The agent creates no ledger: it waits for a provisioner."""
    del world.tree.root.entries[LEDGER]
    agents = world.agents()
    world.run(agents)
    assert "no ledger yet" in agents[0].idle_because
    assert LEDGER not in world.tree.root.entries


def test_inheritance_above(world: QuotaWorld) -> None:
    """A directory that passes a project on to what is renamed into it is reported."""
    world.volume("a", "shop/a")
    for path in ((), (LEDGER, "trash"), ("shop",)):
        node = world.tree.look(path)
        assert isinstance(node, Directory)
        world.quotas.give(node, 0, inherits=True)
    agents = world.agents()
    world.run(agents)
    assert len(agents[0].warnings) == 3
    assert "chattr -P" in world.heartbeat().warns


def test_a_step_that_fails(world: QuotaWorld) -> None:
    """A failed call on one volume is in its answer, stops no other volume, and is repeated."""
    world.volume("a")
    world.volume("b")
    agents = world.agents()
    calls: list[str] = []

    def fail(call: str, path: tuple[str, ...]) -> None:
        calls.append(call)
        if call == "set_label" and path == ("a",):
            from provisioner.ports.quota import DiskError

            raise DiskError("a: Input/output error")

    agents[0].disk.before = fail  # type: ignore[attr-defined]
    world.run(agents)
    assert (world.said("a").reason, world.limit("b")) == ("failed", MI)
    agents[0].disk.before = lambda call, path: None  # type: ignore[attr-defined]
    world.run(agents)
    world.check_rest()


def test_ids_of_an_older_range(world: QuotaWorld) -> None:
    """Volumes keep ids that were given from another range."""
    world.volume("a")
    world.make(f"{LEDGER}/quota").entries["a"] = Symlink(encode(Answer(project=55)))
    world.run()
    assert world.said("a").project == 55
    assert world.limit("a") == MI
    assert 55 not in IDS


def test_an_id_that_is_held_and_not_used_yet(world: QuotaWorld) -> None:
    """An id that an answer holds is not given to another volume, although nothing has it yet."""
    for name in ("a", "b", "c"):
        world.volume(name)
    world.make(f"{LEDGER}/quota").entries["b"] = Symlink(encode(Answer(project=1000)))
    world.run()
    world.check_rest()
    assert world.said("b").project == 1000


def test_names_that_are_not_unicode(world: QuotaWorld) -> None:
    """A record whose name is not Unicode is handled like any other, and named in the answers of its rivals."""
    world.volume("a")
    world.write_record("caf\udce9", world.record("a", namespace="evil"))
    world.run()
    assert (world.said("a").reason, world.said("caf\udce9").reason) == ("conflict", "conflict")


def test_a_directory_is_replaced_while_its_walk_waits_for_its_turn(world: QuotaWorld) -> None:
    """A walk that ends before its turn comes does not end the agent."""
    for name in ("a", "b"):
        directory = world.volume(name)
        for number in range(7):
            world.fill(world.make(f"{name}/{number}"), 1000)
        assert len(directory.entries) == 7
    (agent,) = world.agents()
    list(agent.full_pass())
    assert agent.is_walking
    walks = agent.go_on()
    next(walks)
    world.tree.root.entries["b"] = Directory()
    agent.look_at("b")
    list(walks)
    world.run([agent])
    world.check_rest()

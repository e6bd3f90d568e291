"""Edits of a volume by people and tools: respected, or reported together with the command that repairs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from provisioner.core import health, names
from provisioner.core.ledgers import Installation
from provisioner.core.places import Places
from provisioner.core.records import OnDelete
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ledger_of
from tests.simulation.histories import report
from tests.simulation.process import PROVISIONER
from tests.simulation.scripts import KEY, _volume_of, _warnings_of
from tests.simulation.world import NAS, World, play
from tests.support.fakes.cluster import Body
from tests.support.fakes.tree import Directory

Edit = Callable[[Body], None]
ANNOTATE = "kubectl annotate pv"


def annotated(**values: str | None) -> Edit:
    """Set or remove annotations of the provisioner."""

    def edit(body: Body) -> None:
        annotations = body["metadata"].setdefault("annotations", {})
        for name, value in values.items():
            key = names.PROVISIONED_BY if name == "by" else names.PREFIX + name.replace("_", "-")
            annotations.pop(key, None)
            if value is not None:
                annotations[key] = value

    return edit


def bare(body: Body) -> None:
    """Remove all annotations, labels and finalizers."""
    body["metadata"].update(annotations={}, labels={}, finalizers=[])


def labelled(body: Body) -> None:
    """Add a label."""
    body["metadata"]["labels"] = {"team": "x"}


def unfinalized(body: Body) -> None:
    """Remove the finalizers."""
    body["metadata"]["finalizers"] = []


def kept(body: Body) -> None:
    """Set the reclaim policy Retain."""
    body["spec"]["persistentVolumeReclaimPolicy"] = "Retain"


def unbound(body: Body) -> None:
    """Remove the claimRef."""
    body["spec"].pop("claimRef")


def everything(body: Body) -> None:
    """All of these edits together."""
    bare(body)
    unbound(body)
    kept(body)


ALL = annotated(on_delete=None, directory=None, export_id=None)


@dataclass(frozen=True)
class Case:
    """An edit of a Bound volume, and the outcome when its claim is deleted afterwards."""

    edit: Edit
    rule: OnDelete | None
    """The rule for its directory; None if nothing happens until the edit is reverted."""
    event: bool = False
    """Whether an event on the volume names the command that reverts it."""
    check: bool = False
    """Whether `check` reports it."""


CASES = {
    "a milder rule": Case(annotated(on_delete="retain"), "retain"),
    "a rule in between": Case(annotated(on_delete="archive"), "archive"),
    "no rule": Case(annotated(on_delete=None), None, event=True, check=True),
    "an unknown rule": Case(annotated(on_delete="?"), None, event=True, check=True),
    "no directory": Case(annotated(directory=None), "delete", event=True, check=True),
    "another directory": Case(annotated(directory="x"), "delete", event=True, check=True),
    "no export": Case(annotated(export_id=None), None, event=True, check=True),
    "another export": Case(annotated(export_id="x"), None, event=True, check=True),
    "no annotation of the provisioner": Case(ALL, None, event=True, check=True),
    "another provisioner": Case(annotated(by="another/one"), None, check=True),
    "no provisioner": Case(annotated(by=None), None, check=True),
    "nothing at all": Case(bare, None, check=True),
    "a label": Case(labelled, "delete"),
    "no finalizer": Case(unfinalized, "delete"),
}


async def counted(world: World) -> bool:
    """Whether `check` reports a volume that disagrees with the ledger."""
    export = Export(NAS, world.trees[NAS])
    await export.open(create=False)
    volumes = [
        (volume, path)
        for volume in world.site.cluster.volumes()
        if volume.spec.nfs is not None and (path := NAS.relative(volume.spec.nfs.server, volume.spec.nfs.path))
    ]
    own = Installation(provisioner=PROVISIONER, cluster=await world.site.cluster.cluster_uid())
    return bool(health.of_ledger(ledger_of(export, Places()), volumes, own))


def outcome(world: World, path: tuple[str, ...]) -> str:
    """What happened to a directory."""
    tree = world.trees[NAS]
    if isinstance(tree.look(path), Directory):
        return "there"
    return "archived" if any(name.startswith("archived-") for name in tree.root.entries) else "gone"


BECOMES = {"delete": "gone", "archive": "archived", "retain": "there"}


async def _deleted(world: World) -> None:
    world.delete_claim(KEY)
    await world.until(lambda: world.site.cluster.claim(KEY) is None)
    await asyncio.sleep(120.0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_edited_volume(case: Case) -> None:
    """Each edit is respected, or an event or `check` reports it, and nothing is deleted until it is reverted."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, "delete")
        cluster, name = world.site.cluster, home.volume
        body = cluster.body("volumes", name)
        assert body is not None
        before = body["metadata"]["annotations"]
        home.rule = case.rule or "retain"
        cluster.change("volumes", name, case.edit)
        await asyncio.sleep(60.0)
        assert await counted(world) is case.check
        warned = [message for message in _warnings_of(world, name) if ANNOTATE in message]
        assert bool(warned) is case.event
        await _deleted(world)
        if case.rule is None:
            assert outcome(world, home.path) == "there"
            assert cluster.volume(name) is not None
            home.rule = "delete"
            cluster.change("volumes", name, lambda stored: stored["metadata"].update(annotations=before))
            await asyncio.sleep(120.0)
        assert outcome(world, home.path) == BECOMES[case.rule or "delete"]
        assert cluster.volume(name) is None
        world.judge.reported.add(name)
        await world.rest()

    world = play(World, script, 0)
    assert not world.judge.violations, report(world, "")


@pytest.mark.parametrize("edit", [kept, unbound, everything], ids=["kept", "unbound", "all together"])
def test_a_volume_that_is_taken_out_of_use(edit: Edit) -> None:
    """A retained or unclaimed volume goes when it is deleted, and its data is reported as an orphan."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, "delete")
        cluster, name = world.site.cluster, home.volume
        home.rule = "retain"
        world.delete_claim(KEY)
        cluster.change("volumes", name, edit)
        await world.until(lambda: cluster.claim(KEY) is None)
        await asyncio.sleep(120.0)
        assert outcome(world, home.path) == "there"
        assert cluster.volume(name) is not None
        cluster.delete("volumes", name)
        await asyncio.sleep(120.0)
        assert cluster.volume(name) is None
        assert outcome(world, home.path) == "there"
        assert name in world.judge.reported

    world = play(World, script, 0)
    assert not world.judge.violations, report(world, "")


def test_released_and_then_patched() -> None:
    """A retained volume is reclaimed by its rule once its policy becomes Delete."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, "delete")
        cluster, name = world.site.cluster, home.volume
        cluster.change("volumes", name, kept)
        await _deleted(world)
        assert outcome(world, home.path) == "there"
        cluster.change("volumes", name, lambda body: body["spec"].update(persistentVolumeReclaimPolicy="Delete"))
        await asyncio.sleep(120.0)
        assert outcome(world, home.path) == "gone"
        assert cluster.volume(name) is None
        await world.rest()

    world = play(World, script, 0)
    assert not world.judge.violations, report(world, "")


def test_a_volume_that_failed() -> None:
    """A volume that Failed while it lacked its provisioner is reclaimed once it names it again."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, "delete")
        cluster, name = world.site.cluster, home.volume
        cluster.change("volumes", name, annotated(by=None))
        await _deleted(world)
        cluster.change("volumes", name, lambda body: body["status"].update(phase="Failed"))
        cluster.change("volumes", name, annotated(by=PROVISIONER))
        await asyncio.sleep(120.0)
        assert outcome(world, home.path) == "gone"
        assert cluster.volume(name) is None
        await world.rest()

    world = play(World, script, 0)
    assert not world.judge.violations, report(world, "")

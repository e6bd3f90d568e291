"""Volumes with `quota: required` beside a quota agent: none exists, and none has more, before its size is enforced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from functools import partial

import pytest
from msgspec import structs

from provisioner.core import expansion
from provisioner.core.records import OnDelete, Record
from provisioner.ledger.export import Export
from tests.simulation import scripts
from tests.simulation.agents import with_agent
from tests.simulation.bugs import Mutant
from tests.simulation.faults import At, Chance, Fault, Nothing
from tests.simulation.histories import FULL, report
from tests.simulation.process import Parts
from tests.simulation.scripts import KEY, Meddle
from tests.simulation.world import NAMED, Script, World, play

REQUIRED = {"quota": "required"}


def enforced(rule: OnDelete, meddle: Meddle = scripts.leave) -> Script:
    """The life of a volume whose size is enforced."""
    return scripts.lifecycle(rule, meddle, **REQUIRED)


def growing(rule: OnDelete) -> Script:
    """A claim in use requests more twice, and less again in between; then it is deleted."""

    async def script(world: World) -> None:
        world.add_class("nfs", onDelete=rule, pathPattern=NAMED, **REQUIRED)
        world.claim(KEY, "nfs")
        assert await world.until(lambda: scripts._is_bound(world, KEY))
        for size in ("2Gi", "9Gi", "3Gi"):
            _request(world, size)
            if size == "9Gi":
                await asyncio.sleep(world.chance.uniform(0.0, 1.0))
            elif not await world.until(partial(_has, world, size)):
                world.judge.blame(f"the claim did not get {size}")
            if _has(world, "9Gi"):
                break  # a claim cannot shrink
        world.delete_claim(KEY)
        await world.until(lambda: world.site.cluster.claim(KEY) is None)
        await world.rest()

    return script


def _request(world: World, size: str) -> None:
    world.note(f"tenant requests {size}")
    world.site.cluster.change("claims", KEY, lambda body: body["spec"]["resources"].update(requests={"storage": size}))


def _has(world: World, size: str) -> bool:
    claim = world.site.cluster.claim(KEY)
    return claim is not None and claim.status.capacity["storage"] == size and not expansion.is_marked(claim)


def two_leaders(script: Script) -> Script:
    """Return a script during which a second process leads too, from the first seconds on."""

    async def run(world: World) -> None:
        async def another() -> None:
            await asyncio.sleep(world.chance.uniform(0.0, 2.0))
            world.start()

        world.later(another())
        await script(world)

    return run


def history(script: Script, seed: int, parts: Parts | None = None) -> World:
    """Run a history; seed 0 is without faults."""

    def make(chance: random.Random) -> World:
        return World(chance, plan=Chance(chance, rate=0.02, slow=True) if seed else None, parts=parts)

    return play(make, with_agent(script, kill_rate=0.005 if seed else 0.0), seed)


@pytest.mark.parametrize("rule", ["delete", "archive", "retain"])
@pytest.mark.parametrize("seed", range(6))
def test_the_life_of_a_volume(rule: OnDelete, seed: int) -> None:
    """Each volume is enforced when it is created, also one whose directory had data, and at rest."""
    world = history(enforced(rule), seed)
    assert world.judge.homes
    assert not world.judge.violations, report(world, f"seed {seed}")


@pytest.mark.parametrize("rule", ["delete", "archive"])
@pytest.mark.parametrize("seed", range(6))
def test_expansions(rule: OnDelete, seed: int) -> None:
    """A claim never has more than its limit, whatever fails, and gets what it requested last."""
    world = history(growing(rule), seed)
    assert not world.judge.violations, report(world, f"seed {seed}")


@pytest.mark.parametrize("seed", range(6))
def test_clones(seed: int) -> None:
    """A clone is complete when it is placed, and its volume exists only once its size is enforced."""
    world = history(scripts.copied(scripts.leave, **REQUIRED), seed)
    assert world.judge.homes
    assert not world.judge.violations, report(world, f"seed {seed}")


@pytest.mark.parametrize("seed", range(4))
def test_two_leaders(seed: int) -> None:
    """Two processes that lead create one directory and one volume for a claim that waits."""
    world = history(two_leaders(enforced("delete")), seed)
    assert not world.judge.violations, report(world, f"seed {seed}")


def every_crash(meddle: Meddle) -> Iterator[tuple[At | None, World]]:
    """Run the life of a volume, and then again with a crash at each of its calls in turn."""

    def run(at: At | None) -> World:
        script = with_agent(enforced("delete", meddle), kill_rate=0.0)
        return play(lambda chance: World(chance, plan=at or Nothing()), script, 0)

    smooth = run(None)
    yield None, smooth
    for number, _ in smooth.calls_made[: smooth.rested_from : 1 if FULL else 9]:
        for fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER):
            yield At(number, fault), run(At(number, fault))


@pytest.mark.parametrize("meddle", [scripts.leave, scripts.delete, scripts.recreate])
def test_every_crash(meddle: Meddle) -> None:
    """A crash right before or after any step loses nothing, and no volume gets a second directory.

    The tenant may delete the claim at that moment, or create it again.
    """
    for at, world in every_crash(meddle):
        assert not world.judge.violations, report(world, f"{at or 'no fault'}")


class _QuotaNotAwaited(Export):
    """A new volume does not wait for its quota."""

    async def provision(self, *about: object, **how: object) -> Record:
        return structs.replace(await super().provision(*about, **how), quota="preferred")  # type: ignore[arg-type]


class _GrowthNotAwaited(Export):
    """A larger size does not wait for its limit."""

    async def refresh_record(self, volume_name: str) -> Record | None:
        live = await super().refresh_record(volume_name)
        if live is None or volume_name in self.pending:
            return live
        return structs.replace(live, quota="preferred")


class _LoweredRecordStays(Export):
    """The record of a request that was lowered again keeps the larger size."""

    async def replace_record(self, volume_name: str, record: Record) -> None:
        held = self.records[volume_name]
        if held.capacity <= record.capacity:
            await super().replace_record(volume_name, record)


BUGS = {
    "a new volume does not wait": (_QuotaNotAwaited, enforced("delete")),
    "a larger size does not wait": (_GrowthNotAwaited, growing("delete")),
    "a lowered record stays": (_LoweredRecordStays, growing("delete")),
}


@pytest.mark.parametrize("bug", BUGS)
def test_bugs_are_found(bug: str) -> None:
    """A provisioner with a deliberate bug is found out."""
    export, script = BUGS[bug]
    assert any(history(script, seed, Mutant(export=export)).judge.violations for seed in range(6))

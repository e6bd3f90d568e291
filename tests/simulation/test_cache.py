"""Fields of a claim that the cache does not keep are read live once a class needs them."""

from __future__ import annotations

import asyncio

from tests.simulation import scripts
from tests.simulation.histories import report
from tests.simulation.world import DEEP, World, play


async def _a_class_that_comes_later(world: World) -> None:
    """A claim exists, and is cached, before the class whose pattern reads its annotations."""
    world.claim(scripts.KEY, "nfs", annotations={"team": "red", "junk": "x" * 1000})
    world.claim(scripts.OTHER, "nfs", annotations={"junk": "x" * 1000})
    await asyncio.sleep(30.0)
    world.add_class("nfs", onDelete="delete", pathPattern=f"{DEEP}/${{.PVC.annotations.team}}/${{.PVC.name}}")
    assert await world.until(lambda: bool(world.judge.homes))
    await asyncio.sleep(60.0)


def test_a_class_that_comes_later() -> None:
    """The claim is provisioned by the pattern; one without the annotation is refused with an event."""
    world = play(World, _a_class_that_comes_later, 0)
    assert not world.judge.violations, report(world, "scripts of test_cache")
    assert [home.path for home in world.judge.homes] == [(DEEP, "red", "data")]
    messages = [each.event.message for each in world.site.cluster.events.values() if each.event.type == "Warning"]
    assert len(messages) == 1
    assert "no annotation 'team'" in messages[0]

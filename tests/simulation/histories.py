"""Whole histories by name: what is played, with which faults, and how one that failed is played again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.core.records import OnDelete
from tests.simulation import scripts
from tests.simulation.faults import At, Chance, Fault
from tests.simulation.process import Parts
from tests.simulation.scripts import Meddle
from tests.simulation.world import NAS, OTHER_NAS, Script, World, disturb_watches, play

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "150"))
"""How many random histories of each kind are played."""
ONE_SEED = os.environ.get("SIMULATION_SEED")
"""The one to play again, when it is given."""
FULL = bool(os.environ.get("SIMULATION_FULL"))
"""Whether every combination is gone through, which takes minutes."""
_TOLD = 80
_AT_REST = 8
"""How many calls are looked at once there is nothing left to do: after that one is like another."""

_READS = frozenset(
    (
        "list",
        "watch",
        "get_claim",
        "get_volume",
        "identity",
        "root_id",
        "read_symlink",
        "read_symlinks",
        "is_empty",
        "space",
    )
)
_AT_READS = (Fault.CRASH_BEFORE, Fault.ERROR, Fault.REFUSAL, Fault.UNEXPECTED)
"""For a call without an effect the others come to the same."""


@dataclass(frozen=True)
class Crowded:
    """A kind of random history.

    Two that lead at once bring no archives back: one may return to the archive what the other has just handed out.
    """

    leaders: int = 1
    clusters: int = 1

    def __str__(self) -> str:
        return f"{self.leaders} leading in each of {self.clusters}"

    def play(self, seed: int, parts: Parts | None = None) -> World:
        """The history of one seed."""
        alone = self.leaders == 1

        def make(chance: random.Random) -> World:
            # Old leaders' calls are not held up for long: nothing but a lease keeps such from doing harm.
            plan = Chance(chance, rate=chance.choice((0.0, 0.02, 0.1)), slow=alone)
            world = World(chance, plan=plan, parts=parts, locations=(NAS, OTHER_NAS), clusters=self.clusters)
            disturb_watches(world, rate=chance.choice((0.0, 0.1, 0.4)))
            return world

        return play(make, scripts.crowd(self.leaders), seed)


KINDS = (Crowded(), Crowded(leaders=2), Crowded(clusters=2))


@dataclass(frozen=True)
class Faulted:
    """The same small history again and again, with one fault at each of its calls in turn."""

    lives: int
    rule: OnDelete
    meddle: Meddle = scripts.leave

    def __str__(self) -> str:
        return f"{self.lives} of {self.rule}, {self.meddle.__name__}"

    def script(self) -> Script:
        """What people do."""
        return (scripts.lifecycle if self.lives == 1 else scripts.two_volumes)(self.rule, self.meddle)

    def play(self, at: At | None, parts: Parts | None = None) -> World:
        """The history with one fault, or without."""
        return play(lambda chance: World(chance, plan=at, parts=parts), self.script(), 0)

    def all(self, parts: Parts | None = None) -> Iterator[tuple[At | None, World]]:
        """Without a fault, and then with each fault at each call."""
        smooth = self.play(None, parts)
        yield None, smooth
        for number, call in smooth.calls_made[: smooth.rested_from + _AT_REST]:
            for fault in _AT_READS if call in _READS else Fault:
                at = At(number, fault)
                yield at, self.play(at, parts)


def unrecorded(parts: Parts | None = None) -> World:
    """The history of a record that goes behind the leader's back."""
    return play(lambda chance: World(chance, parts=parts), scripts.unrecorded, 0)


def told(world: World, replay: str) -> str:
    """What went wrong, how it came to that, and how to see it again."""
    until = world.rests_from + _TOLD // 2 if world.rests_from else len(world.trace)
    lines = [line for line in world.trace[:until] if not line.endswith((" space ", "read_symlink .provisioner/export"))]
    return "\n".join([*world.judge.violations[:5], "how it came to that:", *lines[-_TOLD:], f"replay: {replay}"])

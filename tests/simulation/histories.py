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
from tests.simulation.world import INNER, NAS, OTHER_NAS, Script, World, disturb_watches, play
from tests.support.fakes.tree import Directory, Folding

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
        "get_namespace",
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
    """A kind of random history."""

    leaders: int = 1
    clusters: int = 1
    named_twice: bool = False
    """Whether the two exports are one, by two names of its server."""

    def __str__(self) -> str:
        return f"{self.leaders} leading in each of {self.clusters}" + (", one export" if self.named_twice else "")

    def play(self, seed: int, parts: Parts | None = None) -> World:
        """The history of one seed."""
        alone = self.leaders == 1

        def make(chance: random.Random) -> World:
            # Two that lead are held up for long at renames only: a record that comes late is none that a volume can do
            # without, and needs an admin.
            plan = Chance(chance, rate=chance.choice((0.0, 0.02, 0.1)), slow=alone)
            world = World(
                chance,
                plan=plan,
                parts=parts,
                locations=(NAS, OTHER_NAS),
                clusters=self.clusters,
                named_twice=self.named_twice,
            )
            disturb_watches(world, rate=chance.choice((0.0, 0.1, 0.4)))
            return world

        return play(make, scripts.crowd(self.leaders), seed)


KINDS = (Crowded(), Crowded(leaders=2), Crowded(clusters=2), Crowded(named_twice=True))


@dataclass(frozen=True)
class Scripted:
    """The same history again and again, with one fault at each of its calls in turn."""

    name: str
    play_it: Script
    clusters: int = 1

    def __str__(self) -> str:
        return self.name

    def play(self, at: At | None, parts: Parts | None = None) -> World:
        """The history with one fault, or without."""
        return play(lambda chance: World(chance, plan=at, parts=parts, clusters=self.clusters), self.play_it, 0)

    def all(self, parts: Parts | None = None) -> Iterator[tuple[At | None, World]]:
        """Without a fault, and then with each fault at each call."""
        smooth = self.play(None, parts)
        yield None, smooth
        for number, call in smooth.calls_made[: smooth.rested_from + _AT_REST]:
            for fault in _AT_READS if call in _READS else Fault:
                at = At(number, fault)
                yield at, self.play(at, parts)


def faulted(lives: int, rule: OnDelete, meddle: Meddle = scripts.leave) -> Scripted:
    """The life of one volume, or of two, with a tenant who does something when anything goes wrong."""
    script = scripts.lifecycle if lives == 1 else scripts.two_volumes
    return Scripted(f"{lives} of {rule}, {meddle.__name__}", script(rule, meddle))


RULES: tuple[OnDelete, ...] = ("delete", "archive", "retain")
PLACES = (("the same", True, False), ("a new", True, True), ("a second", False, True))
"""Where a backup is applied: the cluster's name, whether the volume is lost there, and whether it is another one."""
BACKUPS = [
    *(
        Scripted(f"applied in {where} cluster, {rule}", scripts.reapplied(rule, lost=lost, elsewhere=other), 1 + other)
        for rule in RULES
        for where, lost, other in PLACES
    ),
    *(
        Scripted(f"a peer's, {known=}, {other=}", scripts.reapplied_peers(known=known, elsewhere=other), 1 + other)
        for known in (True, False)
        for other in (True, False)
    ),
    Scripted("forgotten", scripts.forgotten),
]
"""A volume that comes back from a backup, in the same cluster, a new one, or a second one beside the first."""
BINDINGS = [
    Scripted("bound elsewhere", scripts.bound_elsewhere),
    *(Scripted(f"shared, {rule}", scripts.shared(rule)) for rule in ("delete", "archive")),
    Scripted("shared below", scripts.shared("delete", "inner")),
    *(Scripted(f"populated, {rule}", scripts.populated(rule)) for rule in RULES),
    *(Scripted(f"used again, {rule}", scripts.used_again(rule)) for rule in RULES),
]
"""A directory that two volumes use, and volumes that are bound to another claim."""
ROLLBACKS = [
    Scripted(f"etcd goes back, {rule}, {running=}, {late=}", scripts.gone_back(rule, running=running, late=late))
    for rule in RULES[:2]
    for running in (True, False)
    for late in (True, False)
]
"""etcd is restored from a backup, under a running daemon or before its start."""


_WHEN: tuple[tuple[OnDelete, bool], ...] = (("delete", True), ("archive", False), ("retain", True))
"""The rule of the volume, and whether the process is another one since the damage."""
DAMAGED = [
    Scripted(f"{damage.__name__}, {rule}", scripts.damaged(damage, rule, restarts=restarts))
    for damage in scripts.DAMAGES
    for rule, restarts in _WHEN
]
"""A ledger that somebody removes, replaces or damages, and that is written again."""

RESTORES = [Scripted(f"brought back, {rule}", scripts.brought_back(rule)) for rule in RULES]
"""An archive that goes to a claim of another class."""


@dataclass(frozen=True)
class Cloned:
    """The history of a cluster and its copy."""

    rule: OnDelete
    elects: bool
    """Whether their provisioners hold Leases."""

    def __str__(self) -> str:
        return f"{self.rule}, {'elected' if self.elects else 'alone'}"

    def play(self, seed: int, parts: Parts | None = None) -> World:
        """The history of one seed: the first without faults."""

        def make(chance: random.Random) -> World:
            plan = Chance(chance, rate=0.02, slow=True) if seed else None
            world = World(chance, plan=plan, parts=parts, cloned=True)
            world.site.elects = self.elects
            return world

        return play(make, scripts.cloned(self.rule), seed)


CLONES = [Cloned(rule, elects) for rule in ("delete", "archive") for elects in (True, False)]

HEIRS = [
    Scripted("namespace created again", scripts.reborn),
    Scripted("handed over by an admin", scripts.handed_over),
]
"""Directories that are there already, and who gets them."""

HELD_UP = [
    Scripted(f"held up, {rule}, {verifies=}", scripts.held_up(rule, verifies=verifies))
    for rule in ("delete", "archive")
    for verifies in (True, False)
] + [Scripted("restored by two", scripts.restored_by_two)]
"""A leader that is held up before a rename, on a server that verifies what it relies on or not, or before a restore."""

SCRIPTED = (*BACKUPS, *BINDINGS, *ROLLBACKS, *DAMAGED, *RESTORES, *HEIRS, *HELD_UP)
"""All of them that go by a script, but for those of exports that lie in an odd way."""


def unrecorded(parts: Parts | None = None) -> World:
    """The history of a record that goes behind the leader's back."""
    return play(lambda chance: World(chance, parts=parts), scripts.unrecorded, 0)


def nested(parts: Parts | None = None) -> World:
    """The history of an export in another one, that of another cluster."""

    def make(chance: random.Random) -> World:
        world = World(chance, parts=parts, locations=(NAS, INNER), clusters=2)
        for site, location in zip(world.sites, (NAS, INNER), strict=True):
            site.locations = (location,)
        root = Directory()
        world.trees[NAS].root.entries["team"] = world.trees[INNER].root = root
        world.trees[INNER].outer = [(str(NAS), world.trees[NAS], ("team",))]
        return world

    return play(make, scripts.nested, 0)


def homeless(parts: Parts | None = None) -> World:
    """The history of a volume on no known export."""
    return play(lambda chance: World(chance, parts=parts), scripts.homeless, 0)


def folding(parts: Parts | None = None) -> World:
    """The history of an export whose server takes `team` and `TEAM` for one."""

    def make(chance: random.Random) -> World:
        world = World(chance, parts=parts)
        world.trees[NAS].root.entries = Folding(str.casefold)
        return world

    return play(make, scripts.folding, 0)


def told(world: World, replay: str) -> str:
    """What went wrong, how it came to that, and how to see it again."""
    until = world.rests_from + _TOLD // 2 if world.rests_from else len(world.trace)
    lines = [line for line in world.trace[:until] if not line.endswith((" space ", "read_symlink .provisioner/export"))]
    return "\n".join([*world.judge.violations[:5], "how it came to that:", *lines[-_TOLD:], f"replay: {replay}"])

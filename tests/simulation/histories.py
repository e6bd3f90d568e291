"""Complete histories by name: their scripts and faults, and how to replay one that failed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.core.records import OnDelete
from tests.simulation import copying, scripts
from tests.simulation.faults import At, Chance, Fault
from tests.simulation.process import Parts
from tests.simulation.scripts import Meddle
from tests.simulation.world import INNER, NAS, OTHER_NAS, Script, World, disturb_watches, play
from tests.support.fakes.tree import Directory, Folding

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "150"))
"""The number of random histories of each kind."""
ONE_SEED = os.environ.get("SIMULATION_SEED")
"""The seed to replay, if any."""
FULL = bool(os.environ.get("SIMULATION_FULL"))
"""Whether all combinations are run, which takes minutes."""
_LINES = 80
_AT_REST = 8
"""The number of calls to test after everything is at rest; further ones are alike."""

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
        "look",
        "page",
        "read_link",
        "read",
        "next_data",
        "is_empty",
        "space",
    )
)
_AT_READS = (Fault.CRASH_BEFORE, Fault.ERROR, Fault.REFUSAL, Fault.UNEXPECTED)
"""The faults for calls without an effect, for which the other faults are equivalent."""


@dataclass(frozen=True)
class Crowded:
    """A kind of random history."""

    leaders: int = 1
    clusters: int = 1
    named_twice: bool = False
    """Whether the two exports are one with two names."""
    copying: bool = False
    """Whether the deeds are those around copies."""

    @property
    def seeds(self) -> range:
        """The seeds of a run; around copies more happens in each history."""
        return range(SEEDS // 2 if self.copying else SEEDS)

    def __str__(self) -> str:
        about = (", one export" if self.named_twice else "") + (", copying" if self.copying else "")
        return f"{self.leaders} leading in each of {self.clusters}{about}"

    def play(self, seed: int, parts: Parts | None = None) -> World:
        """Run the history of one seed."""
        alone = self.leaders == 1

        def make(chance: random.Random) -> World:
            # With two leaders only renames are delayed for long: a record that arrives late would need an admin.
            plan = Chance(chance, rate=chance.choice((0.0, 0.02, 0.1)), slow=alone)
            world = World(
                chance,
                plan=plan,
                parts=parts,
                locations=(NAS, OTHER_NAS),
                clusters=self.clusters,
                named_twice=self.named_twice,
            )
            world.with_snapshots = self.copying
            disturb_watches(world, rate=chance.choice((0.0, 0.1, 0.4)))
            return world

        script = copying.crowd if self.copying else scripts.crowd
        return play(make, script(self.leaders), seed)


KINDS = (
    Crowded(),
    Crowded(leaders=2),
    Crowded(clusters=2),
    Crowded(named_twice=True),
    Crowded(copying=True),
    Crowded(leaders=2, copying=True),
)


@dataclass(frozen=True)
class Scripted:
    """One history, repeated with one fault at each of its calls in turn."""

    name: str
    play_it: Script
    clusters: int = 1
    with_snapshots: bool = False

    def __str__(self) -> str:
        return self.name

    def play(self, at: At | None, parts: Parts | None = None) -> World:
        """Run the history with one fault or none."""

        def make(chance: random.Random) -> World:
            world = World(chance, plan=at, parts=parts, clusters=self.clusters)
            world.with_snapshots = self.with_snapshots
            return world

        return play(make, self.play_it, 0)

    def all(self, parts: Parts | None = None) -> Iterator[tuple[At | None, World]]:
        """Run the history without a fault, then with each fault at each call."""
        smooth = self.play(None, parts)
        yield None, smooth
        for number, call in smooth.calls_made[: smooth.rested_from + _AT_REST]:
            for fault in _AT_READS if call in _READS else Fault:
                at = At(number, fault)
                yield at, self.play(at, parts)


def faulted(lives: int, rule: OnDelete, meddle: Meddle = scripts.leave) -> Scripted:
    """The life of one or two volumes, with a tenant who meddles at each fault."""
    script = scripts.lifecycle if lives == 1 else scripts.two_volumes
    return Scripted(f"{lives} of {rule}, {meddle.__name__}", script(rule, meddle))


RULES: tuple[OnDelete, ...] = ("delete", "archive", "retain")
PLACES = (("the same", True, False), ("a new", True, True), ("a second", False, True))
"""Where a backup is applied: the name of the cluster, whether the volume was lost, whether it is another cluster."""
BACKUPS = [
    *(
        Scripted(f"applied in {where} cluster, {rule}", scripts.reapplied(rule, lost=lost, elsewhere=other), 1 + other)
        for rule in RULES
        for where, lost, other in PLACES
    ),
    *(
        Scripted(
            f"a predecessor's, {known=}, {other=}",
            scripts.reapplied_predecessors(known=known, elsewhere=other),
            1 + other,
        )
        for known in (True, False)
        for other in (True, False)
    ),
    Scripted("forgotten", scripts.forgotten),
]
"""A volume comes back from a backup, in the same, a new, or a second cluster."""
BINDINGS = [
    Scripted("bound elsewhere", scripts.bound_elsewhere),
    *(Scripted(f"shared, {rule}", scripts.shared(rule)) for rule in ("delete", "archive")),
    Scripted("shared below", scripts.shared("delete", "inner")),
    *(Scripted(f"populated, {rule}", scripts.populated(rule)) for rule in RULES),
    *(Scripted(f"used again, {rule}", scripts.used_again(rule)) for rule in RULES),
]
"""Directories that two volumes use, and volumes that are bound to another claim."""
ROLLBACKS = [
    Scripted(f"etcd goes back, {rule}, {running=}, {late=}", scripts.gone_back(rule, running=running, late=late))
    for rule in RULES[:2]
    for running in (True, False)
    for late in (True, False)
]
"""etcd is restored from a backup, under a running daemon or before its start."""


_WHEN: tuple[tuple[OnDelete, bool], ...] = (("delete", True), ("archive", False), ("retain", True))
"""The rule of the volume, and whether the process restarts after the damage."""
DAMAGED = [
    Scripted(f"{damage.__name__}, {rule}", scripts.damaged(damage, rule, restarts=restarts))
    for damage in scripts.DAMAGES
    for rule, restarts in _WHEN
]
"""A ledger is removed, replaced or damaged, and restored."""

RESTORES = [Scripted(f"restored, {rule}", scripts.restored(rule)) for rule in RULES]
"""An archive is restored for a claim of another class."""


@dataclass(frozen=True)
class Cloned:
    """The history of a cluster and its copy."""

    rule: OnDelete
    elects: bool
    """Whether their provisioners hold Leases."""

    def __str__(self) -> str:
        return f"{self.rule}, {'elected' if self.elects else 'alone'}"

    def play(self, seed: int, parts: Parts | None = None) -> World:
        """Run the history of one seed; seed 0 is without faults."""

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
"""Existing directories, and which claims get them."""

HELD_UP = [
    Scripted(f"held up, {rule}, {verifies=}", scripts.held_up(rule, verifies=verifies))
    for rule in ("delete", "archive")
    for verifies in (True, False)
] + [Scripted("restored by two", scripts.restored_by_two)]
"""A leader is suspended before a rename, on a server that verifies proofs or not, or before a restore."""

COPIED = [
    Scripted(f"copied, {meddle.__name__}", scripts.copied(meddle))
    for meddle in (scripts.leave, scripts.delete, scripts.delete_clone)
]
"""A claim is cloned; the source or the clone is deleted at the very moment of a fault."""

SNAPPED = [Scripted("content deleted", scripts.content_deleted, with_snapshots=True)]
"""The content of a snapshot is deleted by hand."""

GROUPS = [Scripted("a group in the trash", scripts.group_in_trash)]
"""Group ids that are still in use, although their volume is gone."""

SCRIPTED = (*BACKUPS, *BINDINGS, *ROLLBACKS, *DAMAGED, *RESTORES, *HEIRS, *HELD_UP, *GROUPS, *COPIED, *SNAPPED)
"""All scripted histories, except those of exports with unusual layouts."""


def unrecorded(parts: Parts | None = None) -> World:
    """The history of a record that is removed behind the leader's back."""
    return play(lambda chance: World(chance, parts=parts), scripts.unrecorded, 0)


def nested(parts: Parts | None = None) -> World:
    """The history of an export within another cluster's export."""

    def make(chance: random.Random) -> World:
        world = World(chance, parts=parts, locations=(NAS, INNER), clusters=2)
        for site, location in zip(world.sites, (NAS, INNER), strict=True):
            site.locations = (location,)
        root = Directory()
        world.trees[NAS].root.entries["team"] = world.trees[INNER].root = root
        world.trees[INNER].outer = [(str(NAS), world.trees[NAS], ("team",))]
        return world

    return play(make, scripts.nested, 0)


def unlocated(parts: Parts | None = None) -> World:
    """The history of a volume on an unknown export."""
    return play(lambda chance: World(chance, parts=parts), scripts.unlocated, 0)


def folding(parts: Parts | None = None) -> World:
    """The history of an export whose server ignores case."""

    def make(chance: random.Random) -> World:
        world = World(chance, parts=parts)
        world.trees[NAS].root.entries = Folding(str.casefold)
        return world

    return play(make, scripts.folding, 0)


def report(world: World, replay: str) -> str:
    """The violations, the trace before them, and how to replay the history."""
    until = world.rests_from + _LINES // 2 if world.rests_from else len(world.trace)
    lines = [line for line in world.trace[:until] if not line.endswith((" space ", "read_symlink .provisioner/export"))]
    return "\n".join([*world.judge.violations[:5], "trace:", *lines[-_LINES:], f"replay: {replay}"])

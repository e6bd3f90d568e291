"""A test of the simulation itself: it finds each deliberate bug."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from provisioner.ports.cluster import Cluster
from provisioner.ports.tree import Tree
from tests.simulation import bugs
from tests.simulation.bugs import BUGS, Through
from tests.simulation.histories import CLONES, KINDS, SCRIPTED, faulted, folding, nested, unlocated, unrecorded
from tests.simulation.process import Parts
from tests.simulation.world import World

SEEDS = 150
"""The seeds of test_random, which finds nothing without a bug."""


def smooth(parts: Parts) -> Iterator[World]:
    """Small histories without faults."""
    for lives in (1, 2):
        for rule in ("delete", "archive", "retain"):
            yield faulted(lives, rule).play(None, parts)
    yield unrecorded(parts)
    for history in SCRIPTED:
        yield history.play(None, parts)
    for clones in CLONES:
        yield clones.play(0, parts)
    yield nested(parts)
    yield folding(parts)
    yield unlocated(parts)


def crowds(parts: Parts) -> Iterator[World]:
    """Random histories of each kind, in turn."""
    for seed in range(SEEDS):
        for kind in KINDS:
            yield kind.play(seed, parts)


def test_each_bug_overrides_the_product() -> None:
    """Each method of a deliberate bug overrides one of the part that it changes; a renamed one would have no effect."""
    for bug in vars(bugs).values():
        if not isinstance(bug, type) or bug.__module__ != bugs.__name__ or bug in (Through, bugs.Mutant):
            continue
        overridden = {name for base in bug.__mro__[1:-1] for name in vars(base)}
        ports = {*dir(Cluster), *dir(Tree)} if issubclass(bug, Through) else set()
        own = {name for name, each in vars(bug).items() if callable(each) or isinstance(each, property)}
        assert own - {"__init__", "engine"} <= overridden | ports, bug


@pytest.mark.parametrize("bug", BUGS)
def test_it_is_found(bug: str) -> None:
    """A provisioner with this bug breaks an invariant in some history."""
    histories = chain(smooth(BUGS[bug]), crowds(BUGS[bug]))
    assert any(world.judge.violations for world in histories)

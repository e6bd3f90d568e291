"""Kubernetes' own storage tests pass on the real nodes: a selection always, the others with `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conformance import running, specs
from tests.conformance.specs import Result
from tests.conformance.suite import Suite
from tests.e2e.installed import Installed

pytestmark = pytest.mark.timeout(4 * 3600)


@pytest.fixture(scope="module")
def suite(installed: Installed, pytestconfig: pytest.Config) -> Iterator[Suite]:
    """The suite for the nodes, with both replicas and snapshots; build/conformance-e2e keeps its reports."""
    installed.ready()
    with installed.snapshots():
        yield running.on_nodes(installed, pytestconfig.rootpath / "build" / "conformance-e2e")


def failures(results: Iterable[Result]) -> list[str]:
    """Return the specs that failed, with their reasons."""
    return [f"{specs.short(each.name)}: {each.why}" for each in results if each.status == "failed"]


def test_a_selection(suite: Suite) -> None:
    """A dozen fast specs pass, at least one of each part of the suite that needs pods."""
    names = list(specs.selected(suite.names()))
    assert len(names) == len(specs.SELECTION)
    results = running.run(suite, names)
    assert not failures(results)
    assert {each.status for each in results} == {"passed"}


@pytest.mark.thorough
def test_every_other_spec(suite: Suite) -> None:
    """All other specs that apply pass, or are skipped by the suite itself for the reasons in specs.SKIPPED."""
    names = suite.names()
    apart = {*specs.selected(names), *(each.name for each in running.left_out(names))}
    results = running.run(suite, [name for name in names if name not in apart and not specs.at_full_speed(name)])
    assert not failures(results)
    unknown = [each for each in results if each.status == "skipped" and not specs.known_skip(each.name)]
    assert not unknown


@pytest.mark.thorough
def test_the_speed(tmp_path: Path) -> None:
    """A daemon on this machine creates as many volumes per second as driver.yaml promises."""
    results = running.at_full_speed(tmp_path / "full-speed")
    assert results
    assert not failures(results)

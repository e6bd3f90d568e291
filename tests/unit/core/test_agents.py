"""core.agents: what `check` says of a quota agent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from provisioner.core.agents import Wish, of_agent, wishes
from provisioner.core.checks import Finding
from provisioner.core.objects import Metadata
from provisioner.core.quota import Heartbeat
from tests.support import samples

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
ALIVE = Heartbeat(
    at="2026-11-28T11:59:30Z",
    since="2026-11-27T08:00:00Z",
    version="1.2",
    filesystem="xfs",
    enforces=True,
    holds_root=True,
    ids="100000-199999",
    volumes=3,
    limited=2,
)
PREFERRED, REQUIRED = Wish("soft", "preferred", grows=False), Wish("hard", "required", grows=True)


def said(wanted: Sequence[Wish] = (), *, asking: int = 0, **changes: Any) -> list[Finding]:
    """The findings about an agent that is alive, with these changes."""
    return of_agent("nas:/x", structs.replace(ALIVE, **changes), wanted, asking=asking, now=NOW)


def test_no_agent_and_nothing_that_asks() -> None:
    """Without an agent, and without a class or a volume that asks for one, there is nothing to say."""
    assert of_agent("nas:/x", None, (), asking=0, now=NOW) == []


@pytest.mark.parametrize(
    ("wanted", "asking", "who", "ok"),
    [
        ([PREFERRED], 0, "StorageClass soft asks", True),
        ([], 1, "1 volume asks", True),
        ([], 2, "2 volumes ask", True),
        ([PREFERRED, REQUIRED], 1, "1 volume and StorageClass soft and StorageClass hard ask", False),
    ],
    ids=str,
)
def test_no_agent(wanted: list[Wish], asking: int, who: str, ok: bool) -> None:
    """A missing agent is a warning, and a failure if claims wait for it; the finding says who asks for it."""
    (found,) = of_agent("nas:/x", None, wanted, asking=asking, now=NOW)
    assert (found.kind, found.name, found.ok, found.warning) == ("quota agent", "nas:/x", ok, ok)
    assert found.result == f"none has reported, and {who} for a quota: no size is enforced"
    assert "quota-agent" in found.advice


def test_an_agent_that_is_alive() -> None:
    """It is shown with its version, its file system and what it has done; a warning of its own is passed on."""
    (found,) = said()
    assert found.result == (
        "alive since 2026-11-27T08:00:00Z; version 1.2, on xfs; 3 volumes with a quota, 2 in force, project ids 100000-199999;"
        " last heard at 2026-11-28T11:59:30Z, 30s ago"
    )
    assert (found.ok, found.warning, found.advice) == (True, False, "")
    assert said(since="")[0].result.startswith("alive; version 1.2")
    (found,) = said(warns="project inheritance on the trash: chattr -P it")
    assert (found.ok, found.warning, found.advice) == (True, True, "project inheritance on the trash: chattr -P it")


@pytest.mark.parametrize(("wanted", "ok"), [([PREFERRED], True), ([REQUIRED], False), ([], True)])
def test_an_agent_that_is_silent(wanted: list[Wish], ok: bool) -> None:
    """It is shown since when; that is a failure if claims wait for it."""
    (found,) = said(wanted, at="2026-11-28T11:00:00Z")
    assert found.result == "silent since 2026-11-28T11:00:00Z, 60m ago; version 1.2, on xfs"
    assert (found.ok, found.warning) == (ok, ok)
    (found,) = said(at="once", version="", filesystem="")
    assert found.result == "silent since once, an unknown time ago; version unknown, on an unknown file system"


def test_an_agent_that_cannot_set_limits() -> None:
    """Its finding has what it lacks as the advice."""
    (found,) = said([REQUIRED], enforces=False, lacks="mount /srv with prjquota")
    assert (found.ok, found.advice) == (False, "mount /srv with prjquota")
    assert found.result.endswith("; it cannot set limits")
    (found,) = said(enforces=False)
    assert (found.ok, found.warning, found.advice) == (True, True, "see its log")


def test_full_volumes_and_their_neighbours() -> None:
    """Where a class has a quota, `check` says what a full volume does, and which classes grow."""
    _, found = said([PREFERRED])
    assert (found.ok, found.warning) == (True, False)
    assert "a full volume slows all clients of the server" in found.result
    assert found.result.endswith("; claims have to be expanded in StorageClass soft")
    _, found = said([REQUIRED])
    assert found.result.endswith(": act at 85 %; claims grow by themselves in StorageClass hard")


def test_ext4_does_not_hold_root() -> None:
    """On ext4 the finding says that root is not held; it is a failure for a class that requires a quota."""
    _, found, _ = said([REQUIRED], filesystem="ext4", holds_root=False)
    assert (found.ok, found.warning) == (False, False)
    assert "no_root_squash, limits do not hold root" in found.result
    assert "use XFS" in found.advice
    _, found = said(filesystem="ext4", holds_root=False)
    assert (found.ok, found.warning) == (True, True)
    assert len(said(filesystem="ext4", holds_root=True)) == 1


def test_wishes() -> None:
    """Classes ask for a quota by their parameters; those without one, or that cannot be used, do not count."""
    growing = {"quota": "required", "autoGrow": "20%", "autoGrowLimit": "9Gi"}
    classes = [
        structs.replace(samples.storage_class(parameters, expands=expands), metadata=Metadata(name=name))
        for name, parameters, expands in (
            ("z", growing, True),
            ("fixed", growing, False),  # autoGrow has no effect there
            ("a", {"quota": "preferred"}, True),
            ("none", {}, True),
            ("broken", {"quota": "much"}, True),
        )
    ]
    assert wishes(classes) == [
        Wish("a", "preferred", grows=False),
        Wish("fixed", "required", grows=False),
        Wish("z", "required", grows=True),
    ]

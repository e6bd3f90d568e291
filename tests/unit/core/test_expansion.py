"""core.expansion: the steps are applied to a small model of the API server, with crashes between them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core import expansion
from provisioner.core.objects import Claim, ClaimStatus, Volume
from provisioner.core.quantities import parse_bytes
from tests.support import samples

NOW = "2026-01-01T00:00:00Z"


def bound(*, size: str = "2Gi", has: str = "1Gi", **more: Any) -> Claim:
    """A bound claim that requests a size and has another one."""
    return samples.claim(
        spec=samples.claim_spec(size=size, volume_name=samples.VOLUME),
        status=ClaimStatus(phase="Bound", capacity={"storage": has}),
        **more,
    )


def merged(target: Any, patch: Any) -> Any:
    """A strategic merge patch for a claim's status: conditions are merged by type, the rest as in RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif key == "conditions":
            named = {condition["type"]: condition for condition in result.get(key, [])}
            for change in value:
                if change.get("$patch") == "delete":
                    named.pop(change["type"], None)
                else:
                    named[change["type"]] = {**named.get(change["type"], {}), **change}
            result[key] = list(named.values())
        else:
            result[key] = merged(result.get(key), value)
    return result


class Server:
    """One claim and its volume as JSON, as the API server has them."""

    def __init__(self, claim: Claim, volume: Volume) -> None:
        self.claim: Any = msgspec.to_builtins(claim)
        self.volume: Any = msgspec.to_builtins(volume)

    def step(self, writes: int) -> bool:
        """Decide, and carry out at most this many writes; return False if there is nothing to do."""
        claim, volume = msgspec.convert(self.claim, Claim), msgspec.convert(self.volume, Volume)
        plan = expansion.decide(claim, volume, samples.US, NOW)
        if plan is None:
            return False
        steps = [(self._claim, plan.mark), (self._volume, plan.grow), (self._claim, plan.finish)]
        for apply, patch in [step for step in steps if step[1] is not None][:writes]:
            apply(patch)
        return True

    def _claim(self, patch: Any) -> None:
        self.claim = merged(self.claim, patch)

    def _volume(self, patch: Any) -> None:
        self.volume = merged(self.volume, patch)


@given(
    st.lists(st.integers(0, 2), max_size=4),
    st.sampled_from(["1Gi", "1500Mi", "2Gi", "3Gi", "5G"]),
    st.sampled_from(["1Gi", "2Gi", "3Gi"]),
    st.sets(st.sampled_from(["Resizing", "ControllerResizeError", "FileSystemResizePending", "ModifyingVolume"])),
)
def test_every_crash_is_resumed(crashes: list[int], size: str, volume_size: str, conditions: set[str]) -> None:
    """After any interruption an expansion completes, never shrinks the volume, and leaves no condition behind."""
    server = Server(bound(size=size), samples.volume(capacity=volume_size, phase="Bound"))
    server.claim["status"]["conditions"] = [{"type": kind, "status": "True"} for kind in sorted(conditions)]
    for writes in crashes:
        server.step(writes)
    rounds = 0
    while server.step(3):
        rounds += 1
    assert rounds <= 1
    assert parse_bytes(server.claim["status"]["capacity"]["storage"]) >= parse_bytes(size)
    grown = parse_bytes(server.volume["spec"]["capacity"]["storage"])
    assert grown == max(parse_bytes(volume_size), parse_bytes(size) if size != "1Gi" else 0)
    if size != "1Gi":
        assert "allocatedResourceStatuses" not in server.claim["status"]
        left = {condition["type"] for condition in server.claim["status"].get("conditions", [])}
        assert left == conditions & {"ModifyingVolume"}


def test_steps() -> None:
    """An expansion marks the claim, grows the volume and updates the claim, with external-resizer's conditions."""
    plan = expansion.decide(bound(), samples.volume(phase="Bound"), samples.US, NOW)
    assert plan is not None
    assert plan.size == "2Gi"
    assert plan.mark == {
        "status": {
            "conditions": [{"type": "Resizing", "status": "True", "lastTransitionTime": NOW}],
            "allocatedResources": {"storage": "2Gi"},
            "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
        }
    }
    assert plan.grow == {"spec": {"capacity": {"storage": "2Gi"}}}
    assert plan.finish["status"] == {
        "capacity": {"storage": "2Gi"},
        "conditions": [
            {"$patch": "delete", "type": "Resizing"},
            {"$patch": "delete", "type": "FileSystemResizePending"},
            {"$patch": "delete", "type": "ControllerResizeError"},
            {"$patch": "delete", "type": "NodeResizeError"},
        ],
        "allocatedResources": {"storage": "2Gi"},
        "allocatedResourceStatuses": None,
    }


def test_steps_done_already() -> None:
    """A step that was done before a crash is not repeated."""
    claim = bound()
    status = msgspec.structs.replace(
        claim.status,
        allocated_resources={"storage": "2Gi"},
        allocated_resource_statuses={"storage": "ControllerResizeInProgress"},
    )
    claim = msgspec.structs.replace(claim, status=status)
    plan = expansion.decide(claim, samples.volume(phase="Bound", capacity="2Gi"), samples.US, NOW)
    assert plan is not None
    assert (plan.mark, plan.grow) == (None, None)


@pytest.mark.parametrize(("size", "has"), [("2Gi", "2Gi"), ("1Gi", "3Gi")])
def test_lowered_again(size: str, has: str) -> None:
    """If the user lowers the request in the middle, the mark is cleared and the capacity stays."""
    claim = bound(size=size, has=has)
    status = msgspec.structs.replace(
        claim.status,
        allocated_resources={"storage": "5Gi"},
        allocated_resource_statuses={"storage": "ControllerResizeInProgress"},
    )
    server = Server(msgspec.structs.replace(claim, status=status), samples.volume(capacity="5Gi", phase="Bound"))
    assert server.step(3)
    assert not server.step(3)
    assert server.claim["status"]["capacity"] == {"storage": has}
    assert "allocatedResourceStatuses" not in server.claim["status"]


def test_failed() -> None:
    """A refused expansion is one condition on the claim."""
    assert expansion.failed("no", NOW) == {
        "status": {
            "conditions": [
                {"type": "ControllerResizeError", "status": "True", "message": "no", "lastTransitionTime": NOW}
            ]
        }
    }


def test_conditions_of_others_stay_whole() -> None:
    """Other conditions keep their reason, message and times."""
    other = {
        "type": "Unused",
        "status": "True",
        "message": "no pod uses it",
        "lastTransitionTime": "2025-12-31T00:00:00Z",
    }
    server = Server(bound(), samples.volume(phase="Bound"))
    server.claim["status"]["conditions"] = [other]
    assert server.step(3)
    assert server.claim["status"]["conditions"] == [other]


@pytest.mark.parametrize(
    ("claim", "volume"),
    [
        pytest.param(bound(), None, id="no volume"),
        pytest.param(bound(), samples.volume(phase="Bound", provisioner="other/one"), id="another's volume"),
        pytest.param(samples.claim(), samples.volume(), id="a claim that is not bound"),
        pytest.param(bound(), samples.volume(claim_uid=None), id="a volume without a claim"),
        pytest.param(bound(), samples.volume(claim_uid="other"), id="another claim's volume"),
        pytest.param(bound(deleted=True), samples.volume(), id="a claim that is being deleted"),
        pytest.param(bound(size="1Gi"), samples.volume(), id="no larger size"),
        pytest.param(bound(size="512Mi"), samples.volume(), id="a smaller size"),
        pytest.param(bound(size="1024Mi"), samples.volume(), id="the same size in other words"),
        pytest.param(bound(size="lots"), samples.volume(), id="a size that is none"),
        pytest.param(bound(), samples.volume(capacity=""), id="a volume without a size"),
    ],
)
def test_nothing_to_do(claim: Claim, volume: Volume | None) -> None:
    """Only a bound claim that requests more than it has, on its own volume of this provisioner, is expanded."""
    assert expansion.decide(claim, volume, samples.US, NOW) is None


def marked(claim: Claim, size: str, state: str = "ControllerResizeInProgress") -> Claim:
    status = msgspec.structs.replace(
        claim.status, allocated_resources={"storage": size}, allocated_resource_statuses={"storage": state}
    )
    return msgspec.structs.replace(claim, status=status)


@pytest.mark.parametrize(
    ("claim", "volume_size", "recorded", "is_raise"),
    [
        pytest.param(bound(size="2Gi"), "1Gi", "2Gi", True, id="more"),
        pytest.param(bound(size="2Gi"), "5Gi", "5Gi", True, id="less than the volume has"),
        pytest.param(marked(bound(size="2Gi"), "9Gi"), "1Gi", "2Gi", True, id="lowered"),
        pytest.param(marked(bound(size="1Gi"), "9Gi"), "1Gi", "1Gi", False, id="lowered to what it has"),
        pytest.param(marked(bound(size="1Gi"), "9Gi"), "9Gi", "9Gi", False, id="lowered too late"),
    ],
)
def test_the_size_of_the_record(claim: Claim, volume_size: str, recorded: str, *, is_raise: bool) -> None:
    """The record follows the request, also down again, but never below what the volume has already."""
    plan = expansion.decide(claim, samples.volume(capacity=volume_size, phase="Bound"), samples.US, NOW)
    assert plan is not None
    assert (plan.recorded, plan.is_raise) == (recorded, is_raise)


def test_infeasible() -> None:
    """An expansion that waits for an admin says so in the claim's status, and is the same expansion as before."""
    claim = marked(bound(), "2Gi")
    assert not expansion.is_infeasible(claim)
    server = Server(claim, samples.volume(phase="Bound"))
    server.claim["status"] = merged(server.claim["status"], expansion.infeasible("no agent", NOW)["status"])
    claim = msgspec.convert(server.claim, Claim)
    assert expansion.is_infeasible(claim)
    assert server.claim["status"]["conditions"][-1]["message"] == "no agent"
    plan = expansion.decide(claim, samples.volume(phase="Bound"), samples.US, NOW)
    assert plan is not None
    assert plan.mark is None
    assert server.step(3)
    assert not expansion.is_marked(msgspec.convert(server.claim, Claim))


def test_without_a_record() -> None:
    """A volume without a record needs an admin."""
    assert expansion.unrecorded("nas:/x").needs_admin


@pytest.mark.parametrize(
    ("recorded", "size", "is_so"), [("1Gi", "1024Mi", False), ("1Gi", "2Gi", True), ("?", "1", True)]
)
def test_differs(recorded: str, size: str, *, is_so: bool) -> None:
    """Two sizes differ by what they mean, and an unreadable one differs from all."""
    assert expansion.differs(recorded, size) is is_so


@pytest.mark.parametrize(
    ("recorded", "size", "larger"),
    [
        ("1Gi", "2Gi", True),
        ("1Gi", "1024Mi", False),
        ("2Gi", "1Gi", False),
        ("1Gi", "", False),
        ("lots", "2Gi", False),
    ],
)
def test_outgrown(recorded: str, size: str, larger: bool) -> None:
    """Only a size that is certainly larger is written into a record."""
    assert expansion.outgrown(recorded, size) is larger

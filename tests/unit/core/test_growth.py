"""core.growth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core import growth
from provisioner.core.growth import Growth
from provisioner.core.objects import Claim, ClaimStatus
from provisioner.core.parameters import AutoGrow
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, enforces, limit_for
from tests.support import samples

GIB = 1 << 30
RULE = AutoGrow(fraction=0.2, limit_bytes=100 * GIB)
GROWS = {"quota": "preferred", "autoGrow": "20%", "autoGrowLimit": "100Gi"}


def bound(size: str = "10Gi", *, has: str = "", **more: Any) -> Claim:
    """A bound claim of a size."""
    status = ClaimStatus(phase="Bound", capacity={"storage": has or size})
    return samples.claim(spec=samples.claim_spec(size=size, volume_name=samples.VOLUME), **{"status": status, **more})


def answer(percent: float, size_bytes: int = 10 * GIB, **more: Any) -> Answer:
    """The answer for a volume whose size is in force and that is full to this part."""
    limit_bytes = limit_for(size_bytes)
    return structs.replace(
        Answer(limit_bytes=limit_bytes, used_bytes=int(limit_bytes * percent / 100), whole=True), **more
    )


def test_a_claim_grows() -> None:
    """From 85 % on, a claim requests a fifth more."""
    volume = samples.volume(capacity="10Gi", phase="Bound")
    assert growth.decide(bound(), volume, answer(85), RULE, samples.US) == Growth(was="10Gi", size="12Gi")
    assert growth.decide(bound(), volume, answer(84.9), RULE, samples.US) is None


def test_a_claim_grows_only_if_its_class_says_so() -> None:
    """The class must have the parameters, and allow expansion; one that cannot be used grows nothing."""
    grows = samples.storage_class(GROWS, expands=True)
    assert growth.rule_of(grows) == RULE
    assert growth.rule_of(samples.storage_class(GROWS)) is None
    assert growth.rule_of(samples.storage_class(expands=True)) is None
    assert growth.rule_of(samples.storage_class({"x": "y"}, expands=True)) is None
    assert growth.rule_of(None) is None
    assert growth.decide(bound(), samples.volume(capacity="10Gi"), answer(90), None, samples.US) is None


@pytest.mark.parametrize(
    ("claim", "capacity", "said"),
    [
        (bound(deleted=True), "10Gi", answer(90)),
        (bound(status=ClaimStatus(phase="Pending")), "10Gi", answer(90)),
        (bound(uid="another"), "10Gi", answer(90)),
        (bound("12Gi", has="10Gi"), "10Gi", answer(90)),
        (bound(), "12Gi", answer(90)),
        (bound("much"), "10Gi", answer(90)),
        (bound(), "10Gi", answer(90, 8 * GIB)),
        (bound(), "10Gi", answer(90, whole=False)),
        (bound(), "10Gi", answer(90, reason="conflict")),
        (bound("100Gi"), "100Gi", answer(90, 100 * GIB)),
        (bound("200Gi"), "200Gi", answer(90, 200 * GIB)),
        (
            bound(
                status=ClaimStatus(
                    phase="Bound",
                    capacity={"storage": "10Gi"},
                    allocated_resource_statuses={"storage": "ControllerResizeInfeasible"},
                )
            ),
            "10Gi",
            answer(90),
        ),
    ],
    ids=[
        "deleted", "pending", "another claim", "a request under way", "a volume that has grown", "no quantity",
        "the former size is in force", "not all is counted", "a conflict",
        "at the limit", "above the limit", "a resize is marked",
    ],
)  # fmt: skip
def test_a_claim_does_not_grow(claim: Claim, capacity: str, said: Answer) -> None:
    """A claim does not grow while an expansion is under way, at its limit, or if the answer is about another size."""
    assert growth.decide(claim, samples.volume(capacity=capacity), said, RULE, samples.US) is None


def test_volumes_of_others_do_not_grow() -> None:
    """The claims of another provisioner's volumes, and volumes without a claim, are left alone."""
    foreign, free = samples.volume(capacity="10Gi", provisioner="x/y"), samples.volume(capacity="10Gi", claim_uid=None)
    assert growth.decide(bound(), foreign, answer(90), RULE, samples.US) is None
    assert growth.decide(bound(), free, answer(90), RULE, samples.US) is None


RULES = st.builds(AutoGrow, fraction=st.floats(0.001, 1), limit_bytes=st.integers(1, 1 << 50))


@given(st.integers(1, 1 << 50), RULES)
def test_the_next_size(size_bytes: int, rule: AutoGrow) -> None:
    """The next size is never smaller, and never above the limit unless the size was; it is whole MiB or the limit."""
    grown = growth.grown(size_bytes, rule)
    assert size_bytes <= grown <= max(size_bytes, rule.limit_bytes)
    if grown != size_bytes:
        assert grown in (rule.limit_bytes, grown // (1 << 20) * (1 << 20))
        assert grown <= size_bytes + size_bytes * rule.fraction + (1 << 20)
    else:
        assert size_bytes >= rule.limit_bytes


@given(st.integers(1, 1 << 45), RULES, st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=40))
def test_growth_follows_what_is_in_force(size_bytes: int, rule: AutoGrow, steps: list[tuple[bool, float]]) -> None:
    """A request is never raised again before the former raise is in force, and never above the limit."""
    requested = actual_bytes = size_bytes
    for in_force, percent in steps:
        if in_force:
            actual_bytes = requested
        claim = bound(str(requested), has=str(actual_bytes))
        said = answer(percent, actual_bytes)
        volume = samples.volume(capacity=str(actual_bytes))
        plan = growth.decide(claim, volume, said, rule, samples.US)
        if plan is not None:
            assert requested == actual_bytes
            assert enforces(said, requested)
            assert requested < parse_bytes(plan.size) <= rule.limit_bytes
            requested = parse_bytes(plan.size)


def test_is_growing() -> None:
    """A claim that requests more than it has is growing, and so is one whose expansion is marked."""
    marked = ClaimStatus(
        phase="Bound",
        capacity={"storage": "10Gi"},
        allocated_resource_statuses={"storage": "ControllerResizeInProgress"},
    )
    assert growth.is_growing(bound("12Gi", has="10Gi"))
    assert growth.is_growing(bound(status=marked))
    assert not growth.is_growing(bound())


def test_message() -> None:
    """The event has the old size and the new one."""
    said = growth.message(Growth(was="10Gi", size="12Gi"))
    assert said == "requested 12Gi instead of 10Gi: the volume uses at least 85 % of its limit"

"""core.instances: the sign as text, and the result of each look at it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core import instances
from provisioner.core.instances import DOUBT_S, SETTLE_S, SIGN_EVERY_S, Sign, Standing, State, Step, judge, parse

AT = "2026-01-02T03:04:05Z"
ME = Sign(at=AT, term=7, instance="pod-b_1")
FORMER = Sign(at=AT, term=6, instance="pod-a_1")
COPY = Sign(at=AT, term=8, instance="pod-c_1")
TWICE = replace(COPY, state="twice", other="pod-b_1")
SIGNED = Standing(signed=True, signed_s=100.0, settled_s=100.0)

_WORD = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1)


def seen(known: Standing, sign: Sign | None, *, leads: bool | None = None, now_s: float = 130.0) -> Step:
    """The result of a look."""
    return judge(known, sign, ME, leads=leads, now_s=now_s)


@given(_WORD, st.integers(0, 10**9), _WORD, st.sampled_from(("", "left", "twice", "decided")), _WORD)
def test_a_sign_is_read_as_it_was_written(at: str, term: int, instance: str, state: State, other: str) -> None:
    """A sign is parsed back as it was written."""
    sign = Sign(at=at, term=term, instance=instance, state=state, other=other if state == "twice" else "")
    assert parse(str(sign)) == sign


@pytest.mark.parametrize("text", ["", AT, f"{AT} 7", f"{AT} x pod", f"{AT} -1 pod", f"{AT} ² pod", f"{AT} 7 pod new"])
def test_a_sign_that_this_version_cannot_read(text: str) -> None:
    """An unreadable text is the sign of another instance, without a term."""
    assert parse(text) == Sign(at="", term=-1, instance=text)
    assert not instances.is_of(parse(text), ME)


def test_the_name_of_a_sign() -> None:
    """Two provisioners of one cluster have different names, and neither looks like a cluster's sign."""
    one, two = instances.name("uid", "example.com/nfs"), instances.name("uid", "example.com/other")
    assert one != two
    assert one.startswith("uid.")
    assert instances.is_instances(one)
    assert not instances.is_instances("0a1b-uid")


def test_a_sign_in_words() -> None:
    """Each state has its own text; with two instances the other one is named."""
    signs = (ME, replace(ME, state="left"), TWICE, instances.decided(AT, "admin"), parse("odd"))
    rows = [instances.listed("nas:/x", sign) for sign in signs]
    assert len({each.meaning for each in rows}) == len(signs)
    assert TWICE.other in rows[2].meaning
    assert (rows[0].export, rows[0].instance, rows[0].term, rows[0].signed) == ("nas:/x", ME.instance, ME.term, AT)


# ------------------------------------------------------------------------------------------- a term begins


def test_no_sign() -> None:
    """An instance that creates the sign can destroy data immediately: a later one finds the sign."""
    step = seen(Standing(), None)
    assert (step.write, step.over) == (ME, False)
    assert step.standing.is_settled(130.0)


def test_the_former_leader_has_stopped_in_good_order() -> None:
    """After a clean stop of the former leader there is no wait."""
    step = seen(Standing(), replace(FORMER, state="left"))
    assert (step.write, step.over) == (ME, True)
    assert step.standing.is_settled(130.0)


@pytest.mark.parametrize("sign", [FORMER, COPY, ME, parse("odd"), instances.decided(AT, "admin")])
def test_another_instance_can_be_at_work(sign: Sign) -> None:
    """Another instance's sign of any term can be a live one's, so nothing is destroyed for a while."""
    step = seen(Standing(), sign)
    assert (step.write, step.over) == (ME, True)
    assert not step.standing.is_settled(130.0 + SETTLE_S - 0.1)
    assert step.standing.is_settled(130.0 + SETTLE_S)


def test_nothing_is_settled_before_the_first_look() -> None:
    """An instance that has not signed yet destroys nothing."""
    assert not Standing().is_settled(math.inf - 1)


# ------------------------------------------------------------------------------------------- while it leads


def test_our_own_sign_gets_a_new_time() -> None:
    """The sign is renewed at its interval, and only then."""
    assert seen(SIGNED, ME, now_s=100.0 + SIGN_EVERY_S - 1) == Step(SIGNED)
    step = seen(SIGNED, replace(ME, at="earlier"), now_s=100.0 + SIGN_EVERY_S)
    assert step == Step(replace(SIGNED, signed_s=160.0), ME)


def test_another_sign_of_our_term_or_a_later_one() -> None:
    """While this instance holds the Lease, another one's sign means that two clusters are at work."""
    for sign in (COPY, replace(COPY, term=7), replace(COPY, state="left")):
        step = seen(SIGNED, sign, leads=True)
        assert step.write == replace(ME, state="twice", other=COPY.instance)
        assert step.standing.stopped == step.write
        assert not step.standing.is_settled(math.inf)


def test_another_sign_when_the_lease_is_not_ours() -> None:
    """After the Lease is lost, the sign is the next leader's: it stays, and nothing is destroyed."""
    step = seen(SIGNED, COPY, leads=False)
    assert step.write is None
    assert not step.standing.is_settled(130.0)
    assert step.standing.stopped is None


@pytest.mark.parametrize(("sign", "leads"), [(FORMER, True), (FORMER, None), (COPY, None)])
def test_a_late_write(sign: Sign, leads: bool | None) -> None:
    """A former leader's late sign is overwritten once, with a longer wait; a second one is another instance at work."""
    step = seen(SIGNED, sign, leads=leads)
    assert step.write == ME
    assert step.standing.doubted
    assert not step.standing.is_settled(130.0)
    again = seen(step.standing, sign, leads=leads, now_s=140.0)
    assert again.standing.stopped is not None
    assert not step.standing.is_settled(130.0 + SETTLE_S)
    kept = seen(step.standing, ME, now_s=130.0 + DOUBT_S)
    assert kept.standing.is_settled(130.0 + DOUBT_S)
    assert not kept.standing.doubted
    assert seen(step.standing, ME, now_s=140.0).standing.doubted


def test_our_sign_is_gone() -> None:
    """A sign that vanished is written again, with a wait."""
    step = seen(SIGNED, None)
    assert (step.write, step.over) == (ME, False)
    assert not step.standing.is_settled(130.0)


# ------------------------------------------------------------------------------------------- stopped


@pytest.mark.parametrize("known", [Standing(), SIGNED, Standing(stopped=TWICE)])
def test_two_are_at_work(known: Standing) -> None:
    """A sign that says `twice` stops every instance, also after a restart, and is never overwritten."""
    step = seen(known, TWICE)
    assert step.write is None
    assert step.standing.stopped == TWICE
    assert not step.standing.is_settled(math.inf)


@pytest.mark.parametrize("sign", [None, instances.decided(AT, "admin"), COPY])
def test_an_admin_has_decided(sign: Sign | None) -> None:
    """After an admin's decision an instance signs and waits, so that another live one shows itself."""
    step = seen(Standing(stopped=TWICE), sign)
    assert step.write == ME
    assert step.standing.stopped is None
    assert not step.standing.is_settled(130.0)
    assert seen(step.standing, COPY, leads=True, now_s=140.0).standing.stopped is not None


# ------------------------------------------------------------------------------------------- a sign cannot be written


def test_an_old_time_does_not_matter() -> None:
    """If only the time of its own sign cannot be updated, data can still be deleted."""
    assert instances.unwritten(SIGNED, ME, ME, full=True, now_s=200.0) == SIGNED


@pytest.mark.parametrize("known", [SIGNED, Standing(stopped=TWICE), Standing()])
def test_nothing_is_destroyed_without_our_sign(known: Standing) -> None:
    """If the sign cannot be written, nothing is destroyed: another instance may not see this one."""
    standing = instances.unwritten(known, COPY, ME, full=known != Standing(), now_s=130.0)
    assert not standing.is_settled(130.0)


def test_a_full_export_is_reclaimed_from() -> None:
    """On a full export data is deleted once the present sign is older than a live instance would leave it."""
    standing = instances.unwritten(Standing(), FORMER, ME, full=True, now_s=100.0)
    assert not standing.is_settled(100.0 + DOUBT_S - 1)
    later = instances.unwritten(standing, FORMER, ME, full=True, now_s=150.0)
    assert later.is_settled(100.0 + DOUBT_S)
    another = instances.unwritten(later, replace(FORMER, at="later"), ME, full=True, now_s=160.0)
    assert not another.is_settled(160.0 + DOUBT_S - 1)


def test_what_needs_a_look_at_the_lease() -> None:
    """Only another instance's sign over this one's own is strange."""
    assert instances.is_strange(SIGNED, COPY, ME)
    assert instances.is_strange(SIGNED, replace(ME, state="left"), ME)
    for known, sign in ((Standing(), COPY), (SIGNED, None), (SIGNED, TWICE), (SIGNED, ME)):
        assert not instances.is_strange(known, sign, ME)

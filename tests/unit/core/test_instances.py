"""core.instances: the sign as text, and what each look at it comes to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core import instances
from provisioner.core.instances import SETTLE_S, SIGN_EVERY_S, UNSIGNED_S, Sign, Standing, State, Step, judge, parse

AT = "2026-01-02T03:04:05Z"
ME = Sign(at=AT, term=7, instance="pod-b_1")
FORMER = Sign(at=AT, term=6, instance="pod-a_1")
COPY = Sign(at=AT, term=8, instance="pod-c_1")
TWICE = replace(COPY, state="twice", other="pod-b_1")
SIGNED = Standing(signed=True, signed_s=100.0, settled_s=100.0)

_WORD = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1)


def seen(known: Standing, sign: Sign | None, *, leads: bool | None = None, now_s: float = 130.0) -> Step:
    """What a look comes to."""
    return judge(known, sign, ME, leads=leads, now_s=now_s)


@given(_WORD, st.integers(0, 10**9), _WORD, st.sampled_from(("", "left", "twice", "decided")), _WORD)
def test_a_sign_is_read_as_it_was_written(at: str, term: int, instance: str, state: State, other: str) -> None:
    """Whatever is in it."""
    sign = Sign(at=at, term=term, instance=instance, state=state, other=other if state == "twice" else "")
    assert parse(str(sign)) == sign


@pytest.mark.parametrize("text", ["", AT, f"{AT} 7", f"{AT} x pod", f"{AT} -1 pod", f"{AT} ² pod", f"{AT} 7 pod new"])
def test_a_sign_that_this_version_cannot_read(text: str) -> None:
    """It is the sign of somebody else, of no term."""
    assert parse(text) == Sign(at="", term=-1, instance=text)
    assert not instances.is_of(parse(text), ME)


def test_the_name_of_a_sign() -> None:
    """Two provisioners of one cluster have two, and neither is taken for a cluster's."""
    one, two = instances.name("uid", "example.com/nfs"), instances.name("uid", "example.com/other")
    assert one != two
    assert one.startswith("uid.")
    assert instances.is_instances(one)
    assert not instances.is_instances("0a1b-uid")


def test_a_sign_in_words() -> None:
    """Each state has its own, and the other one of two is named."""
    signs = (ME, replace(ME, state="left"), TWICE, instances.decided(AT, "admin"), parse("odd"))
    told = [instances.listed("nas:/x", sign) for sign in signs]
    assert len({each.meaning for each in told}) == len(signs)
    assert TWICE.other in told[2].meaning
    assert (told[0].export, told[0].instance, told[0].term, told[0].signed) == ("nas:/x", ME.instance, ME.term, AT)


# ------------------------------------------------------------------------------------------- a term begins


def test_nobody_has_signed() -> None:
    """Who creates the sign may destroy at once: whoever comes later meets it."""
    step = seen(Standing(), None)
    assert (step.write, step.over) == (ME, False)
    assert step.standing.is_settled(130.0)


def test_the_former_leader_has_stopped_in_good_order() -> None:
    """Nobody waits."""
    step = seen(Standing(), replace(FORMER, state="left"))
    assert (step.write, step.over) == (ME, True)
    assert step.standing.is_settled(130.0)


@pytest.mark.parametrize("sign", [FORMER, COPY, ME, parse("odd"), instances.decided(AT, "admin")])
def test_somebody_may_be_at_work(sign: Sign) -> None:
    """Whatever the term of the sign: that may be a former leader, or one before etcd went back. It is waited for."""
    step = seen(Standing(), sign)
    assert (step.write, step.over) == (ME, True)
    assert not step.standing.is_settled(130.0 + SETTLE_S - 0.1)
    assert step.standing.is_settled(130.0 + SETTLE_S)


def test_nothing_is_settled_before_the_first_look() -> None:
    """What is not known does not destroy."""
    assert not Standing().is_settled(math.inf - 1)


# ------------------------------------------------------------------------------------------- while we lead


def test_our_own_sign_gets_a_new_time() -> None:
    """Now and then."""
    assert seen(SIGNED, ME, now_s=100.0 + SIGN_EVERY_S - 1) == Step(SIGNED)
    step = seen(SIGNED, replace(ME, at="earlier"), now_s=100.0 + SIGN_EVERY_S)
    assert step == Step(replace(SIGNED, signed_s=160.0), ME)


def test_another_sign_of_our_term_or_a_later_one() -> None:
    """While the Lease is ours nobody of our cluster can have written it: there are two."""
    for sign in (COPY, replace(COPY, term=7), replace(COPY, state="left")):
        step = seen(SIGNED, sign, leads=True)
        assert step.write == replace(ME, state="twice", other=COPY.instance)
        assert step.standing.stopped == step.write
        assert not step.standing.is_settled(math.inf)


def test_another_sign_when_the_lease_is_not_ours() -> None:
    """It is the next leader's: it stays, and we destroy nothing."""
    step = seen(SIGNED, COPY, leads=False)
    assert step.write is None
    assert not step.standing.is_settled(130.0)
    assert step.standing.stopped is None


@pytest.mark.parametrize(("sign", "leads"), [(FORMER, True), (FORMER, None), (COPY, None)])
def test_a_late_write(sign: Sign, leads: bool | None) -> None:
    """Of a former leader, it comes once: we sign again and wait. Twice in a row it is another one at work."""
    step = seen(SIGNED, sign, leads=leads)
    assert step.write == ME
    assert step.standing.doubted
    assert not step.standing.is_settled(130.0)
    again = seen(step.standing, sign, leads=leads, now_s=140.0)
    assert again.standing.stopped is not None
    kept = seen(step.standing, ME, now_s=130.0 + SETTLE_S)
    assert kept.standing.is_settled(130.0 + SETTLE_S)
    assert not kept.standing.doubted
    assert seen(step.standing, ME, now_s=140.0).standing.doubted


def test_our_sign_is_gone() -> None:
    """We sign again where nobody else does, and wait."""
    step = seen(SIGNED, None)
    assert (step.write, step.over) == (ME, False)
    assert not step.standing.is_settled(130.0)


# ------------------------------------------------------------------------------------------- stopped


@pytest.mark.parametrize("known", [Standing(), SIGNED, Standing(stopped=TWICE)])
def test_two_are_at_work(known: Standing) -> None:
    """The sign says so to everybody, also after a restart; it stays."""
    step = seen(known, TWICE)
    assert step.write is None
    assert step.standing.stopped == TWICE
    assert not step.standing.is_settled(math.inf)


@pytest.mark.parametrize("sign", [None, instances.decided(AT, "admin"), COPY])
def test_an_admin_has_decided(sign: Sign | None) -> None:
    """We sign, and wait whether the other one is still there: then it begins anew."""
    step = seen(Standing(stopped=TWICE), sign)
    assert step.write == ME
    assert step.standing.stopped is None
    assert not step.standing.is_settled(130.0)
    assert seen(step.standing, COPY, leads=True, now_s=140.0).standing.stopped is not None


# ------------------------------------------------------------------------------------------- a sign cannot be written


def test_an_old_time_does_not_matter() -> None:
    """Our sign is there: that it has an old time keeps nothing from being deleted."""
    assert instances.unwritten(SIGNED, ME, ME, full=True, now_s=200.0) == SIGNED


@pytest.mark.parametrize("known", [SIGNED, Standing(stopped=TWICE), Standing()])
def test_nothing_is_destroyed_without_our_sign(known: Standing) -> None:
    """It may be that somebody else does not see us."""
    standing = instances.unwritten(known, COPY, ME, full=known != Standing(), now_s=130.0)
    assert not standing.is_settled(130.0)


def test_a_full_export_is_reclaimed_from() -> None:
    """Else it would stay full: once the sign that is there has stayed for longer than one who lives lets it."""
    standing = instances.unwritten(Standing(), FORMER, ME, full=True, now_s=100.0)
    assert not standing.is_settled(100.0 + UNSIGNED_S - 1)
    later = instances.unwritten(standing, FORMER, ME, full=True, now_s=150.0)
    assert later.is_settled(100.0 + UNSIGNED_S)
    another = instances.unwritten(later, replace(FORMER, at="later"), ME, full=True, now_s=160.0)
    assert not another.is_settled(160.0 + UNSIGNED_S - 1)


def test_what_needs_a_look_at_the_lease() -> None:
    """Only another's sign over ours."""
    assert instances.is_strange(SIGNED, COPY, ME)
    assert instances.is_strange(SIGNED, replace(ME, state="left"), ME)
    for known, sign in ((Standing(), COPY), (SIGNED, None), (SIGNED, TWICE), (SIGNED, ME)):
        assert not instances.is_strange(known, sign, ME)

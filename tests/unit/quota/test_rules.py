"""quota.rules, quota.wishes, quota.ids: decisions in values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core.errors import InvalidSettings
from provisioner.core.quota import Answer, is_limit, limit_for
from provisioner.ports.quota import Label, Usage, Walked
from provisioner.quota import ids
from provisioner.quota.ids import IdRange
from provisioner.quota.rules import (
    Await,
    Forget,
    LabelContent,
    Rest,
    SetLabel,
    SetLimit,
    Step,
    View,
    Write,
    decide,
)
from provisioner.quota.wishes import Wish

MI = 1 << 20
WISH = Wish(path=("a",), size_bytes=MI, owner="cluster shop")
PLAIN = Label(0, inherits=False, inode=5)
OWN = Label(7, inherits=True, inode=5)
HELD = Answer(project=7)
WHOLE = Answer(project=7, whole=True)
SAID = Answer(project=7, whole=True, limit_bytes=MI, inodes=1)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        # The way of a new volume.
        (View(wish=WISH, answer=None, label=PLAIN, free_id=7), Write(Answer(project=7, reason="labelling"))),
        (View(wish=WISH, answer=HELD, label=PLAIN), SetLabel(("a",), 7, PLAIN)),
        (View(wish=WISH, answer=HELD, label=PLAIN, usage=Usage(limit_bytes=5)), SetLimit(7, 0)),
        (View(wish=WISH, answer=HELD, label=Label(7, inherits=False, inode=5), owner="own"),
         SetLabel(("a",), 7, Label(7, inherits=False, inode=5))),
        (View(wish=WISH, answer=HELD, label=OWN, owner="own"), LabelContent(("a",), 7)),
        (View(wish=WISH, answer=HELD, label=OWN, owner="own", walked=Walked(3, special=1)),
         Write(Answer(project=7, whole=True, special=1))),
        (View(wish=WISH, answer=WHOLE, label=OWN, owner="own"), SetLimit(7, MI)),
        (View(wish=WISH, answer=WHOLE, label=OWN, owner="own", usage=Usage(0, 1, MI)), Write(SAID)),
        (View(wish=WISH, answer=SAID, label=OWN, owner="own", usage=Usage(0, 1, MI)), Rest()),
        # The answer names the record, also one that follows an earlier one.
        (View(wish=structs.replace(WISH, created="2026-01-01T00:00:00Z and more"), answer=SAID, label=OWN, owner="own",
              usage=Usage(0, 1, MI)), Write(structs.replace(SAID, record="2026-01-01T00:00:00Z"))),
        # A pending volume without a directory waits.
        (View(wish=structs.replace(WISH, pending=True), answer=None), Await()),
        # A lower limit is never promised before it is in force.
        (View(wish=WISH, answer=structs.replace(SAID, limit_bytes=9 * MI), label=OWN, owner="own",
              usage=Usage(0, 1, 9 * MI)),
         Write(structs.replace(SAID, limit_bytes=0, reason="lowering"))),
        (View(wish=WISH, answer=structs.replace(SAID, limit_bytes=0), label=OWN, owner="own",
              usage=Usage(0, 1, 9 * MI)), SetLimit(7, MI)),
        # Usage beyond the size: the first limit is the usage; root's overrun does not raise one.
        (View(wish=WISH, answer=WHOLE, label=OWN, owner="own", usage=Usage(3 * MI, 1, 0)), SetLimit(7, 3 * MI)),
        # A directory that lost its project.
        (View(wish=WISH, answer=SAID, label=PLAIN, usage=Usage(0, 0, MI)),
         Write(Answer(project=7, inodes=1, reason="labelling"))),
        # Taking an id over.
        (View(wish=WISH, answer=None, label=Label(9, inherits=True, inode=5), owner="former", was_whole=True,
              free_id=7),
         Write(Answer(project=9, whole=True, reason="labelling"))),
        (View(wish=WISH, answer=None, label=Label(9, inherits=True, inode=5), owner="unheld", free_id=7),
         Write(Answer(project=9, reason="labelling"))),
        (View(wish=WISH, answer=None, label=Label(9, inherits=True, inode=5), owner="other", free_id=7),
         Write(Answer(project=7, reason="labelling"))),
        # The end of a volume.
        (View(wish=None, answer=None), Rest()),
        (View(wish=None, answer=Answer(why="x")), Forget()),
        (View(wish=None, answer=SAID, is_shared=True, usage=Usage(1, 1, 1)), Forget()),
        (View(wish=None, answer=SAID, usage=Usage(0, 0, MI)), SetLimit(7, 0)),
        (View(wish=None, answer=SAID, usage=Usage()), Forget()),
        (View(wish=None, answer=SAID, usage=Usage(9, 2, MI), lifts=True), SetLimit(7, 0)),
        # A volume that asks for nothing.
        (View(wish=Wish(path=("a",)), answer=None), Rest()),
        (View(wish=Wish(path=("a",)), answer=Answer(why="x")), Forget()),
        (View(wish=Wish(path=("a",)), answer=SAID, label=OWN, usage=Usage(9, 2, MI)), SetLimit(7, 0)),
    ],
)  # fmt: skip
def test_step(view: View, step: Step) -> None:
    """Each state of a volume has one next step."""
    assert decide(view) == step


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (View(wish=Wish(why_not="broken"), answer=None), "invalid"),
        (View(wish=WISH, answer=SAID, label=OWN, owner="own", rival="b"), "conflict"),
        (View(wish=WISH, answer=None), "missing"),
        (View(wish=WISH, answer=None, label=Label(77, inherits=True, inode=5), owner="admin", free_id=7),
         "foreign-project"),
        (View(wish=WISH, answer=None, label=PLAIN), "no-free-id"),
        (View(wish=WISH, answer=HELD, label=OWN, owner="own", walked=Walked(3, busy=1)), "busy"),
        (View(wish=WISH, answer=WHOLE, label=OWN, owner="own", usage=Usage(3 * MI, 1, 3 * MI)), "overfull"),
        (View(wish=WISH, answer=WHOLE, label=OWN, owner="own", usage=Usage(3 * MI, 1, MI)), "overfull"),
        (View(wish=None, answer=SAID, usage=Usage(9, 2, MI)), "held"),
        (View(wish=Wish(path=("a",)), answer=SAID, label=OWN, usage=Usage(9, 2)), "not-wanted"),
    ],
)  # fmt: skip
def test_reason(view: View, reason: str) -> None:
    """An answer without the limit that was asked for says why, and changes nothing else."""
    step = decide(view)
    assert isinstance(step, Write)
    assert (step.answer.reason, bool(step.answer.why)) == (reason, True)


LABELS = st.none() | st.builds(Label, st.sampled_from([0, 7, 9, 77]), st.booleans(), st.just(5))
USAGES = st.builds(Usage, st.integers(0, 4 * MI), st.integers(0, 3), st.sampled_from([0, 5, MI, 3 * MI]))
VIEWS = st.builds(
    View,
    wish=st.none() | st.builds(Wish, path=st.just(("a",)), size_bytes=st.sampled_from([0, MI, 2 * MI]),
                               pending=st.booleans(), why_not=st.sampled_from(["", "broken"])),
    answer=st.none() | st.builds(Answer, project=st.sampled_from([0, 7]), whole=st.booleans(),
                                 limit_bytes=st.sampled_from([0, MI, 3 * MI])),
    is_shared=st.booleans(),
    rival=st.sampled_from(["", "", "b"]),
    label=LABELS,
    owner=st.sampled_from(["unheld", "own", "other", "former", "admin"]),
    was_whole=st.booleans(),
    usage=USAGES,
    walked=st.none() | st.builds(Walked, st.just(3), st.just(0), st.sampled_from([0, 1])),
    free_id=st.none() | st.just(7),
    lifts=st.booleans(),
)  # fmt: skip


@given(VIEWS)
def test_what_no_step_does(view: View) -> None:
    """Whatever is known, no step weakens a promise of the agent."""
    step = decide(view)
    if isinstance(step, SetLimit) and step.limit_bytes:
        assert view.answer is not None
        assert view.answer.whole  # all content counts
        assert step.limit_bytes >= limit_for(view.usage.used_bytes)  # a limit below the usage is never set
        assert view.label is not None
        assert view.label.project == step.project == view.answer.project
    if isinstance(step, Write) and step.answer.limit_bytes:
        assert is_limit(view.usage.limit_bytes, step.answer.limit_bytes)  # it names the limit in force
    if view.wish is not None and (view.rival or view.wish.why_not):
        changes = (SetLabel, LabelContent, Forget)
        assert not isinstance(step, changes) or not (view.wish.size_bytes or view.wish.why_not)
    if isinstance(step, SetLabel):
        assert view.label == step.was  # the directory that was looked at, and no other
    if isinstance(step, Forget) and view.wish is None and view.answer is not None and view.answer.project:
        assert view.is_shared or view.usage.is_free or not view.usage.inodes


@pytest.mark.parametrize("text", ["", "5", "5-", "0-9", "9-5", "1-4294967295", "-1-5", "a-b", "1-99999999999"])
def test_a_range_that_cannot_be_used(text: str) -> None:
    """A range of ids that cannot be used is refused, with an example."""
    with pytest.raises(InvalidSettings, match="100000-199999"):
        ids.parse(text)


def test_ranges() -> None:
    """A range has its ends, and its lowest free id is found from a start."""
    found = ids.parse("5-7")
    assert (str(found), 5 in found, 7 in found, 8 in found) == ("5-7", True, True, False)
    assert IdRange(5, 7).free({5}.__contains__) == 6
    assert IdRange(5, 7).free({5}.__contains__, start=7) == 7
    assert IdRange(5, 7).free({5, 6, 7}.__contains__) is None

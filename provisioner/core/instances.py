"""Instances: who works on an export in a cluster's name, by a sign that is read before it is written.

A cluster that is restored beside its original has the original's id, and each takes the other's directories for its
own. The API servers cannot tell them apart, but both leave their sign under one name on the export. An instance is one
process that leads, with the term of its Lease. A sign of another instance is ordinary where a term begins: it is the
former leader's. Once we have signed, and while we hold our Lease, nobody else has a reason to sign.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from msgspec import Struct

State = Literal["", "left", "twice", "decided"]
"""`left`: it stopped in good order; `twice`: two instances were at work; `decided`: an admin has ended that."""

LOOK_EVERY_S = 5.0
"""How often a leader reads the sign on each export."""
SIGN_EVERY_S = 60.0
"""How often it writes a new time into its own."""
SETTLE_S = 15.0
"""How long nothing is destroyed after we signed over another instance: that one, if it lives, looks twice by then."""
UNSIGNED_S = 75.0
"""How long where the export is too full for our sign: that one, if it lives, writes a new time by then."""

_STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What an instance leaves on an export."""

    at: str
    """RFC 3339, by the clock of who wrote it: for people only."""
    term: int
    """The Lease's transitions; 0 without leader election, and -1 for a text that this version cannot read."""
    instance: str
    state: State = ""
    other: str = ""
    """With `twice` the other instance."""

    def __str__(self) -> str:
        """As it is written."""
        return " ".join(filter(None, (self.at, str(self.term), self.instance, self.state, self.other)))


def parse(text: str) -> Sign:
    """The sign that was written so; what this version cannot read is the sign of an instance of that name."""
    at, _, rest = text.partition(" ")
    term, _, rest = rest.partition(" ")
    instance, _, rest = rest.partition(" ")
    written, _, other = rest.partition(" ")
    state = next((each for each in _STATES if each == written), None)
    if not instance or state is None or not (term.isascii() and term.isdigit()):
        return Sign(at="", term=-1, instance=text)
    return Sign(at=at, term=int(term), instance=instance, state=state, other=other)


def name(cluster: str, provisioner: str) -> str:
    """The name of the sign: two provisioners of one cluster may share an export, and have one each."""
    return f"{cluster}.{hashlib.sha256(provisioner.encode()).hexdigest()[:12]}"


def is_instances(name: str) -> bool:
    """Whether a name among the signs is an instance's; a cluster's own, the uid of its kube-system, has no dot."""
    return "." in name


class Listed(Struct, frozen=True):
    """A sign in the order in which a table shows it."""

    export: str
    instance: str
    term: int
    signed: str
    state: str
    other: str
    meaning: str


def listed(export: str, sign: Sign) -> Listed:
    """A sign in words for people."""
    meanings = {
        "": "at work",
        "left": "stopped in good order",
        "twice": f"two are at work, the other is {sign.other}: nothing is deleted",
        "decided": "an admin has decided, and nobody has signed since",
    }
    meaning = "written by another version" if sign.term < 0 else meanings[sign.state]
    return Listed(export, sign.instance, sign.term, sign.at, sign.state, sign.other, meaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a leader knows of one export, from look to look."""

    signed: bool = False
    """Whether we have signed in this term."""
    signed_s: float = -math.inf
    settled_s: float = math.inf
    """From when on we may destroy; all times are monotonic."""
    doubted: bool = False
    """Whether another sign than ours was there since we signed, and it may have been a former leader's."""
    stopped: Sign | None = None
    """The sign that says that two are at work."""
    full: bool = False
    """Whether the export is too full for our sign, and has had `found` ever since."""
    found: Sign | None = None

    def is_settled(self, now_s: float) -> bool:
        """Whether we may destroy, by the last look."""
        return (self.signed or self.full) and self.stopped is None and now_s >= self.settled_s


@dataclass(frozen=True, slots=True)
class Step:
    """What a look comes to: what we know once the sign is written, over the one there or only where there is none."""

    standing: Standing
    write: Sign | None = None
    over: bool = True


def decided(at: str, by: str) -> Sign:
    """What an admin puts in the place of a sign that says `twice`: whoever is at work signs over it."""
    return Sign(at=at, term=0, instance=by, state="decided")


def is_of(sign: Sign | None, me: Sign) -> bool:
    """Whether a sign is this instance's own, and at work."""
    return sign is not None and (sign.instance, sign.state) == (me.instance, "")


def is_strange(known: Standing, sign: Sign | None, me: Sign) -> bool:
    """Whether a sign can only be judged by a live look at our Lease: another instance's, after we have signed."""
    return known.signed and sign is not None and sign.state != "twice" and not is_of(sign, me)


def unwritten(known: Standing, sign: Sign | None, me: Sign, *, full: bool, now_s: float) -> Standing:
    """What we know after a step whose sign could not be written; `full` tells that the export has no room for it."""
    if known.signed and is_of(sign, me):
        return known  # ours is there, with an older time
    if not full or known.signed or known.stopped is not None:
        return replace(known, settled_s=now_s + SETTLE_S)
    # A full export must be reclaimed from, or it stays full.
    if known.full and known.found == sign:
        return known
    return Standing(full=True, found=sign, settled_s=now_s + UNSIGNED_S)


def judge(known: Standing, sign: Sign | None, me: Sign, *, leads: bool | None, now_s: float) -> Step:
    """What to do about the sign that is there; `me` is what we would write.

    `leads` is for a strange sign: whether the Lease, as read after the sign, is ours; None without leader election.
    """
    if sign is not None and sign.state == "twice":
        return Step(replace(known, signed=False, stopped=sign))
    later = Standing(signed=True, signed_s=now_s, settled_s=now_s + SETTLE_S)
    if sign is None:
        # Of two that find nothing only one can create it, and the other one meets it then.
        first = not known.signed and known.stopped is None
        return Step(replace(later, settled_s=now_s) if first else later, me, over=False)
    if not known.signed:
        return Step(replace(later, settled_s=now_s) if sign.state == "left" else later, me)
    if is_of(sign, me):
        known = replace(known, doubted=known.doubted and now_s < known.settled_s)
        due = now_s - known.signed_s >= SIGN_EVERY_S
        return Step(replace(known, signed_s=now_s), me) if due else Step(known)
    if leads is False:
        return Step(replace(known, settled_s=now_s + SETTLE_S))  # it is the next leader's
    if known.doubted or (leads and sign.term >= me.term):
        twice = replace(me, state="twice", other=sign.instance)
        return Step(replace(known, signed=False, stopped=twice), twice)
    # A former leader's last write may have come late, once.
    return Step(replace(later, doubted=True), me)

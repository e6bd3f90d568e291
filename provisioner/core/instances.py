"""Instances: which process works on an export in a cluster's name, by a sign that is read before it is written.

A cluster that was restored beside its original has the original's id, so each treats the other's directories as its
own. No API server can tell the two apart, but both write their sign under the same name on the export.

An instance is one leading process, with the term of its Lease. At the beginning of a term the sign of another instance
is normal: it is the former leader's. After this instance has signed, and while it holds its Lease, no other instance
has a reason to sign: if one does, two clusters are at work.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from msgspec import Struct

State = Literal["", "left", "twice", "decided"]
"""`left`: it stopped cleanly; `twice`: two instances were at work; `decided`: an admin has ended that."""

LOOK_EVERY_S = 5.0
"""How often a leader reads the sign on each export."""
LOOK_AGAIN_S = 1.0
"""The pause after a look that failed: another instance waits SETTLE_S for this one's sign, and no longer."""
SIGN_EVERY_S = 60.0
"""How often it writes a new time into its own sign."""
SETTLE_S = 15.0
"""How long to wait after overwriting another instance's sign: a live one reads it twice in that time."""
DOUBT_S = 75.0
"""The wait after another instance's sign appeared over this one's: time for that instance even to restart.

Also the wait if the export has no room for a sign: a live instance renews its own in that time.
"""

_STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """The sign of an instance on an export."""

    at: str
    """RFC 3339, by the clock of its writer: for people only."""
    term: int
    """The Lease's transitions; 0 without leader election, and -1 for a text that this version cannot read."""
    instance: str
    state: State = ""
    other: str = ""
    """With `twice`, the other instance."""

    def __str__(self) -> str:
        """Return the text that is written."""
        return " ".join(filter(None, (self.at, str(self.term), self.instance, self.state, self.other)))


def parse(text: str) -> Sign:
    """Parse a sign. A text that this version cannot read is the sign of an instance with that text as its name."""
    at, _, rest = text.partition(" ")
    term, _, rest = rest.partition(" ")
    instance, _, rest = rest.partition(" ")
    written, _, other = rest.partition(" ")
    state = next((each for each in _STATES if each == written), None)
    if not instance or state is None or not (term.isascii() and term.isdigit()):
        return Sign(at="", term=-1, instance=text)
    return Sign(at=at, term=int(term), instance=instance, state=state, other=other)


def name(cluster: str, provisioner: str) -> str:
    """Return the name of the sign: each provisioner of a cluster has its own, since they can share an export."""
    return f"{cluster}.{hashlib.sha256(provisioner.encode()).hexdigest()[:12]}"


def is_instances(name: str) -> bool:
    """Return True if the name of a sign is an instance's.

    A cluster's sign, the uid of its kube-system, has no dot.
    """
    return "." in name


class InstanceRow(Struct, frozen=True):
    """One sign; the fields are the columns of the table."""

    export: str
    instance: str
    term: int
    signed: str
    state: str
    other: str
    meaning: str


def listed(export: str, sign: Sign) -> InstanceRow:
    """Return the row of a sign."""
    meanings = {
        "": "at work",
        "left": "stopped cleanly",
        "twice": f"two are at work, the other is {sign.other}: nothing is deleted",
        "decided": "an admin has decided, and no instance has signed since",
    }
    meaning = "written by another version" if sign.term < 0 else meanings[sign.state]
    return InstanceRow(export, sign.instance, sign.term, sign.at, sign.state, sign.other, meaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a leader knows of one export between two looks."""

    signed: bool = False
    """Whether this instance has signed in this term."""
    signed_s: float = -math.inf
    settled_s: float = math.inf
    """From when on data can be destroyed; all times are monotonic."""
    doubted: bool = False
    """Whether another sign appeared since this instance signed, which can be a late one of a former leader."""
    stopped: Sign | None = None
    """The sign that says that two instances are at work."""
    full: bool = False
    """Whether the export is too full for this instance's sign, and has had `found` since then."""
    found: Sign | None = None

    def is_settled(self, now_s: float) -> bool:
        """Return True if data can be destroyed, by the last look."""
        return (self.signed or self.full) and self.stopped is None and now_s >= self.settled_s


@dataclass(frozen=True, slots=True)
class Step:
    """The result of a look: the new standing, and a sign to write.

    `over` says whether the sign replaces an existing one, or is only created if there is none.
    """

    standing: Standing
    write: Sign | None = None
    over: bool = True


def decided(at: str, by: str) -> Sign:
    """Return the sign with which an admin replaces a `twice`: the instance that is at work overwrites it."""
    return Sign(at=at, term=0, instance=by, state="decided")


def is_of(sign: Sign | None, me: Sign) -> bool:
    """Return True if a sign is this instance's own and says that it is at work."""
    return sign is not None and (sign.instance, sign.state) == (me.instance, "")


def is_strange(known: Standing, sign: Sign | None, me: Sign) -> bool:
    """Return True if a sign needs a live look at the Lease: another instance's, after this one has signed."""
    return known.signed and sign is not None and sign.state != "twice" and not is_of(sign, me)


def unwritten(known: Standing, sign: Sign | None, me: Sign, *, full: bool, now_s: float) -> Standing:
    """Return the standing after a sign could not be written.

    `full` says that the export has no room for it.
    """
    if known.signed and is_of(sign, me):
        return known  # its own sign is there, with an older time
    if not full or known.signed or known.stopped is not None:
        return replace(known, settled_s=now_s + SETTLE_S)
    # On a full export volumes must still be reclaimed, or it stays full.
    if known.full and known.found == sign:
        return known
    return Standing(full=True, found=sign, settled_s=now_s + DOUBT_S)


def judge(known: Standing, sign: Sign | None, me: Sign, *, leads: bool | None, now_s: float) -> Step:
    """Decide what to do about the sign that was found; `me` is the sign that this instance would write.

    `leads` is for a strange sign: whether this instance holds the Lease, as read after the sign; None without leader
    election.
    """
    if sign is not None and sign.state == "twice":
        return Step(replace(known, signed=False, stopped=sign))
    later = Standing(signed=True, signed_s=now_s, settled_s=now_s + SETTLE_S)
    if sign is None:
        # Of two instances that find no sign only one can create it; the other one finds it then.
        first = not known.signed and known.stopped is None
        return Step(replace(later, settled_s=now_s) if first else later, me, over=False)
    if not known.signed:
        return Step(replace(later, settled_s=now_s) if sign.state == "left" else later, me)
    if is_of(sign, me):
        known = replace(known, doubted=known.doubted and now_s < known.settled_s)
        due = now_s - known.signed_s >= SIGN_EVERY_S
        return Step(replace(known, signed_s=now_s), me) if due else Step(known)
    if leads is False:
        return Step(replace(known, settled_s=now_s + SETTLE_S))  # the sign is the next leader's
    if known.doubted or (leads and sign.term >= me.term):
        twice = replace(me, state="twice", other=sign.instance)
        return Step(replace(known, signed=False, stopped=twice), twice)
    # The last write of a former leader can arrive late, once.
    return Step(replace(later, doubted=True, settled_s=now_s + DOUBT_S), me)

"""How full a volume is, by the quota agent's answer, and when an event about it is due.

A full volume is a problem for its neighbours, too: behind the kernel's NFS server its writers can wait minutes for
their error, and all clients of the server send data again in that time. So a claim is reported before its volume is
full: at 85 %, at 95 %, and when it is full, each once. It is reported again only after the usage fell clearly below.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import IntEnum

from provisioner.core import times
from provisioner.core.quantities import readable
from provisioner.core.quota import Answer, tolerance_bytes


class Level(IntEnum):
    """What a volume's usage has reached, in percent of its limit."""

    ROOM = 0
    NEARLY = 85
    ALMOST = 95
    FULL = 100


REPORTED = (Level.NEARLY, Level.ALMOST, Level.FULL)
"""The levels that are reported."""

_MARGIN = 5
"""In percent of the limit: how far the usage must fall below a level before the level is reported again."""
_LIFE = timedelta(hours=1)
"""How long the API server keeps an event by default."""


def level(answer: Answer, *, margin: int = 0) -> Level:
    """Return the level of a volume; ROOM while there is no limit, or not all of its content is counted.

    The usage counts as higher by `margin` percent of the limit.
    """
    limit_bytes = answer.limit_bytes
    if not answer.whole or not limit_bytes:
        return Level.ROOM
    if limit_bytes - answer.used_bytes <= tolerance_bytes(answer.used_bytes):
        return Level.FULL
    percent = 100 * answer.used_bytes / limit_bytes + margin
    return max((each for each in Level if percent >= each), default=Level.ROOM)


def to_report(reported: Level | None, answer: Answer, now: datetime) -> tuple[Level, Level | None]:
    """Return the level that counts as reported from now on, and the level of the event that is due, if any.

    `reported` is the level that counted so far, or None if this leader has not seen the volume yet. Then the level is
    due only if the answer changed within the life of an event: a former leader has reported an older one, and an event
    of the same text that still exists is not created twice.
    """
    found = level(answer)
    if reported is None:
        at = times.parse(answer.at)
        fresh = at is not None and now - at < _LIFE
        return found, found if fresh and found else None
    if found > reported:
        return found, found
    return min(reported, level(answer, margin=_MARGIN)), None


def message(reached: Level, answer: Answer) -> str:
    """Return the text of the event about a level.

    It has no usage: it stays the same while the level and the limit do.
    """
    limit = readable(answer.limit_bytes)
    if reached is Level.FULL:
        return f"the volume is full, at its limit of {limit}: expand the claim, or remove data"
    return f"the volume uses at least {reached:d} % of its limit of {limit}: expand the claim, or remove data"

"""Project ids: who holds one, who can take one over, and which one is free. Pure.

An id belongs to a volume by the volume's answer, which is written before the id is used. It is free again when nothing
on the file system has it: data in the trash and in archives, links and open files keep it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from provisioner.core.errors import InvalidSettings

LARGEST_ID = 0xFFFFFFFE
_DEFAULT = (100_000, 199_999)

Owner = Literal["unheld", "own", "other", "former", "admin"]
"""Whose project id a directory has.

`unheld`: no answer has it, as after the loss of the answers; `own`: the volume's; `other`: it still belongs to another
volume; `former`: it belonged to a volume whose directory this one has taken over; `admin`: it is outside the range.
"""


@dataclass(frozen=True, slots=True)
class IdRange:
    """The project ids that an agent gives."""

    first: int = _DEFAULT[0]
    last: int = _DEFAULT[1]

    def __str__(self) -> str:
        """Return `FIRST-LAST`."""
        return f"{self.first}-{self.last}"

    def __contains__(self, project: int) -> bool:
        """Return True if an id is in the range."""
        return self.first <= project <= self.last

    def free(self, is_taken: Callable[[int], bool], *, start: int = 0) -> int | None:
        """Return the lowest id from `start` on that is not taken; None if all are."""
        return next((each for each in range(max(self.first, start), self.last + 1) if not is_taken(each)), None)


def parse(text: str) -> IdRange:
    """Parse `FIRST-LAST`. Raises InvalidSettings."""
    found = re.fullmatch(r"(\d{1,10})-(\d{1,10})", text, re.ASCII)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last <= LARGEST_ID:
        raise InvalidSettings(
            f"--project-ids {text!r} is not a range of project ids: write FIRST-LAST such as {IdRange()}, from 1 to"
            f" {LARGEST_ID}"
        )
    return IdRange(first, last)

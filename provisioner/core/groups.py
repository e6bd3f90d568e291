"""Groups of volumes: the range of group ids of a class, and which ids of it are free on an export.

With `gid: auto` each volume has a group of its own. The directory belongs to that group, and an annotation of the
PersistentVolume makes the kubelet add the group to every container of the pod.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from provisioner.core import names
from provisioner.core.errors import InvalidSettings

MODE = 0o2770
"""The default mode of a directory that has a group of its own. New entries get the same group."""

GID_LIMIT = 2**31 - 1
"""The highest group id of a container (Kubernetes, IsValidGroupID; runc refuses to start one with a higher id)."""
_ANONYMOUS = 65534
"""The group that servers give to callers without an identity of their own, such as root with root_squash."""
_HIGHEST = 2**32 - 2


@dataclass(frozen=True, slots=True)
class GidRange:
    """The group ids that volumes of a class can get, both ends included."""

    first: int
    last: int

    def __str__(self) -> str:
        """Return it as users write it."""
        return f"{self.first}-{self.last}"


DEFAULT_RANGE = GidRange(50000, 59999)


def parse_range(text: str) -> GidRange:
    """Parse a range such as 50000-59999. Raises InvalidSettings."""
    written = re.fullmatch(r"([0-9]{1,10})\s*-\s*([0-9]{1,10})", text)
    if written is None:
        raise InvalidSettings(f"{text!r} is not a range of group ids such as {DEFAULT_RANGE}")
    groups = GidRange(int(written[1]), int(written[2]))
    if groups.first > groups.last:
        raise InvalidSettings(f"{text!r} contains no id: write the lower id first, such as {DEFAULT_RANGE}")
    if groups.first < 1:
        raise InvalidSettings(f"{text!r} contains 0, the group of root: begin at 1 or above")
    if groups.last > GID_LIMIT:
        raise InvalidSettings(f"{text!r} exceeds {GID_LIMIT}, the highest group id of a container: end there or below")
    if groups.first <= _ANONYMOUS <= groups.last:
        raise InvalidSettings(
            f"{text!r} contains {_ANONYMOUS}, the group of anonymous users on NFS servers: choose a range without it"
        )
    return groups


def gid_of(annotations: Mapping[str, str]) -> int:
    """Return the group that a volume's annotations name; 0 if they name none that can be a volume's own."""
    written = annotations.get(names.GID, "")
    gid = int(written) if re.fullmatch(r"[0-9]{1,10}", written) else 0
    return gid if gid <= _HIGHEST else 0


def gid_in(target: str) -> int | None:
    """Return the group in a record that this version cannot read; 0 without a group, None if it cannot be found out.

    Another version of the provisioner can have written the record.
    """
    try:
        said = msgspec.json.decode(target.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    record = said.get("was", said) if isinstance(said, dict) else None
    gid = record.get("gid", 0) if isinstance(record, dict) else None
    return gid if isinstance(gid, int) else None


class GroupIndex:
    """The groups of one export in memory: who holds each id by the ledger's entries, and which ids records name."""

    def __init__(self) -> None:
        self._holders: dict[int, str] = {}
        self._named: Counter[int] = Counter()
        self._unreadable: dict[str, int | None] = {}

    @property
    def holders(self) -> Mapping[int, str]:
        """The volumes that hold ids by the entries of the ledger, by id."""
        return self._holders

    @property
    def is_in_doubt(self) -> bool:
        """Whether there is a record that cannot be read at all, so that its group is unknown."""
        return None in self._unreadable.values()

    @property
    def has_unlisted(self) -> bool:
        """Whether records name ids that have no entry."""
        return not self._named.keys() <= self._holders.keys()

    def enter(self, gid: int, holder: str) -> None:
        """Note the entry of an id."""
        self._holders[gid] = holder

    def remove(self, gid: int) -> None:
        """Note that an id has no entry; a no-op if none is known."""
        self._holders.pop(gid, None)

    def name(self, gid: int) -> None:
        """Note that one more record names an id; 0 stands for no group."""
        if gid:
            self._named[gid] += 1

    def unname(self, gid: int) -> None:
        """Note that one record less names an id."""
        if gid:
            self._named[gid] -= 1
            if not self._named[gid]:
                del self._named[gid]

    def note_unreadable(self, key: str, target: str) -> None:
        """Note a record that cannot be read; `key` identifies it."""
        self.note_readable(key)
        self._unreadable[key] = gid = gid_in(target)
        self.name(gid or 0)

    def note_readable(self, key: str) -> None:
        """Note that a record is gone, or can be read; a no-op for any other."""
        self.unname(self._unreadable.pop(key, 0) or 0)

    def is_named(self, gid: int) -> bool:
        """Return True if a record names an id."""
        return gid in self._named

    def is_free(self, gid: int) -> bool:
        """Return True if neither an entry nor a record has an id."""
        return gid not in self._holders and gid not in self._named

    def lowest_free(self, groups: GidRange) -> int | None:
        """Return the lowest id of a range that is free, or None."""
        return next(filter(self.is_free, range(groups.first, groups.last + 1)), None)

"""Whether a quota agent enforces the size of a volume, and what is missing if it does not.

The agent's answer and its heartbeat (core.quota) decide. The texts are for events on a claim: they name nothing of
another namespace, and they stay the same until something else is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from provisioner.core.errors import InvalidQuantity
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, Heartbeat, enforces, is_alive, stamp
from provisioner.core.records import Record

_SEEN: Mapping[str, str] = {
    "": "the agent is about to set its limit",
    "labelling": "the agent is still labelling the data that was there first",
    "busy": "NFS clients hold files open that were there first: close them",
    "lowering": "the agent is about to lower its limit",
    "overfull": "it holds more data than its size: remove data, or request more",
    "not-wanted": "the agent has not read its record yet",
    "held": "the agent has not read its record yet",
    "conflict": "another volume's record claims its directory, or one above or below it: `nfs-provisioner orphans`"
    " lists both",
}
"""What an answer with a reason means. The agent's own words on the others stay the same, and are about this volume."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why the size of a volume is not enforced."""

    message: str
    needs_admin: bool = False
    """Whether no agent can enforce any size on the export until an admin changes something there."""


def shortfall(
    record: Record, answer: Answer | None, heartbeat: Heartbeat | None, *, export: str, now: datetime
) -> Shortfall | None:
    """Return why the size in the record of a volume is not enforced, with what to do; None if it is.

    A limit that is in force stays in force without the agent. Without a heartbeat the file system is unknown, and so
    whether limits hold root there.
    """
    if heartbeat is None:
        return Shortfall(
            f"no quota agent has reported on export {export}: run `nfs-provisioner quota-agent` on its server", True
        )
    agent = f"the quota agent of export {export}"
    if not heartbeat.enforces:
        return Shortfall(f"{agent} cannot set limits: {heartbeat.lacks or 'see its log'}", True)
    if heartbeat.filesystem == "ext4" and not heartbeat.holds_root:
        return Shortfall(
            f"export {export} is on ext4, where the kernel's NFS server lets root write beyond a limit: use XFS; or, if"
            " the export squashes root or its server is Ganesha, start the quota agent with --root-is-held",
            True,
        )
    if _is_enforced(record, answer):
        return None
    if not is_alive(heartbeat, now):
        return Shortfall(f"{agent} has been silent since {heartbeat.at}: start it again")
    if answer is None:
        return Shortfall(f"{agent} has not answered for the volume yet")
    return Shortfall(f"the size of the volume is not in force on export {export}: {_seen(answer)}")


def sizes(volumes: Mapping[str, str], records: Mapping[str, Record]) -> dict[str, str]:
    """Return the sizes that count on an export, by volume: the capacities of `volumes`, or what is in force.

    Where a volume asks for a quota, the agent enforces the size of its record. That is larger than the capacity while
    the volume grows, and there before the volume is. A directory that is retained without its volume does not count.
    """
    found = dict(volumes)
    for name, record in records.items():
        if record.quota != "none" and not record.retained:
            found[name] = max(record.capacity, found.get(name, "0"), key=_bytes)
    return found


def requested_bytes(records: Iterable[Record]) -> int:
    """Return the sum of the sizes that volumes request, by their records; a retained directory has no volume."""
    sizes = Counter(record.capacity for record in records if not record.retained)
    return sum(count * _bytes(size) for size, count in sizes.items())


def _bytes(size: str) -> int:
    try:
        return parse_bytes(size)
    except InvalidQuantity:
        return 0


def _is_enforced(record: Record, answer: Answer | None) -> bool:
    """Return True if an answer says so of this record, and has nothing to add.

    Any other answer can be about an earlier directory of the volume: of an attempt that was undone.
    """
    size_bytes = _bytes(record.capacity)
    if answer is None or answer.reason or answer.record not in ("", stamp(record.created)):
        return False
    return size_bytes > 0 and enforces(answer, size_bytes)


def _seen(answer: Answer) -> str:
    return _SEEN.get(answer.reason) or answer.why or answer.reason

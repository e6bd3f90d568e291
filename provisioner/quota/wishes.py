"""Wishes: which directory a record gives to a volume, and which limit it asks for. Pure.

Records are data that others write. A record with an unusable path or size asks for nothing, and a directory that two
volumes claim belongs to neither: what is in force stays, and nothing changes until an admin has looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import intern

from msgspec import Struct, structs

from provisioner.core import paths
from provisioner.core.errors import InvalidPath, InvalidQuantity, InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.paths import PathIndex
from provisioner.core.quantities import parse_bytes
from provisioner.core.records import decode


class Wish(Struct, frozen=True, gc=False):
    """What the record of a volume asks for."""

    path: RelPath = ()
    """The directory below the export's root; `()` for a record that cannot be used."""
    size_bytes: int = 0
    """The size to enforce; 0 for none."""
    created: str = ""
    owner: str = ""
    """Cluster and namespace: only volumes of one owner can hand a directory on."""
    pending: bool = False
    archive: str = ""
    """The archive that the directory was restored from."""
    why_not: str = ""
    """Why the record cannot be used; empty if it can."""


def read(text: str, *, pending: bool, all_volumes: bool) -> Wish:
    """Return the wish of a record; `all_volumes` limits volumes whose class does not ask for it too."""
    try:
        record = decode(text)
    except InvalidRecord as exc:
        return Wish(why_not=f"the record cannot be read: {exc}")
    try:
        path = paths.check(record.directory)
    except InvalidPath as exc:
        return Wish(why_not=f"the record has a directory that no volume can have: {exc}")
    wish = Wish(
        path=path,
        created=intern(record.created),
        owner=intern(f"{record.cluster} {record.namespace}"),
        pending=pending,
        archive=record.archive,
    )
    if record.quota == "none" and not all_volumes:
        return wish
    try:
        size_bytes = parse_bytes(record.capacity)
    except InvalidQuantity as exc:
        return structs.replace(wish, why_not=f"the record has a size that cannot be read: {exc}")
    if size_bytes <= 0:
        return structs.replace(wish, why_not=f"the record has the size {record.capacity}, which leaves no room")
    return structs.replace(wish, size_bytes=size_bytes)


def rival(name: str, wishes: Mapping[str, Wish], index: PathIndex) -> str:
    """Return a volume that has the same directory as a volume, or one above or below it; empty if there is none.

    A directory that a later volume of the same owner adopts is no conflict: see successor().
    """
    wish = wishes[name]
    same = {name} | {other for other in index.owners(wish.path) if wishes[other].owner == wish.owner}
    return index.touching(wish.path, other_than=same) or ""


def successor(name: str, wishes: Mapping[str, Wish], index: PathIndex) -> str:
    """Return the volume that has taken over the directory of a volume; the volume itself if none has.

    A volume that adopts the directory of a retained one has the same path, and the former record ends soon after. The
    pending record wins, then the later one.
    """
    wish = wishes[name]
    same = [other for other in index.owners(wish.path) if wishes[other].owner == wish.owner]
    return max(same, key=lambda other: (wishes[other].pending, wishes[other].created, other))

"""The content of an export's disk, read without the daemon, to compare with the API."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from provisioner.ledger.layout import TOMBSTONE
from testbed.api import Object

LEDGER = ".provisioner"

Listing = dict[str, tuple[int, int, int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The names at an export's root and in its ledger."""

    directories: frozenset[str]
    archives: frozenset[str]
    records: frozenset[str]
    pending: frozenset[str]
    trash: frozenset[str]


def disk(export: Path) -> Disk:
    """Read the export."""
    names = {entry.name for entry in os.scandir(export)} - {LEDGER}
    archives = {name for name in names if name.startswith("archived-")}
    return Disk(
        directories=frozenset(names - archives),
        archives=frozenset(archives),
        records=_names(export / LEDGER / "volumes"),
        pending=_names(export / LEDGER / "pending"),
        trash=in_trash(export),
    )


def in_trash(export: Path) -> frozenset[str]:
    """Return the names in the trash, without those that are only reserved."""
    trash = export / LEDGER / "trash"
    return frozenset(name for name in _names(trash) if _names(trash / name) != {TOMBSTONE})


def _names(directory: Path) -> frozenset[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # the daemon is running
        return frozenset(os.listdir(directory))
    return frozenset()


def listing(root: Path) -> Listing:
    """Return type and mode, owner, time of change and link text of all below a directory."""
    found: Listing = {}
    for directory, directories, files in os.walk(root):
        for name in [".", *directories, *files]:
            path = Path(directory, name)
            seen = path.lstat()
            target = os.readlink(path) if path.is_symlink() else ""
            found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_mtime_ns, target)
    return found


def disagreement(export: Path, volumes: list[Object]) -> str | None:
    """Describe how disk and API differ; None if each volume has directory and record and nothing else exists."""
    seen = disk(export)
    named = {volume["metadata"]["name"] for volume in volumes}
    paths = {volume["spec"]["nfs"]["path"].rsplit("/", 1)[1] for volume in volumes}
    problems = {
        "directories without a volume": seen.directories - paths,
        "volumes without a directory": paths - seen.directories,
        "records without a volume": seen.records - named,
        "volumes without a record": named - seen.records,
        "pending records": seen.pending,
        "trash": seen.trash,
    }
    found = {what: sorted(names)[:3] for what, names in problems.items() if names}
    return repr(found) if found else None

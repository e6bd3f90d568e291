"""The ledger's place on an export (design, "The export's ledger"): what is where below `.provisioner`.

    .provisioner/export              -> the export's id
    .provisioner/since               -> since when a provisioner has kept this ledger
    .provisioner/pending/<volume>    -> a record whose PersistentVolume has not been made yet
    .provisioner/volumes/<volume>    -> a record whose PersistentVolume has been made
    .provisioner/archives/<archive>  -> the record of the archive of that name at the export's root
    .provisioner/clusters/<cluster>  -> when a provisioner of that cluster was here last
    .provisioner/clusters/<cluster>.<digest>  -> the instance that works here in its name (core.instances)
    .provisioner/trash/<volume>.<time>  a directory on its way out; with `.begun` behind it, a part of it may be gone
    .provisioner/drafts/<name>       -> a record that is about to take the place of another one
    .provisioner/names-é             -> to see which names the server takes for one
    .provisioner/mark-<name>         -> for a moment, while two exports with one id are compared

`->` is a symlink, whose target is the text.
"""

from __future__ import annotations

from typing import Literal, get_args

from provisioner.core.locations import Path
from provisioner.core.paths import LEDGER
from provisioner.ports import Access

State = Literal["pending", "volumes"]
"""How far a volume is, which is the directory that its record is in."""
STATES: tuple[State, ...] = get_args(State)

ID: Path = (LEDGER, "export")
SINCE: Path = (LEDGER, "since")
ARCHIVES: Path = (LEDGER, "archives")
CLUSTERS: Path = (LEDGER, "clusters")
TRASH: Path = (LEDGER, "trash")
DRAFTS: Path = (LEDGER, "drafts")

NAMES: Path = (LEDGER, "names-\u00e9")
MARK = "mark-"
BEGUN = ".begun"

PRIVATE = Access(mode=0o700)


def of(state: State, volume: str) -> Path:
    """Where a volume's record is."""
    return (LEDGER, state, volume)


def mark(name: str) -> Path:
    """Where a mark is."""
    return (LEDGER, name)


def directories() -> list[Path]:
    """All directories of a ledger, in the order in which they are made."""
    return [(LEDGER,), *((LEDGER, state) for state in STATES), ARCHIVES, CLUSTERS, TRASH, DRAFTS]

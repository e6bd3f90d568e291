"""What a command looked at, so that its output distinguishes "nothing found" from "nothing looked at"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from provisioner.core.records import ArchiveRecord, Record

FOUND, NOT_SEEN, NOTHING = 0, 1, 2
"""Exit statuses: looked at everything; could not look everywhere; there was nothing to look at."""


def count(number: int, noun: str) -> str:
    """Return a count with its noun: `1 volume`, `2 volumes`, `2 StorageClasses`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith("s") else f"{number} {noun}s"


def no_class(provisioner: str, classes: Mapping[str, int]) -> str:
    """Return the message that no StorageClass has a provisioner's name, with the names that they have."""
    said = ", ".join(f"{name} ({count(number, 'class')})" for name, number in sorted(classes.items()))
    have = f"StorageClasses have {said}" if said else "the cluster has no StorageClass"
    return f"no StorageClass has the provisioner {provisioner}; {have}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One export that a command read."""

    export: str
    has_ledger: bool = True
    records: int = 0
    archives: int = 0
    clusters: int = 0

    def __str__(self) -> str:
        """Return it as text."""
        if not self.has_ledger:
            return f"export {self.export}: no ledger: no volume was ever created on it, or the ledger is lost"
        records, archives = count(self.records, "volume record"), count(self.archives, "archive record")
        return f"export {self.export}: {records}, {archives}, {count(self.clusters, 'cluster')}"


def seen(export: str, records: Mapping[str, Record], archives: Mapping[str, ArchiveRecord]) -> Seen:
    """Count what the ledger of an export has."""
    clusters = {each.cluster for each in records.values()} | {each.was.cluster for each in archives.values()}
    return Seen(export=export, records=len(records), archives=len(archives), clusters=len(clusters))


@dataclass(frozen=True, slots=True)
class Unseen:
    """An export or StorageClass that had to be skipped, as `export nas:/x` or `StorageClass nfs`, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        """Return it as text."""
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All that a command looked at, and all that it had to skip."""

    provisioner: str
    classes: Mapping[str, int] | None = None
    """The number of StorageClasses per provisioner; None if the API server was not asked."""
    exports: Sequence[Seen] = ()
    unseen: Sequence[Unseen] = ()

    def but(self, unseen: Iterable[Unseen]) -> Scope:
        """Return the scope without exports that turned out later not to answer."""
        missed = tuple(unseen)
        exports = [each for each in self.exports if f"export {each.export}" not in {other.what for other in missed}]
        return replace(self, exports=exports, unseen=(*self.unseen, *missed))

    @property
    def status(self) -> int:
        """The exit status for this scope alone."""
        if self.unseen:
            return NOT_SEEN
        return FOUND if self.exports else NOTHING

    def lines(self) -> list[str]:
        """Return the lines to print before a result, one per export."""
        if self.status == NOTHING:
            return [f"nothing to look at: {self._no_class}, and no --export is given"]
        named = f"provisioner {self.provisioner}"
        if self.classes is not None:
            number = self.classes.get(self.provisioner, 0)
            named += f": {count(number, 'StorageClass')}" if number else f": {self._no_class}"
        return [
            named,
            *(f"looked at {each}" for each in self.exports),
            *(f"skipped {each}" for each in self.unseen),
        ]

    @property
    def _no_class(self) -> str:
        if self.classes is None:
            return "no cluster was asked for StorageClasses"
        return no_class(self.provisioner, self.classes)

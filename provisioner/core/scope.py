"""What a command looked at, in words, so that "nothing found" and "looked nowhere" can be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from provisioner.core.records import ArchiveRecord, Record

FOUND, NOT_SEEN, NOTHING = 0, 1, 2
"""Exit statuses: it looked at everything; it could not, or not everywhere; there was nothing to look at."""


def count(number: int, noun: str) -> str:
    """`1 volume`, `2 volumes`, `2 StorageClasses`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}es" if noun.endswith("s") else f"{number} {noun}s"


def no_class(provisioner: str, classes: Mapping[str, int]) -> str:
    """That no StorageClass has a provisioner's name, and which names they do have, with how many each."""
    said = ", ".join(f"{name} ({count(number, 'class')})" for name, number in sorted(classes.items()))
    have = f"StorageClasses have {said}" if said else "the cluster has no StorageClass"
    return f"no StorageClass has the provisioner {provisioner}; {have}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One export that was looked at."""

    export: str
    has_ledger: bool = True
    records: int = 0
    archives: int = 0
    clusters: int = 0

    def __str__(self) -> str:
        """In words."""
        if not self.has_ledger:
            return f"export {self.export}: it has no ledger: no volume was ever made on it, or its ledger is lost"
        records, archives = count(self.records, "volume record"), count(self.archives, "archive record")
        return f"export {self.export}: {records}, {archives}, {count(self.clusters, 'cluster')}"


def seen(export: str, records: Mapping[str, Record], archives: Mapping[str, ArchiveRecord]) -> Seen:
    """An export by what its ledger has."""
    clusters = {each.cluster for each in records.values()} | {each.was.cluster for each in archives.values()}
    return Seen(export=export, records=len(records), archives=len(archives), clusters=len(clusters))


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be looked at: `export nas:/x`, or `StorageClass nfs`."""

    what: str
    why: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All that a command looked at, and what it could not look at."""

    provisioner: str
    classes: Mapping[str, int] | None = None
    """How many StorageClasses each provisioner has; None where the API server was not asked."""
    exports: Sequence[Seen] = ()
    unseen: Sequence[Unseen] = ()

    def but(self, unseen: Iterable[Unseen]) -> Scope:
        """The same, without exports that turned out not to answer later."""
        missed = tuple(unseen)
        exports = [each for each in self.exports if f"export {each.export}" not in {other.what for other in missed}]
        return replace(self, exports=exports, unseen=(*self.unseen, *missed))

    @property
    def status(self) -> int:
        """The exit status that this alone comes to."""
        if self.unseen:
            return NOT_SEEN
        return FOUND if self.exports else NOTHING

    def lines(self) -> list[str]:
        """What to tell before a result, one line an export."""
        if self.status == NOTHING:
            return [f"nothing to look at: {self._no_class}, and no --export is given"]
        named = f"provisioner {self.provisioner}"
        if self.classes is not None:
            ours = self.classes.get(self.provisioner, 0)
            named += f": {count(ours, 'StorageClass')}" if ours else f": {self._no_class}"
        return [
            named,
            *(f"looked at {each}" for each in self.exports),
            *(f"not looked at: {each}" for each in self.unseen),
        ]

    @property
    def _no_class(self) -> str:
        if self.classes is None:
            return "no cluster was asked for StorageClasses"
        return no_class(self.provisioner, self.classes)

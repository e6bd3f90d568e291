"""Sums over the store, kept as objects change: a scrape of the metrics does not walk ten thousand volumes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TypeVar, cast

from provisioner.core.errors import InvalidQuantity
from provisioner.core.objects import Claim, Volume
from provisioner.core.quantities import parse_bytes
from provisioner.ports.cluster import AnyItem, Kind

Key = TypeVar("Key")


class Tally:
    """Of the volumes of one provisioner, and of the claims that wait for it."""

    def __init__(self, provisioner: str) -> None:
        self._provisioner = provisioner
        self._volumes: Counter[tuple[str, str]] = Counter()
        self._capacities: Counter[str] = Counter()
        self._pending: defaultdict[str, dict[str, str]] = defaultdict(dict)

    @property
    def volumes(self) -> Mapping[tuple[str, str], int]:
        """How many volumes there are, by class and phase."""
        return self._volumes

    @property
    def capacity_bytes(self) -> Mapping[str, int]:
        """The sum of their capacities, by class."""
        return self._capacities

    @property
    def pending(self) -> Mapping[str, Mapping[str, str]]:
        """When each claim without a volume was made, by class and uid; any class, for a tenant may write any name."""
        return self._pending

    def changed(self, kind: Kind, before: AnyItem | None, after: AnyItem | None) -> None:
        """A listener of the store."""
        if kind == "volumes":
            self._volume(cast("Volume | None", before), cast("Volume | None", after))
        elif kind == "claims":
            self._claim(cast("Claim | None", before), cast("Claim | None", after))

    def _volume(self, before: Volume | None, after: Volume | None) -> None:
        was, is_now = self._counted(before), self._counted(after)
        if was == is_now:
            return
        for counted, sign in ((was, -1), (is_now, 1)):
            if counted is not None:
                storage_class, phase, capacity = counted
                _add(self._volumes, (storage_class, phase), sign)
                _add(self._capacities, storage_class, sign * _bytes(capacity))

    def _claim(self, before: Claim | None, after: Claim | None) -> None:
        if before is not None and self._waits(before):
            waiting = self._pending[before.class_name]
            waiting.pop(before.uid, None)
            if not waiting:
                del self._pending[before.class_name]
        if after is not None and self._waits(after):
            self._pending[after.class_name][after.uid] = after.metadata.creation_timestamp

    def _counted(self, volume: Volume | None) -> tuple[str, str, str] | None:
        if volume is None or not volume.is_by(self._provisioner):
            return None
        return volume.spec.storage_class_name, volume.status.phase, volume.capacity

    def _waits(self, claim: Claim) -> bool:
        return claim.is_for(self._provisioner) and not claim.spec.volume_name


def _add(counter: Counter[Key], key: Key, count: int) -> None:
    """What comes to nothing is no series."""
    counter[key] += count
    if not counter[key]:
        del counter[key]


def _bytes(capacity: str) -> int:
    """An unreadable quantity counts as 0: a metric must not stop the store from taking the object."""
    try:
        return parse_bytes(capacity)
    except InvalidQuantity:
        return 0

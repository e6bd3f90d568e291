"""Gauges over the cache.

The sums are updated as objects change, so that a scrape does not walk ten thousand volumes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.context import ControllerContext
from provisioner.core import times
from provisioner.core.errors import InvalidQuantity
from provisioner.core.objects import Claim, Volume
from provisioner.core.quantities import parse_bytes
from provisioner.telemetry.metrics import Sample

Key = TypeVar("Key")


@contextmanager
def sampled(
    ctx: ControllerContext, *, queue_depths: Callable[[], Sample], volume_metrics: bool = False
) -> Iterator[None]:
    """Add the gauges that count cached objects, kept up to date while the context is open.

    Read at each scrape. `volume_metrics` adds those of single volumes.
    """
    cache, clock, metrics, tally = ctx.cache, ctx.clock, ctx.metrics, Tally(ctx.provisioner)

    def volumes() -> Sample:
        return {(name, phase): count for (name, phase), count in tally.volumes.items()}

    def capacity() -> Sample:
        return {(name,): capacity_bytes for name, capacity_bytes in tally.capacity_bytes.items()}

    def pending() -> dict[str, Collection[str]]:
        """Return when pending claims were created, by class; existing ones only, as tenants can write any name."""
        return {name: created.values() for name, created in tally.pending.items() if name in cache.classes}

    def counts() -> Sample:
        return {(name,): len(created) for name, created in pending().items()}

    def ages_s() -> Sample:
        oldest = {(name,): times.parse(min(created)) for name, created in pending().items()}
        return {label: (clock.now() - at).total_seconds() for label, at in oldest.items() if at is not None}

    def silence_s() -> Sample:
        return ctx.usage.silence_s(ctx.cluster.server_time() or clock.now())

    metrics.sample("claims_pending", "Claims that have no volume yet.", ("class",), counts)
    metrics.sample("claim_pending_seconds", "Age of the oldest claim that has no volume yet.", ("class",), ages_s)
    metrics.sample(
        "claims_failing", "Pending claims by the reason of their last failed attempt.", ("class", "reason"),
        ctx.failing.counts,
    )  # fmt: skip
    metrics.sample("volumes", "Volumes of this provisioner.", ("class", "phase"), volumes)
    metrics.sample("capacity_bytes", "Sum of the capacities of this provisioner's volumes.", ("class",), capacity)
    metrics.sample(
        "volumes_nearly_full", "Volumes that use at least this percentage of their limit.", ("export", "percent"),
        ctx.usage.nearly_full,
    )  # fmt: skip
    metrics.sample(
        "quota_heartbeat_age_seconds", "Seconds since the last heartbeat of the export's quota agent.", ("export",),
        silence_s,
    )  # fmt: skip
    if volume_metrics:
        of = ("namespace", "persistentvolumeclaim")
        metrics.sample("volume_used_bytes", "Bytes that the volume of a claim uses.", of, ctx.usage.used)
        metrics.sample("volume_limit_bytes", "Limit in force of the volume of a claim, in bytes.", of, ctx.usage.limits)
    metrics.sample("queue_depth", "Keys that wait for a worker.", ("queue",), queue_depths)
    with tally.subscribed(cache):
        yield


class Tally:
    """Counts and sums of the volumes of one provisioner, and of the claims that wait for it."""

    def __init__(self, provisioner: str) -> None:
        self._provisioner = provisioner
        self._volumes: Counter[tuple[str, str]] = Counter()
        self._capacities: Counter[str] = Counter()
        self._pending: defaultdict[str, dict[str, str]] = defaultdict(dict)

    @property
    def volumes(self) -> Mapping[tuple[str, str], int]:
        """The number of volumes by class and phase."""
        return self._volumes

    @property
    def capacity_bytes(self) -> Mapping[str, int]:
        """The sum of their capacities, by class."""
        return self._capacities

    @property
    def pending(self) -> Mapping[str, Mapping[str, str]]:
        """When each pending claim was created, by class and uid.

        Any class name, since tenants can write any.
        """
        return self._pending

    @contextmanager
    def subscribed(self, cache: ClusterCache) -> Iterator[None]:
        """Count the objects of the cache while the context is open."""
        with (
            cache.claims.subscribed(
                on_added=lambda claim: self.count_claim(None, claim),
                on_updated=self.count_claim,
                on_deleted=lambda claim: self.count_claim(claim, None),
            ),
            cache.volumes.subscribed(
                on_added=lambda volume: self.count_volume(None, volume),
                on_updated=self.count_volume,
                on_deleted=lambda volume: self.count_volume(volume, None),
            ),
        ):
            yield

    def count_volume(self, before: Volume | None, after: Volume | None) -> None:
        """Count what a volume is now instead of what it was before; None where there is none."""
        was, is_now = self._counted(before), self._counted(after)
        if was == is_now:
            return
        for counted, sign in ((was, -1), (is_now, 1)):
            if counted is not None:
                storage_class, phase, capacity = counted
                _add(self._volumes, (storage_class, phase), sign)
                _add(self._capacities, storage_class, sign * _bytes(capacity))

    def count_claim(self, before: Claim | None, after: Claim | None) -> None:
        """The same for a claim."""
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
    """Add to a counter; a key that comes to 0 is dropped, so that it has no series."""
    counter[key] += count
    if not counter[key]:
        del counter[key]


def _bytes(capacity: str) -> int:
    """An unreadable quantity counts as 0: a metric must not keep an object out of the cache."""
    try:
        return parse_bytes(capacity)
    except InvalidQuantity:
        return 0

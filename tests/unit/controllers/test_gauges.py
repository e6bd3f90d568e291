"""controllers.gauges: the sums always match the cache."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.gauges import Tally
from provisioner.core.objects import Claim, NfsSource, Volume
from provisioner.core.quantities import parse_bytes
from provisioner.runtime.informer import Informer
from tests.support import samples

CLASSES, PHASES, SIZES = ("nfs", "other"), ("Bound", "Released"), ("1Gi", "2Gi", "1500M")


def volume(name: str, storage_class: str, phase: str, size: str, *, ours: bool) -> Volume:
    made = samples.volume(name=name, phase=phase, nfs=NfsSource("nas", f"/exports/{name}"))
    spec = msgspec.structs.replace(made.spec, storage_class_name=storage_class, capacity={"storage": size})
    annotations = made.metadata.annotations if ours else {}
    metadata = msgspec.structs.replace(made.metadata, annotations=annotations)
    return msgspec.structs.replace(made, spec=spec, metadata=metadata)


def claim(uid: str, storage_class: str, volume_name: str) -> Claim:
    made = samples.claim(uid=uid)
    spec = msgspec.structs.replace(made.spec, storage_class_name=storage_class, volume_name=volume_name)
    return msgspec.structs.replace(made, spec=spec)


VOLUMES = st.builds(
    volume,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(CLASSES),
    st.sampled_from(PHASES),
    st.sampled_from(SIZES),
    ours=st.booleans(),
)
CLAIMS = st.builds(claim, st.sampled_from(["1", "2", "3"]), st.sampled_from(CLASSES), st.sampled_from(["", "v"]))


@given(st.lists(st.tuples(VOLUMES | CLAIMS, st.sampled_from(["apply", "delete", "list"])), max_size=40))
def test_the_sums_match_the_cache(steps: list[tuple[Volume | Claim, str]]) -> None:
    """After any changes and lists each sum is what a walk over the cache finds, and no empty series remains."""
    cache, tally = ClusterCache(samples.US), Tally(samples.US)
    with tally.subscribed(cache):
        for item, how in steps:
            informer: Informer[Any] = cache.volumes if isinstance(item, Volume) else cache.claims
            if how == "list":
                informer.replace([item])
            else:
                informer.apply(item, deleted=how == "delete")
    ours = [each for each in cache.volumes.values() if each.is_by(samples.US)]
    assert tally.volumes == Counter((each.spec.storage_class_name, each.status.phase) for each in ours)
    capacities: Counter[str] = Counter()
    for each in ours:
        capacities[each.spec.storage_class_name] += parse_bytes(each.capacity)
    assert tally.capacity_bytes == capacities
    waiting = [each for each in cache.claims.values() if not each.spec.volume_name]
    found = {(name, uid) for name, made in tally.pending.items() for uid in made}
    assert found == {(each.class_name, each.uid) for each in waiting}
    assert all(tally.pending.values())


def test_an_invalid_capacity_counts_as_zero() -> None:
    """An invalid size neither raises nor counts."""
    tally = Tally(samples.US)
    odd = volume("a", "nfs", "Bound", "much", ours=True)
    tally.count_volume(None, odd)
    assert (dict(tally.volumes), dict(tally.capacity_bytes)) == ({("nfs", "Bound"): 1}, {})
    tally.count_volume(odd, None)
    assert not tally.volumes

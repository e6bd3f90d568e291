"""runtime.transform: the fields that the cache keeps; nothing outlives its object."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec import structs

from provisioner.core import claims, expansion, names, takeover, volumes
from provisioner.core.claims import ClaimView
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, ClaimStatus, DataSource, NotKept, Resources, StorageClass, Volume
from provisioner.runtime.informer import Informer
from provisioner.runtime.transform import CacheTransform
from tests.support import samples

KIB, MIB = 1 << 10, 1 << 20

Item = TypeVar("Item", Claim, Volume)


@contextmanager
def held(limit_bytes: int) -> Iterator[None]:
    """Fail if the block holds more than this many bytes at its end than at its begin."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        gc.collect()
        more = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert more < limit_bytes, f"{more / KIB:.0f} KiB"


def decoded(item: Item) -> Item:
    """The object as the API server sends it: no part is shared with another one."""
    return msgspec.json.decode(msgspec.json.encode(item), type=type(item))


def informer() -> Informer[Claim]:
    """The claims as the daemon caches them."""
    return Informer("claims", key=lambda claim: claim.uid, transform=CacheTransform().claim)


def _metadata(claim: Claim, **change: object) -> Claim:
    return structs.replace(claim, metadata=structs.replace(claim.metadata, **change))


def _spec(claim: Claim, **change: object) -> Claim:
    return structs.replace(claim, spec=structs.replace(claim.spec, **change))


def _annotated(claim: Claim, **annotations: str) -> Claim:
    return _metadata(claim, annotations={**claim.metadata.annotations, **annotations})


PLACES: dict[str, Callable[[Claim, str], Claim]] = {
    "finalizers": lambda claim, long: _metadata(claim, finalizers=(long, "x.example/y")),
    "annotations": lambda claim, long: _annotated(claim, x=long),
    "the annotation of the class": lambda claim, long: _annotated(claim, **{names.CLASS_ANNOTATION: long}),
    "the annotation of the archive": lambda claim, long: _annotated(claim, **{names.RESTORE: long}),
    "labels": lambda claim, long: _metadata(claim, labels={"x": long}),
    "a resource": lambda claim, long: _spec(claim, resources=Resources({"storage": "1Gi", long: "1"})),
    "the data's source": lambda claim, long: _spec(claim, data_source_ref=DataSource(long, long)),
    "the selector": lambda claim, long: _spec(claim, selector={"matchLabels": {"x": long}}),
}
"""The places where tenants can write much."""


@pytest.mark.parametrize("phase", ["Bound", "Pending"])
@pytest.mark.parametrize("place", PLACES)
def test_what_a_tenant_patches_goes(place: str, phase: str) -> None:
    """150 patches of 150 KiB each of one claim leave nothing behind, neither while it exists nor afterwards."""
    cached = informer()
    claim = samples.claim(status=ClaimStatus(phase=phase))
    cached.apply(claim, deleted=False)
    with held(64 * KIB):
        for number in range(150):
            patched = PLACES[place](claim, f"{number:04d}" + "y" * (150 * KIB))
            cached.apply(decoded(patched), deleted=False)
        del patched
    assert len(cached) == 1


def test_many_small_patches() -> None:
    """The shared parts are bounded as well: ever new small values leave less than a MiB."""
    cached = informer()
    with held(MIB):
        for number in range(5_000):
            spec = structs.replace(
                samples.claim_spec(size=str(number)), storage_class_name=f"class-{number}" + "y" * 200
            )
            cached.apply(decoded(samples.claim(spec=spec)), deleted=False)
        cached.apply(samples.claim(), deleted=True)


def test_pending_claims_of_tenants_who_write_much() -> None:
    """A thousand pending claims with 200 KiB of annotations each take no more memory than others."""
    cached = informer()
    with held(4 * MIB):
        for number in range(1000):
            claim = samples.claim(uid=f"uid-{number}", annotations={f"x.example/{number}": "y" * 200 * KIB})
            cached.apply(decoded(claim), deleted=False)
    assert len(cached) == 1000


def test_equal_parts_are_one() -> None:
    """Claims or volumes that differ only in name and directory share everything else."""
    slimmer = CacheTransform()
    first, second = (slimmer.volume(decoded(samples.volume(name=name))) for name in "ab")
    for part in ("capacity", "access_modes", "mount_options", "storage_class_name"):
        assert getattr(first.spec, part) is getattr(second.spec, part)
    one, other = (slimmer.claim(decoded(samples.claim(uid=uid))) for uid in "ab")
    assert one.metadata.annotations is other.metadata.annotations
    assert one.spec.resources is other.spec.resources


# ------------------------------------------------------------------------------------------- what rules read


def view(claim: Claim, storage_class: StorageClass | None) -> ClaimView:
    return ClaimView(
        provisioner=samples.US,
        claim=claim,
        storage_class=storage_class,
        volume=None,
        default_export=Location("nas", "/exports"),
        holder=lambda export, path: None,
        now="2026-01-01T00:00:00Z",
    )


def various_claims() -> list[Claim]:
    """A claim of each kind that the rules distinguish."""
    claim = samples.claim()
    spec, bound = claim.spec, ClaimStatus(phase="Bound", capacity={"storage": "1Gi"})
    resizing = structs.replace(
        bound, allocated_resource_statuses={"storage": "x"}, allocated_resources={"storage": "2Gi"}
    )
    sourced = structs.replace(spec, data_source=DataSource("x", "y"))
    grown = structs.replace(spec, resources=Resources({"storage": "2Gi"}), volume_name="v")
    return [
        claim,
        samples.claim(deleted=True),
        samples.claim(provisioner="other/one"),
        samples.claim(annotations={names.CLASS_ANNOTATION: "other"}),
        samples.claim(annotations={names.SELECTED_NODE_ANNOTATIONS[0]: "node"}),
        samples.claim(annotations={names.RESTORE: "archived-x"}),
        samples.claim(annotations=dict.fromkeys(names.ACCESS_OF_NFS_SUBDIR, "7")),
        samples.claim(annotations={names.RESTORE: "archived-x"}, spec=sourced),
        samples.claim(spec=structs.replace(spec, volume_mode="Block")),
        samples.claim(spec=structs.replace(spec, selector={})),
        samples.claim(spec=structs.replace(spec, selector={"matchLabels": {"a": "b"}})),
        samples.claim(spec=structs.replace(spec, data_source_ref=DataSource("VolumeSnapshot", "x", "y"))),
        samples.claim(spec=samples.claim_spec(size="")),
        samples.claim(status=bound, spec=grown),
        samples.claim(status=resizing, spec=grown),
    ]  # fmt: skip


@pytest.mark.parametrize("binding", ["Immediate", "WaitForFirstConsumer"])
@pytest.mark.parametrize("claim", various_claims())
def test_rules_of_claims_read_what_is_kept(claim: Claim, binding: str) -> None:
    """A rule decides the same for a cached claim as for the whole one; reading a stripped field would raise."""
    cached, storage_class = CacheTransform().claim(claim), samples.storage_class(binding=binding)
    assert type(claims.decide(view(cached, storage_class))) is type(claims.decide(view(claim, storage_class)))
    if claim.status.phase == "Pending":
        assert claims.provisioning_message(cached) == claims.provisioning_message(claim)
    assert claims.is_unfinished(cached) == claims.is_unfinished(claim)
    assert cached.class_name == claim.class_name
    assert cached.requested == claim.requested
    volume = samples.volume(phase="Bound")
    arguments = (volume, samples.US, "2026-01-01T00:00:00Z")
    assert expansion.decide(cached, *arguments) == expansion.decide(claim, *arguments)


@pytest.mark.parametrize(
    "volume",
    [
        samples.volume(),
        samples.volume(phase="Bound"),
        samples.volume(policy="Retain"),
        samples.volume(deleted=True),
        samples.peers_volume(),
        samples.csi_volume({"Server": "nas", "share": "/exports", "subDir": "a", "csi.storage.k8s.io/pv/name": "pv1"}),
    ],
)
def test_rules_of_volumes_read_what_is_kept(volume: Volume) -> None:
    """A rule decides the same for a cached volume as for the whole one."""
    cached = CacheTransform().volume(volume)
    assert volumes.decide(cached, samples.US) == volumes.decide(volume, samples.US)
    assert takeover.is_of_nfs_subdir(cached, samples.US) == takeover.is_of_nfs_subdir(volume, samples.US)
    assert (cached.is_marked, cached.capacity, cached.source) == (volume.is_marked, volume.capacity, volume.source)


def test_what_is_not_kept_cannot_be_read() -> None:
    """Reading a stripped field raises: it must never look like an absent one."""
    cached = CacheTransform().claim(samples.claim(labels={"team": "red"}))
    driven: Any = CacheTransform().volume(samples.csi_volume({"x.example/y": "z"}))
    for read in (
        lambda: cached.metadata.labels.get("team"),
        lambda: cached.metadata.labels["team"],
        lambda: "team" in cached.metadata.labels,
        lambda: cached.metadata.annotations.get("x.example/team"),
        lambda: cached.spec.resources.requests.get("cpu"),
        lambda: "x.example/finalizer" in cached.metadata.finalizers,
        lambda: list(cached.metadata.finalizers),
        lambda: CacheTransform().volume(samples.volume()).metadata.annotations.get("x.example/y"),
        lambda: driven.spec.csi.volume_attributes.get("x.example/y"),
    ):
        with pytest.raises(NotKept):
            read()

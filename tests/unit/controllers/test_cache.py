"""controllers.cache: which objects are cached, and which volume uses a directory."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.controllers.cache import ClusterCache
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, ClaimRef, NfsSource, Volume
from tests.support import samples

NAS = Location("nas", "/exports")


def at(path: str, *, name: str = "v1", server: str = "nas") -> Volume:
    return samples.volume(name=name, nfs=NfsSource(server, path))


def holding(*volumes: Volume) -> ClusterCache:
    cache = ClusterCache(samples.US)
    cache.volumes.replace(volumes)
    return cache


@pytest.mark.parametrize("first", ["claims", "volumes"])
def test_a_claim_and_its_volume_share_their_texts(first: str) -> None:
    """Names and uids that a claim and its volume have in common are in memory once, whichever comes first."""
    cache = ClusterCache(samples.US)

    def claim() -> Claim:
        spec = structs.replace(samples.claim_spec(), volume_name="".join(["v", "1"]))
        return samples.claim(uid="".join(["uid", "-1"]), spec=spec)

    def volume() -> Volume:
        reference = ClaimRef(claim().metadata.namespace, "".join(claim().metadata.name), claim().uid)
        found = at("/exports/a", name="".join(["v", "1"]))
        return structs.replace(found, spec=structs.replace(found.spec, claim_ref=reference))

    def take_claim() -> None:
        cache.claims.apply(claim(), deleted=False)

    def take_volume() -> None:
        cache.volumes.apply(volume(), deleted=False)

    for take in (take_claim, take_volume) if first == "claims" else (take_volume, take_claim):
        take()
    (held,), (its,) = cache.claims.values(), cache.volumes.values()
    assert its.spec.claim_ref is not None
    assert its.spec.claim_ref.uid is held.uid
    assert its.spec.claim_ref.name is held.metadata.name
    assert its.name is held.spec.volume_name
    # The next versions of both keep these texts.
    take_claim()
    take_volume()
    (later,), (its_later,) = cache.claims.values(), cache.volumes.values()
    assert later.uid is held.uid
    assert its_later.name is its.name
    assert its_later.metadata.uid is its.metadata.uid


@pytest.mark.parametrize("first", ["claims", "volumes"])
async def test_lists_side_by_side_share_their_texts(first: str) -> None:
    """The lists of claims and volumes share texts while both are on their way; one that is given up leaves nothing."""
    cache = ClusterCache(samples.US)
    spec = structs.replace(samples.claim_spec(), volume_name="".join(["v", "1"]))
    claim = samples.claim(uid="".join(["uid", "-1"]), spec=spec)
    reference = ClaimRef(claim.metadata.namespace, "".join(claim.metadata.name), "".join(["uid", "-1"]))
    volume = at("/exports/a", name="".join(["v", "1"]))
    volume = structs.replace(volume, spec=structs.replace(volume.spec, claim_ref=reference))
    cache.claims.listing().add([claim])
    assert cache.claims.get(claim.uid) is None
    claims, volumes = cache.claims.listing(), cache.volumes.listing()
    assert cache.claims.newest(claim.uid) is None
    if first == "claims":
        claims.add([claim])
        volumes.add([volume])
    else:
        volumes.add([volume])
        claims.add([claim])
    await claims.complete()
    await volumes.complete()
    (held,), (its,) = cache.claims.values(), cache.volumes.values()
    assert its.spec.claim_ref is not None
    assert its.spec.claim_ref.uid is held.uid
    assert its.name is held.spec.volume_name
    assert cache.claims.newest(claim.uid) is held


def test_what_is_kept() -> None:
    """Claims of this provisioner, volumes on NFS and all classes are cached, nothing else."""
    cache = ClusterCache(samples.US)
    ours, other = samples.claim(), samples.claim(uid="x", provisioner="other/one")
    cache.claims.replace([ours, other])
    cache.volumes.replace([at("/exports/a"), samples.volume(name="disk", nfs=None)])
    cache.classes.replace([samples.storage_class()])
    assert cache.claims == {samples.UID: ours}
    assert set(cache.volumes) == {"v1"}
    assert set(cache.classes) == {"nfs"}


def test_a_claim_that_no_provisioner_was_asked_for() -> None:
    """A claim that the cluster bound to an existing volume, such as a recovered one, is cached: it can grow."""
    cache = ClusterCache(samples.US)
    matched = samples.claim(uid="a", provisioner="", spec=samples.claim_spec(volume_name="v1"))
    others = samples.claim(uid="b", provisioner="other/one", spec=samples.claim_spec(volume_name="v2"))
    cache.claims.replace([matched, others, samples.claim(uid="c", provisioner="")])
    assert cache.claims == {"a": matched}


def test_a_claim_that_is_handed_back() -> None:
    """A claim that loses the annotation of the provisioner, as the scheduler may do, is no longer cached."""
    cache = ClusterCache(samples.US)
    cache.claims.apply(samples.claim(), deleted=False)
    cache.claims.apply(samples.claim(provisioner=""), deleted=False)
    assert cache.claims == {}


def test_a_claim_that_is_created_again() -> None:
    """A claim that is deleted and created again under its name is another one."""
    cache = ClusterCache(samples.US)
    cache.claims.apply(samples.claim(uid="old"), deleted=False)
    cache.claims.apply(samples.claim(uid="new"), deleted=False)
    assert set(cache.claims) == {"old", "new"}
    cache.claims.apply(samples.claim(uid="old"), deleted=True)
    assert set(cache.claims) == {"new"}


def test_a_list_replaces() -> None:
    """A volume that a list does not contain is gone, and its directory is free."""
    cache = holding(at("/exports/a", name="v1"), at("/exports/b", name="v2"))
    cache.volumes.replace([at("/exports/b", name="v2")])
    assert set(cache.volumes) == {"v2"}
    assert cache.holder(NAS, ("a",)) is None
    assert cache.holder(NAS, ("b",)) == at("/exports/b", name="v2")


def test_missing() -> None:
    """A kind is missing until it has been listed; single changes do not count."""
    cache = ClusterCache(samples.US)
    cache.classes.replace([])
    cache.volumes.replace([])
    cache.claims.apply(samples.claim(), deleted=False)
    assert cache.missing == ["claims"]
    cache.claims.replace([])
    assert cache.missing == []


@pytest.mark.parametrize(
    ("path", "held"),
    [
        (("a", "b"), True),
        (("a",), True),
        (("a", "b", "c"), True),
        (("a", "c"), False),
        (("ab",), False),
    ],
)
def test_holder(path: RelPath, held: bool) -> None:
    """A directory is held by a volume that uses it, or one above or below it, however the path is spelled."""
    cache = holding(at("//exports/a/b/", server="NAS"))
    assert (cache.holder(NAS, path) is not None) == held
    assert cache.holder(NAS, path, other_than="v1") is None
    assert cache.holder(Location("other", "/exports"), path) is None


@pytest.mark.parametrize("path", ["/", "/exports", "/exports/"])
def test_volumes_of_the_whole_export(path: str) -> None:
    """A volume of the whole export, or of more, as admins create to look around, holds no directory."""
    assert holding(at(path)).holder(NAS, ("a",)) is None


def test_volumes_of_csi_driver_nfs() -> None:
    """A volume of csi-driver-nfs holds its directory as well; only the attributes for that are cached."""
    place = {"server": "nas", "share": "/exports", "subDir": "team/a"}
    cache = holding(samples.csi_volume({**place, "csi.storage.k8s.io/pv/name": "x"}))
    assert cache.holder(NAS, ("team",)) == samples.csi_volume(place)
    assert [volume.name for volume in cache.on_export(NAS)] == ["csi"]
    cache.volumes.apply(samples.csi_volume(place), deleted=True)
    assert cache.holder(NAS, ("team",)) is None
    cache.volumes.apply(samples.csi_volume({"server": "nas", "share": "/exports"}, driver="x"), deleted=False)
    assert cache.volumes == {}


def test_exports_within_exports() -> None:
    """A volume on an export that lies within another one holds its directory on both."""
    cache = holding(at("/exports/team/a"))
    assert cache.holder(Location("nas", "/exports/team"), ("a",)) is not None
    assert cache.holder(NAS, ("team",)) is not None
    assert cache.holder(Location("nas", "/"), ("exports", "team", "a", "x")) is not None


def test_a_volume_of_the_same_name_elsewhere() -> None:
    """A volume that follows another one under its name holds its own directory, not the other's."""
    cache = holding(at("/exports/a"))
    cache.volumes.apply(at("/exports/b"), deleted=False)
    assert cache.holder(NAS, ("a",)) is None
    assert cache.holder(NAS, ("b",)) is not None
    cache.volumes.apply(msgspec.structs.replace(at("/exports/b"), spec=samples.volume(nfs=None).spec), deleted=False)
    assert cache.holder(NAS, ("b",)) is None


def test_on_export() -> None:
    """The volumes on an export are those whose directories lie below its root."""
    cache = holding(at("/exports/a", name="v1"), at("/exports", name="v2"), at("/other/a", name="v3"))
    assert [volume.name for volume in cache.on_export(NAS)] == ["v1"]


VOLUMES = st.builds(
    lambda name, path: at("/exports/" + path, name=name),
    st.sampled_from(["v1", "v2", "v3"]),
    st.sampled_from(["a", "a/b", "b"]),
)
CHANGES = st.lists(st.one_of(st.tuples(VOLUMES, st.booleans()), st.lists(VOLUMES, max_size=3)), max_size=20)


@given(CHANGES)
def test_index_and_cache_agree(changes: list[tuple[Volume, bool] | list[Volume]]) -> None:
    """After any lists and changes a directory is held exactly while a cached volume touches it."""
    cache = ClusterCache(samples.US)
    for change in changes:
        if isinstance(change, list):
            cache.volumes.replace(change)
        else:
            cache.volumes.apply(change[0], deleted=change[1])
    paths = {volume.spec.nfs.path for volume in cache.volumes.values() if volume.spec.nfs is not None}
    assert (cache.holder(NAS, ("a", "b")) is None) == paths.isdisjoint({"/exports/a", "/exports/a/b"})
    assert (cache.holder(NAS, ("b",)) is None) == ("/exports/b" not in paths)


def test_has_volumes() -> None:
    """An export has volumes while any directory lies below its root; an empty server leaves nothing behind."""
    cache = holding(at("/exports/a/b", name="v1"), at("/exports", name="v2", server="whole"))
    assert [cache.has_volumes(Location("nas", path)) for path in ("/", "/exports", "/exports/a")] == [True] * 3
    assert not cache.has_volumes(Location("nas", "/exports/a/b"))
    assert not cache.has_volumes(Location("other", "/"))
    assert not cache.has_volumes(Location("whole", "/exports"))
    cache.volumes.replace([])
    assert not cache.has_volumes(Location("nas", "/"))


def test_holder_by_another_name_of_the_export() -> None:
    """If two locations lead to one export, a volume of any creator holds its directory by both."""
    by_address = Location("10.0.0.5", "/srv")
    cache = holding(at("/exports/a/b"))
    assert cache.holder(by_address, ("a",)) is None
    assert list(cache.on_export(by_address)) == []
    cache.places.unite(NAS, by_address)
    for path in (("a",), ("a", "b"), ("a", "b", "c")):
        assert cache.holder(by_address, path) is cache.volumes["v1"]
    assert cache.holder(by_address, ("a", "b"), other_than="v1") is None
    assert cache.holder(by_address, ("b",)) is None
    assert list(cache.on_export(by_address)) == [cache.volumes["v1"]]


def test_holder_on_a_server_that_ignores_case() -> None:
    """If the server ignores case, a volume holds its directory in all spellings; otherwise they are different."""
    cache = holding(at("/exports/Team/caf\u00e9", name="v1"))
    wanted = [("team",), ("TEAM", "CAFE\u0301"), ("team", "caf\u00e9", "inside")]
    assert [cache.holder(NAS, path) for path in wanted] == [None] * 3
    cache.places.note(NAS, folds=True)
    assert [cache.holder(NAS, path) for path in wanted] == [cache.volumes["v1"]] * 3
    assert cache.holder(NAS, ("teams",)) is None
    cache.volumes.apply(at("/exports/Other", name="v2"), deleted=False)
    assert cache.holder(NAS, ("other",)) is cache.volumes["v2"]
    cache.volumes.apply(at("/exports/Other", name="v2"), deleted=True)
    assert cache.holder(NAS, ("other",)) is None
    cache.places.note(NAS, folds=False)
    assert [cache.holder(NAS, path) for path in wanted] == [None] * 3


def test_volumes_of_an_absolute_path() -> None:
    """Volumes of one absolute path are found on servers of any name, comparing names as the server does."""
    cache = holding(
        at("/exports/a", name="v1", server="10.0.0.5"), at("/exports/a/b", name="v2"), at("/exports/A", name="v3")
    )
    assert [volume.name for volume in cache.anywhere(NAS, ("a", "b"))] == ["v1", "v2"]
    assert list(cache.anywhere(NAS, ("b",))) == []
    cache.places.note(NAS, folds=True)
    assert [volume.name for volume in cache.anywhere(NAS, ("a", "b"))] == ["v1", "v3", "v2"]

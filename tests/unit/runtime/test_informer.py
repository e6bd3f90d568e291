"""runtime.informer."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import NfsSource, Volume
from provisioner.ports.cluster import AnyItem, Kind
from provisioner.runtime.informer import Store
from tests.support import samples

NAS = Location("nas", "/exports")
Change = tuple[Kind, AnyItem | None, AnyItem | None]


def at(path: str, *, name: str = "v1", server: str = "nas") -> Volume:
    return samples.volume(name=name, nfs=NfsSource(server, path))


def holding(*volumes: Volume) -> Store:
    store = Store(samples.US)
    store.replace("volumes", volumes)
    return store


def test_what_is_kept() -> None:
    """Our claims, volumes of NFS and all classes are kept; what is not ours to look at is not."""
    store = Store(samples.US)
    ours, other = samples.claim(), samples.claim(uid="x", provisioner="other/one")
    store.replace("claims", [ours, other])
    store.replace("volumes", [at("/exports/a"), samples.volume(name="disk", nfs=None)])
    store.replace("classes", [samples.storage_class()])
    assert store.claims == {samples.UID: ours}
    assert set(store.volumes) == {"v1"}
    assert set(store.classes) == {"nfs"}


def test_a_claim_that_no_provisioner_was_asked_for() -> None:
    """A claim that the cluster matched with a volume that was there, as a recovered one, is kept: it may grow."""
    store = Store(samples.US)
    matched = samples.claim(uid="a", provisioner="", spec=samples.claim_spec(volume_name="v1"))
    others = samples.claim(uid="b", provisioner="other/one", spec=samples.claim_spec(volume_name="v2"))
    store.replace("claims", [matched, others, samples.claim(uid="c", provisioner="")])
    assert store.claims == {"a": matched}


def test_a_claim_that_is_handed_back() -> None:
    """A claim whose annotation goes away, as the scheduler may do, is ours no longer."""
    store = Store(samples.US)
    store.apply("claims", samples.claim(), deleted=False)
    store.apply("claims", samples.claim(provisioner=""), deleted=False)
    assert store.claims == {}


def test_a_claim_made_anew() -> None:
    """A claim that is made anew under its name is another one."""
    store = Store(samples.US)
    store.apply("claims", samples.claim(uid="old"), deleted=False)
    store.apply("claims", samples.claim(uid="new"), deleted=False)
    assert set(store.claims) == {"old", "new"}
    store.apply("claims", samples.claim(uid="old"), deleted=True)
    assert set(store.claims) == {"new"}


def test_a_list_replaces() -> None:
    """What a list does not contain is gone, and its directory is free."""
    store = holding(at("/exports/a", name="v1"), at("/exports/b", name="v2"))
    store.replace("volumes", [at("/exports/b", name="v2")])
    assert set(store.volumes) == {"v2"}
    assert store.holder(NAS, ("a",)) is None
    assert store.holder(NAS, ("b",)) == at("/exports/b", name="v2")


def test_synced() -> None:
    """The store is synced once each kind has been listed, not before."""
    store = Store(samples.US)
    for kind, missing in (("classes", 2), ("volumes", 1)):
        store.replace("classes" if kind == "classes" else "volumes", [])
        assert len(store.missing) == missing
    store.apply("claims", samples.claim(), deleted=False)
    assert store.missing == ["claims"]
    store.replace("claims", [])
    assert store.missing == []


def test_listeners() -> None:
    """A listener hears of what is there, then of each change with what was before, and of nothing after it left."""
    store, heard = holding(at("/exports/a")), list[Change]()
    first, second = at("/exports/a"), samples.volume(name="v1", phase="Bound", nfs=NfsSource("nas", "/exports/a"))
    with store.listening(lambda kind, before, after: heard.append((kind, before, after))):
        store.apply("volumes", second, deleted=False)
        store.apply("volumes", second, deleted=True)
        store.apply("volumes", second, deleted=True)
    store.apply("volumes", first, deleted=False)
    assert heard == [("volumes", None, first), ("volumes", first, second), ("volumes", second, None)]


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
    """A directory is held by the volume that has it, or one above or below it, however its path is spelled."""
    store = holding(at("//exports/a/b/", server="NAS"))
    assert (store.holder(NAS, path) is not None) == held
    assert store.holder(NAS, path, other_than="v1") is None
    assert store.holder(Location("other", "/exports"), path) is None


@pytest.mark.parametrize("path", ["/", "/exports", "/exports/"])
def test_volumes_of_the_whole_export(path: str) -> None:
    """A volume of the whole export, or of more, as admins make to look around, holds no directory."""
    assert holding(at(path)).holder(NAS, ("a",)) is None


def test_volumes_of_csi_driver_nfs() -> None:
    """A volume of csi-driver-nfs holds its directory too; of what it says of itself only that is kept."""
    place = {"server": "nas", "share": "/exports", "subDir": "team/a"}
    store = holding(samples.csi_volume({**place, "csi.storage.k8s.io/pv/name": "x"}))
    assert store.holder(NAS, ("team",)) == samples.csi_volume(place)
    assert [volume.name for volume in store.on_export(NAS)] == ["csi"]
    store.apply("volumes", samples.csi_volume(place), deleted=True)
    assert store.holder(NAS, ("team",)) is None
    store.apply("volumes", samples.csi_volume({"server": "nas", "share": "/exports"}, driver="x"), deleted=False)
    assert store.volumes == {}


def test_exports_within_exports() -> None:
    """A volume on an export that lies within another holds its directory on both."""
    store = holding(at("/exports/team/a"))
    assert store.holder(Location("nas", "/exports/team"), ("a",)) is not None
    assert store.holder(NAS, ("team",)) is not None
    assert store.holder(Location("nas", "/"), ("exports", "team", "a", "x")) is not None


def test_a_volume_of_the_same_name_elsewhere() -> None:
    """A volume that follows another one under its name holds its own directory, and not the other's."""
    store = holding(at("/exports/a"))
    store.apply("volumes", at("/exports/b"), deleted=False)
    assert store.holder(NAS, ("a",)) is None
    assert store.holder(NAS, ("b",)) is not None
    store.apply("volumes", msgspec.structs.replace(at("/exports/b"), spec=samples.volume(nfs=None).spec), deleted=False)
    assert store.holder(NAS, ("b",)) is None


def test_on_export() -> None:
    """The volumes on an export are those whose directories lie below its root."""
    store = holding(at("/exports/a", name="v1"), at("/exports", name="v2"), at("/other/a", name="v3"))
    assert [volume.name for volume in store.on_export(NAS)] == ["v1"]


VOLUMES = st.builds(
    lambda name, path: at("/exports/" + path, name=name),
    st.sampled_from(["v1", "v2", "v3"]),
    st.sampled_from(["a", "a/b", "b"]),
)
CHANGES = st.lists(st.one_of(st.tuples(VOLUMES, st.booleans()), st.lists(VOLUMES, max_size=3)), max_size=20)


@given(CHANGES)
def test_index_and_cache_agree(changes: list[tuple[Volume, bool] | list[Volume]]) -> None:
    """After any lists and changes, a directory is held exactly while a volume that is there touches it."""
    store = Store(samples.US)
    for change in changes:
        if isinstance(change, list):
            store.replace("volumes", change)
        else:
            store.apply("volumes", change[0], deleted=change[1])
    paths = {volume.spec.nfs.path for volume in store.volumes.values() if volume.spec.nfs is not None}
    assert (store.holder(NAS, ("a", "b")) is None) == paths.isdisjoint({"/exports/a", "/exports/a/b"})
    assert (store.holder(NAS, ("b",)) is None) == ("/exports/b" not in paths)


def test_a_listener_that_fails() -> None:
    """A listener that raises is counted, and keeps the news from no other listener and from no later change."""
    counted: list[str] = []
    store, heard = Store(samples.US, count=counted.append), list[Change]()

    def fails(kind: Kind, before: AnyItem | None, after: AnyItem | None) -> None:
        raise RuntimeError("odd")

    store.apply("volumes", at("/exports/a"), deleted=False)
    with store.listening(fails), store.listening(lambda kind, before, after: heard.append((kind, before, after))):
        store.apply("volumes", at("/exports/a"), deleted=True)
    assert len(heard) == 2
    assert counted == ["listener", "listener"]


def test_has_volumes() -> None:
    """An export has volumes while the directory of any lies below its root; nothing is kept of a server without any."""
    store = holding(at("/exports/a/b", name="v1"), at("/exports", name="v2", server="whole"))
    assert [store.has_volumes(Location("nas", path)) for path in ("/", "/exports", "/exports/a")] == [True] * 3
    assert not store.has_volumes(Location("nas", "/exports/a/b"))
    assert not store.has_volumes(Location("other", "/"))
    assert not store.has_volumes(Location("whole", "/exports"))
    store.replace("volumes", [])
    assert not store.has_volumes(Location("nas", "/"))


def test_who_holds_a_directory_by_another_name_of_its_export() -> None:
    """Once two locations are known to lead to one export, a volume has its directory by both, of whatever maker."""
    by_address = Location("10.0.0.5", "/srv")
    store = holding(at("/exports/a/b"))
    assert store.holder(by_address, ("a",)) is None
    assert list(store.on_export(by_address)) == []
    store.places.unite(NAS, by_address)
    for path in (("a",), ("a", "b"), ("a", "b", "c")):
        assert store.holder(by_address, path) is store.volumes["v1"]
    assert store.holder(by_address, ("a", "b"), other_than="v1") is None
    assert store.holder(by_address, ("b",)) is None
    assert list(store.on_export(by_address)) == [store.volumes["v1"]]


def test_who_holds_a_directory_on_a_server_that_folds_names() -> None:
    """Where the server takes names for one, who has a directory has it in all letters; elsewhere they are two."""
    store = holding(at("/exports/Team/caf\u00e9", name="v1"))
    wanted = [("team",), ("TEAM", "CAFE\u0301"), ("team", "caf\u00e9", "inside")]
    assert [store.holder(NAS, path) for path in wanted] == [None] * 3
    store.places.note(NAS, folds=True)
    assert [store.holder(NAS, path) for path in wanted] == [store.volumes["v1"]] * 3
    assert store.holder(NAS, ("teams",)) is None
    store.apply("volumes", at("/exports/Other", name="v2"), deleted=False)
    assert store.holder(NAS, ("other",)) is store.volumes["v2"]
    store.apply("volumes", at("/exports/Other", name="v2"), deleted=True)
    assert store.holder(NAS, ("other",)) is None
    store.places.note(NAS, folds=False)
    assert [store.holder(NAS, path) for path in wanted] == [None] * 3


def test_volumes_of_an_absolute_path() -> None:
    """Volumes of one absolute path are found whatever their servers are called, as the server compares names."""
    store = holding(
        at("/exports/a", name="v1", server="10.0.0.5"), at("/exports/a/b", name="v2"), at("/exports/A", name="v3")
    )
    assert [volume.name for volume in store.anywhere(NAS, ("a", "b"))] == ["v1", "v2"]
    assert list(store.anywhere(NAS, ("b",))) == []
    store.places.note(NAS, folds=True)
    assert [volume.name for volume in store.anywhere(NAS, ("a", "b"))] == ["v1", "v3", "v2"]

"""Contract of the `Cluster` port: the driver on a real API server and the fake behave the same.

This includes the cluster's controllers for claims and volumes, which the fake imitates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from msgspec import structs

from provisioner import __version__
from provisioner.core import names, times
from provisioner.core.leases import LeaseRecord
from provisioner.core.objects import Claim, Metadata, Volume
from provisioner.core.versions import is_below
from provisioner.ports.cluster import (
    AlreadyExists,
    Cluster,
    ClusterError,
    Conflict,
    Event,
    Expired,
    NotFound,
    ObjectRef,
    Page,
    Rejected,
    WatchEvent,
)
from tests.contract import clusters
from tests.contract.clusters import PROVISIONER, ClusterSite, volume_body, volume_for
from tests.support import samples

OURS, THEIRS = "example.com/ours", "example.com/theirs"
T = TypeVar("T")


@pytest.fixture(params=[clusters.memory, clusters.real], ids=lambda factory: factory.__name__)
async def at(request: pytest.FixtureRequest) -> AsyncIterator[ClusterSite]:
    """An API server with its own namespace per test."""
    factory: clusters.Factory = request.param
    async with factory(request) as site:
        yield site


async def create(at: ClusterSite, suffix: str = "", **metadata: Any) -> Volume:
    return await at.cluster.create_volume(volume_body(at.prefix + suffix, at.prefix, **metadata))


def claim_body(name: str, class_name: str = "") -> dict[str, Any]:
    """Return a claim that no controller binds."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
    return {"metadata": {"name": name}, "spec": {**spec, "storageClassName": class_name}}


async def until(read: Callable[[], Awaitable[T | None]], condition: Callable[[T | None], bool]) -> T | None:
    """Read until the value is as expected, for a minute at most."""
    seen = await read()
    for _ in range(1200):
        if condition(seen):
            break
        await asyncio.sleep(0.05)
        seen = await read()
    return seen


async def volume_in(at: ClusterSite, name: str, phase: str) -> Volume:
    found = await until(lambda: at.cluster.get_volume(name), lambda v: v is not None and v.status.phase == phase)
    assert found is not None
    assert found.status.phase == phase
    return found


async def claim_in(at: ClusterSite, name: str, phase: str) -> Claim:
    found = await until(
        lambda: at.cluster.get_claim(at.namespace, name), lambda c: c is not None and c.status.phase == phase
    )
    assert found is not None
    assert found.status.phase == phase
    return found


async def volume_gone(at: ClusterSite, name: str) -> None:
    assert await until(lambda: at.cluster.get_volume(name), lambda v: v is None) is None


async def delete_latest(cluster: Cluster, read: Volume) -> None:
    """Delete a volume whose phase the PV controller can still be writing."""
    while True:
        try:
            return await cluster.delete_volume(read)
        except Conflict:
            read = await cluster.get_volume(read.name) or read


# ------------------------------------------------------------------------------------------------ volumes and claims


async def test_a_volume_is_created_once(at: ClusterSite) -> None:
    """create_volume returns the stored volume; a second one of the same name raises AlreadyExists."""
    made = await create(at, annotations={"a": "b"}, finalizers=[OURS])
    assert made.name == at.prefix
    assert made.metadata.uid
    assert made.metadata.annotations["a"] == "b"
    assert OURS in made.metadata.finalizers
    with pytest.raises(AlreadyExists):
        await create(at)
    await at.cluster.patch_volume(at.prefix, {"metadata": {"finalizers": None}})


async def test_a_missing_object_is_none(at: ClusterSite) -> None:
    """get_volume, get_claim, get_namespace and get_lease return None for an unknown name."""
    assert await at.cluster.get_namespace("no-such-namespace") is None
    assert await at.cluster.get_volume(at.prefix) is None
    assert await at.cluster.get_claim(at.namespace, "nobody") is None
    assert await at.cluster.get_claim("no-such-namespace", "nobody") is None
    assert await at.cluster.get_lease(at.namespace, "nobody") is None


async def test_a_namespace(at: ClusterSite) -> None:
    """get_namespace returns the UID and the creation time of the namespace."""
    found = await at.cluster.get_namespace(at.namespace)
    assert found is not None
    assert found.metadata.name == at.namespace
    assert found.metadata.uid
    assert times.parse(found.metadata.creation_timestamp) is not None
    assert found == await at.cluster.get_namespace(at.namespace)


async def test_a_patch_merges(at: ClusterSite) -> None:
    """patch_volume changes the named fields, removes fields set to None, and keeps all others."""
    await create(at, annotations={"keep": "1", "drop": "1"})
    patched = await at.cluster.patch_volume(
        at.prefix, {"metadata": {"annotations": {"drop": None, "new": "1"}}, "spec": {"capacity": {"storage": "2Mi"}}}
    )
    assert patched.metadata.annotations == {"keep": "1", "new": "1"}
    assert patched.capacity == "2Mi"
    read = await at.cluster.get_volume(at.prefix)
    assert read is not None
    assert (read.metadata.annotations, read.capacity) == (patched.metadata.annotations, "2Mi")


async def test_a_patch_of_an_old_version_conflicts(at: ClusterSite) -> None:
    """patch_volume raises Conflict for an old resourceVersion, and NotFound for a deleted volume."""
    made = await create(at)
    await at.cluster.patch_volume(at.prefix, {"metadata": {"annotations": {"a": "1"}}})
    with pytest.raises(Conflict):
        await at.cluster.patch_volume(at.prefix, {"metadata": {"resourceVersion": made.metadata.resource_version}})
    with pytest.raises(NotFound):
        await at.cluster.patch_volume(at.prefix + "-gone", {"metadata": {"annotations": {"a": "1"}}})


async def test_a_patch_without_a_change_keeps_the_version(at: ClusterSite) -> None:
    """A patch without a change writes nothing."""
    await create(at)
    before = await volume_in(at, at.prefix, "Available")
    patched = await at.cluster.patch_volume(at.prefix, {"spec": {"capacity": {"storage": "1Mi"}}})
    assert patched.metadata.resource_version == before.metadata.resource_version


async def test_an_invalid_object_is_rejected(at: ClusterSite) -> None:
    """An invalid object raises Rejected, and so does a changed source of an existing volume."""
    body = volume_body(at.prefix, at.prefix)
    body["spec"]["accessModes"] = ["ReadSometimes"]
    with pytest.raises(Rejected, match="accessModes"):
        await at.cluster.create_volume(body)
    await create(at)
    with pytest.raises(Rejected, match="immutable"):
        await at.cluster.patch_volume(at.prefix, {"spec": {"nfs": {"path": "/elsewhere"}}})


async def test_one_finalizer_is_set_among_those_of_others(at: ClusterSite) -> None:
    """set_finalizer adds and removes one finalizer, even with an outdated volume, and keeps all others."""
    made = await create(at, finalizers=[THEIRS])
    await at.cluster.patch_volume(at.prefix, {"metadata": {"annotations": {"a": "1"}}})
    for present in (True, True, False, False):
        await at.cluster.set_finalizer(made, OURS, present=present)
        read = await at.cluster.get_volume(at.prefix)
        assert read is not None
        assert THEIRS in read.metadata.finalizers
        assert read.metadata.finalizers.count(OURS) == int(present)
    await at.cluster.set_finalizer(made, THEIRS, present=False)


async def test_a_finalizer_is_never_set_on_another_volume(at: ClusterSite) -> None:
    """set_finalizer raises Conflict for another UID, NotFound for a missing volume, Rejected for a deleted one."""
    made = await create(at, finalizers=[OURS])
    other = Volume(metadata=Metadata(name=at.prefix, uid="other", resource_version=made.metadata.resource_version))
    for present in (True, False):
        with pytest.raises(Conflict):
            await at.cluster.set_finalizer(other, OURS, present=present)
    await at.delete_volume(at.prefix)
    with pytest.raises(Rejected):
        await at.cluster.set_finalizer(made, "example.com/more", present=True)
    await at.cluster.set_finalizer(made, OURS, present=False)
    await volume_gone(at, at.prefix)
    with pytest.raises(NotFound):
        await at.cluster.set_finalizer(made, OURS, present=False)


async def test_only_the_volume_that_was_read_is_deleted(at: ClusterSite) -> None:
    """delete_volume deletes exactly the volume that was read, and raises Conflict for another UID or an old version."""
    made = await create(at, finalizers=[OURS])
    other = Volume(metadata=Metadata(name=at.prefix, uid="other", resource_version=made.metadata.resource_version))
    with pytest.raises(Conflict):
        await at.cluster.delete_volume(other)
    changed = await at.cluster.patch_volume(at.prefix, {"metadata": {"annotations": {"a": "1"}}})
    with pytest.raises(Conflict):
        await at.cluster.delete_volume(made)
    assert (await at.cluster.get_volume(at.prefix) or made).metadata.deletion_timestamp is None
    await delete_latest(at.cluster, changed)
    deleted = await at.cluster.get_volume(at.prefix)
    assert deleted is not None
    assert deleted.metadata.deletion_timestamp
    await at.cluster.patch_volume(at.prefix, {"metadata": {"finalizers": None}})
    await volume_gone(at, at.prefix)
    with pytest.raises(NotFound):
        await at.cluster.delete_volume(deleted)


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_volume_without_a_name_never_means_all_of_them(at: ClusterSite, name: str) -> None:
    """A call on an object without a valid name raises Rejected."""
    await create(at)
    for call in (
        at.cluster.delete_volume(Volume(metadata=Metadata(name=name))),
        at.cluster.patch_volume(name, {}),
        at.cluster.get_volume(name),
    ):
        with pytest.raises(Rejected):
            await call
    assert await at.cluster.get_volume(at.prefix) is not None


async def test_the_status_of_a_claim_is_patched(at: ClusterSite) -> None:
    """patch_claim_status writes the status and keeps other conditions; an old version raises Conflict."""
    read = await at.create_claim(claim_body("data"))
    assert read.key == f"{at.namespace}/data"
    assert read.requested == "1Mi"
    for kind in ("Resizing", "Other"):
        patch = {"conditions": [{"type": kind, "status": "True"}], "allocatedResources": {"storage": "2Gi"}}
        patched = await at.cluster.patch_claim_status(at.namespace, "data", {"status": patch})
        assert patched.status.allocated_resources == {"storage": "2Gi"}
    assert await at.conditions("data") >= {"Resizing", "Other"}
    gone = {"conditions": [{"$patch": "delete", "type": "Resizing"}]}
    await at.cluster.patch_claim_status(at.namespace, "data", {"status": gone})
    assert "Resizing" not in await at.conditions("data")
    with pytest.raises(Conflict):
        await at.cluster.patch_claim_status(
            at.namespace, "data", {"metadata": {"resourceVersion": "1"}, "status": {"phase": "Pending"}}
        )


async def test_only_the_claim_that_was_read_requests_more(at: ClusterSite) -> None:
    """request_size changes the request of one claim, and raises Conflict for another version or another uid."""
    with pytest.raises(ClusterError):
        await at.cluster.request_size(samples.claim(name="other", namespace=at.namespace), "2Gi")
    await provisioned(at, "grows")
    await asyncio.sleep(1)  # a controller writes some fields after the phase
    claim = await claim_in(at, "grows", "Bound")
    with pytest.raises(Conflict):
        await at.cluster.request_size(structs.replace(claim, metadata=structs.replace(claim.metadata, uid="1")), "2Mi")
    grown = await at.cluster.request_size(claim, "2Mi")
    assert (grown.requested, grown.uid) == ("2Mi", claim.uid)
    with pytest.raises(Conflict):
        await at.cluster.request_size(claim, "3Mi")


# ------------------------------------------------------------------------------------------------ the controllers


async def provisioned(at: ClusterSite, name: str = "data") -> tuple[Claim, Volume]:
    """Return a claim that is bound to its provisioned volume."""
    claim = await at.create_claim(claim_body(name, at.class_name))
    volume = await at.cluster.create_volume(volume_for(at, claim, OURS))
    return await claim_in(at, name, "Bound"), await volume_in(at, volume.name, "Bound")


async def ended(at: ClusterSite, volume: Volume) -> None:
    """Remove all finalizers of a deleted volume, so that it disappears."""
    await at.delete_volume(volume.name)
    await at.cluster.set_finalizer(volume, OURS, present=False)


async def test_a_claim_is_handed_to_its_provisioner(at: ClusterSite) -> None:
    """A claim gets the annotation that names its class's provisioner, and stays Pending."""
    await at.create_claim(claim_body("data", at.class_name))
    claim = await until(
        lambda: at.cluster.get_claim(at.namespace, "data"), lambda c: c is not None and c.is_for(PROVISIONER)
    )
    assert claim is not None
    assert all(claim.metadata.annotations[key] == PROVISIONER for key in names.PROVISIONER_ANNOTATIONS)
    assert (claim.status.phase, claim.spec.volume_name) == ("Pending", "")


async def test_a_volume_is_bound_to_the_claim_that_it_names(at: ClusterSite) -> None:
    """Volume and claim become Bound and name each other, and the claim has the volume's capacity."""
    claim, volume = await provisioned(at)
    assert claim.spec.volume_name == volume.name
    assert claim.status.capacity == {"storage": "1Mi"}
    assert volume.spec.claim_ref is not None
    assert volume.spec.claim_ref.uid == claim.uid
    await at.delete_claim("data")
    await volume_in(at, volume.name, "Released")
    await ended(at, volume)


async def test_a_volume_without_its_claim_is_released_and_stays(at: ClusterSite) -> None:
    """When its claim is deleted, a volume becomes Released, keeps its claimRef, and waits for its provisioner."""
    claim, volume = await provisioned(at)
    await at.delete_claim("data")
    released = await volume_in(at, volume.name, "Released")
    assert released.spec.claim_ref is not None
    assert released.spec.claim_ref.uid == claim.uid
    assert released.metadata.deletion_timestamp is None
    assert await at.cluster.get_claim(at.namespace, "data") is None
    await at.cluster.delete_volume(released)
    held = await at.cluster.get_volume(volume.name)
    assert held is not None
    assert held.metadata.deletion_timestamp
    await at.cluster.set_finalizer(held, OURS, present=False)
    await volume_gone(at, volume.name)


async def test_a_volume_for_a_claim_that_is_gone_is_released(at: ClusterSite) -> None:
    """A volume whose claimRef has an unknown UID becomes Released, even if a new claim has that name."""
    claim = await at.create_claim(claim_body("data", at.class_name))
    await at.delete_claim("data")
    assert await until(lambda: at.cluster.get_claim(at.namespace, "data"), lambda c: c is None) is None
    again = await at.create_claim(claim_body("data", at.class_name))
    assert again.uid != claim.uid
    volume = await at.cluster.create_volume(volume_for(at, claim, OURS))
    await volume_in(at, volume.name, "Released")
    assert (await claim_in(at, "data", "Pending")).spec.volume_name == ""
    await ended(at, volume)


async def test_a_bound_volume_that_is_deleted_stays_for_its_claim(at: ClusterSite) -> None:
    """A Bound volume that an admin deletes stays until its claim is deleted."""
    _, volume = await provisioned(at)
    await at.cluster.set_finalizer(volume, OURS, present=False)
    await at.delete_volume(volume.name)
    await asyncio.sleep(0.5)
    held = await at.cluster.get_volume(volume.name)
    assert held is not None
    assert (held.status.phase, bool(held.metadata.deletion_timestamp)) == ("Bound", True)
    await at.delete_claim("data")
    await volume_gone(at, volume.name)


async def test_a_claimref_without_a_uid_waits_for_its_claim(at: ClusterSite) -> None:
    """A volume reserved by name is Available, is bound to the claim of that name, and then has its UID."""
    waiting = Claim(metadata=Metadata(namespace=at.namespace, name="data"))
    body = volume_for(at, waiting, OURS)
    body["spec"]["storageClassName"] = at.class_name
    del body["spec"]["claimRef"]["uid"]
    volume = await at.cluster.create_volume(body)
    await volume_in(at, volume.name, "Available")
    await at.create_claim(claim_body("data", at.class_name))
    claim = await claim_in(at, "data", "Bound")
    bound = await volume_in(at, volume.name, "Bound")
    assert claim.spec.volume_name == volume.name
    assert bound.spec.claim_ref is not None
    assert bound.spec.claim_ref.uid == claim.uid
    await at.delete_claim("data")
    await ended(at, volume)


async def test_a_claim_that_lost_its_volume_says_so(at: ClusterSite) -> None:
    """A bound claim whose volume was removed becomes Lost."""
    _, volume = await provisioned(at)
    await at.delete_volume(volume.name)
    await at.cluster.patch_volume(volume.name, {"metadata": {"finalizers": None}})
    await claim_in(at, "data", "Lost")


# ------------------------------------------------------------------------------------------------ lists


async def read_all(cluster: Cluster) -> list[Page[Any]]:
    pages = [await cluster.list("volumes")]
    while pages[-1].continue_token:
        pages.append(await cluster.list("volumes", continue_token=pages[-1].continue_token))
    return pages


async def create_many(at: ClusterSite, count: int) -> set[str]:
    suffixes = iter(range(count))

    async def worker() -> None:
        for suffix in suffixes:
            await create(at, f"-{suffix}")

    await asyncio.gather(*(worker() for _ in range(64)))
    return {f"{at.prefix}-{suffix}" for suffix in range(count)}


async def test_a_long_list_comes_in_pages(at: ClusterSite) -> None:
    """1,200 volumes are listed in pages of 500, each volume once, and all at one version."""
    expected = await create_many(at, 1200)
    pages = await read_all(at.cluster)
    assert [len(page.items) for page in pages[:2]] == [500, 500]
    assert len(pages) >= 3
    assert len({page.version for page in pages}) == 1
    found = [item.metadata.name for page in pages for item in page.items]
    assert expected <= set(found)
    assert len(found) == len(set(found))


async def test_a_late_page_is_expired(at: ClusterSite) -> None:
    """Once the server has forgotten the version of a list, its next page raises Expired."""
    await create_many(at, 501)
    page = await at.cluster.list("volumes")
    assert page.continue_token
    await create(at, "-later")
    await at.expire()
    with pytest.raises(Expired):
        await at.cluster.list("volumes", continue_token=page.continue_token)


async def test_every_kind_is_listed(at: ClusterSite) -> None:
    """Claims of all namespaces and classes are listed like volumes."""
    await at.create_claim(claim_body("data"))
    claims, classes = await at.cluster.list("claims"), await at.cluster.list("classes")
    assert (at.namespace, "data") in {(c.metadata.namespace, c.metadata.name) for c in claims.items}
    assert {"onDelete": "retain"} in [getattr(c, "parameters", None) for c in classes.items]


# ------------------------------------------------------------------------------------------------ watches


async def until_end(watch: AsyncIterator[WatchEvent[Any]]) -> list[WatchEvent[Any]]:
    return [event async for event in watch]


def changes(events: list[WatchEvent[Any]], prefix: str) -> list[tuple[str, str]]:
    """Return type and name of the changes of the test's volumes, without changes by controllers."""
    seen = [(e.type, e.item.metadata.name) for e in events if e.item and e.item.metadata.name.startswith(prefix)]
    return [change for i, change in enumerate(seen) if change not in seen[:i]]


async def test_a_watch_yields_all_changes_and_ends_cleanly(at: ClusterSite) -> None:
    """A watch yields creation, change and removal in order, bookmarks have a version, and its end is no error."""
    first = (await at.cluster.list("volumes")).version
    watch = asyncio.create_task(until_end(at.cluster.watch("volumes", first)))
    await create(at)
    await at.cluster.patch_volume(at.prefix, {"metadata": {"annotations": {"a": "b"}}})
    await at.delete_volume(at.prefix)
    events = await watch
    while ("DELETED", at.prefix) not in changes(events, at.prefix):  # a busy controller may take longer than a watch
        events += await until_end(at.cluster.watch("volumes", events[-1].version))
    assert changes(events, at.prefix) == [("ADDED", at.prefix), ("MODIFIED", at.prefix), ("DELETED", at.prefix)]
    bookmarks = [event for event in events if event.type == "BOOKMARK"]
    assert bookmarks
    assert all(event.item is None and int(event.version) >= int(first) for event in bookmarks)
    assert all(event.version for event in events)


async def test_a_watch_resumes_where_the_last_one_ended(at: ClusterSite) -> None:
    """The second watch yields what happened between the two watches, and nothing twice."""
    version = (await at.cluster.list("volumes")).version
    await create(at)
    first = await until_end(at.cluster.watch("volumes", version))
    assert ("ADDED", at.prefix) in changes(first, at.prefix)
    await create(at, "-2")
    second = await until_end(at.cluster.watch("volumes", first[-1].version))
    assert ("ADDED", at.prefix + "-2") in changes(second, at.prefix)
    assert ("ADDED", at.prefix) not in changes(second, at.prefix)


@pytest.mark.parametrize("kind", ["claims", "classes"])
async def test_the_other_kinds_are_watched_too(at: ClusterSite, kind: Any) -> None:
    """A watch of claims or classes begins at the version of a list and ends cleanly."""
    version = (await at.cluster.list(kind)).version
    assert all(event.version for event in await until_end(at.cluster.watch(kind, version)))


async def test_a_watch_from_a_forgotten_version_is_expired(at: ClusterSite) -> None:
    """Once the server has forgotten the version to watch from, the watch raises Expired."""
    version = (await at.cluster.list("volumes")).version
    await create(at)
    await at.expire()
    with pytest.raises(Expired):
        await until_end(at.cluster.watch("volumes", version))


async def test_a_kinds_version_is_that_of_a_list(at: ClusterSite) -> None:
    """version() is the version of a list, grows with each write, and can start a watch."""
    before = await at.cluster.version("volumes")
    assert int(before) <= int((await at.cluster.list("volumes")).version)
    await create(at)
    after = await at.cluster.version("volumes")
    assert int(after) > int(before)
    await create(at, "-2")
    events = await until_end(at.cluster.watch("volumes", after))
    assert ("ADDED", at.prefix + "-2") in changes(events, at.prefix)
    assert ("ADDED", at.prefix) not in changes(events, at.prefix)


async def test_a_watch_from_a_future_version_is_silent(at: ClusterSite) -> None:
    """A watch from a future version is silent without an error: only versions show that the server went back."""
    future = str(int(await at.cluster.version("volumes")) + 1_000_000)
    watch = asyncio.create_task(until_end(at.cluster.watch("volumes", future)))
    await create(at)
    events = await watch
    assert changes(events, at.prefix) == []
    assert all(is_below(event.version, future) for event in events)
    assert is_below(await at.cluster.version("volumes"), future)


# ------------------------------------------------------------------------------------------------ events


def about(namespace: str, kind: Any = "PersistentVolumeClaim") -> Event:
    ref = ObjectRef(kind, namespace, "data", "3c1e0b5e-0000-4000-8000-000000000000", "12")
    return Event(ref, "Warning", "ProvisioningFailed", "it does not answer")


async def test_an_event_is_created_and_counted(at: ClusterSite) -> None:
    """The first occurrence creates the event, and a repetition updates its count and last time."""
    first = datetime(2026, 1, 1, 12, 0, 0, 987654, tzinfo=UTC)
    event = about(at.namespace)
    await at.cluster.record_event(event, count=1, name="data.1", first_seen=first, seen=first)
    later = first + timedelta(seconds=90)
    await at.cluster.record_event(event, count=2, name="data.1", first_seen=first, seen=later)
    stored = await at.event(at.namespace, "data.1")
    assert (stored["count"], stored["type"], stored["reason"]) == (2, "Warning", "ProvisioningFailed")
    assert stored["message"] == "it does not answer"
    assert (stored["firstTimestamp"], stored["lastTimestamp"]) == ("2026-01-01T12:00:00Z", "2026-01-01T12:01:30Z")


async def test_an_expired_event_is_created_again(at: ClusterSite) -> None:
    """A repetition of an expired event creates the event with its count."""
    seen = datetime.now(UTC)
    await at.cluster.record_event(about(at.namespace), count=7, name="data.2", first_seen=seen, seen=seen)
    assert (await at.event(at.namespace, "data.2"))["count"] == 7


async def test_an_existing_event_is_updated(at: ClusterSite) -> None:
    """A first occurrence of an event that exists, as after a restart, updates the event."""
    seen = datetime(2026, 1, 1, tzinfo=UTC)
    for when in (seen, seen + timedelta(hours=1)):
        await at.cluster.record_event(about(at.namespace), count=1, name="data.3", first_seen=when, seen=when)
    assert (await at.event(at.namespace, "data.3"))["lastTimestamp"] == "2026-01-01T01:00:00Z"


async def test_events_of_volumes_live_in_default(at: ClusterSite) -> None:
    """Events about objects without a namespace are in the namespace `default`."""
    seen = datetime.now(UTC)
    await at.cluster.record_event(about("", "PersistentVolume"), count=1, name=at.prefix, first_seen=seen, seen=seen)
    assert (await at.event("default", at.prefix))["count"] == 1


async def test_an_event_in_a_deleted_namespace_is_an_error_of_the_port(at: ClusterSite) -> None:
    """An event in a deleted namespace raises NotFound."""
    seen = datetime.now(UTC)
    with pytest.raises(NotFound):
        await at.cluster.record_event(about("no-such-namespace"), count=1, name="x", first_seen=seen, seen=seen)


# ------------------------------------------------------------------------------------------------ leases


async def test_a_lease_goes_to_the_first_writer(at: ClusterSite) -> None:
    """A lease is created once, and replaced only with its latest version; it round-trips.

    Each write leaves the version of the program that wrote.
    """
    when = "2026-01-01T00:00:00.000001Z"
    record = LeaseRecord(holder="a", duration_s=15.0, acquired=when, renewed=when)
    made = await at.cluster.create_lease(at.namespace, "lease", record)
    assert made.version
    assert made.program == __version__
    assert (made.holder, made.duration_s, made.acquired, made.renewed) == ("a", 15.0, when, when)
    with pytest.raises(AlreadyExists):
        await at.cluster.create_lease(at.namespace, "lease", record)
    taken = await at.cluster.replace_lease(
        at.namespace, "lease", LeaseRecord(holder="b", acquired=when, renewed=when, transitions=1, version=made.version)
    )
    with pytest.raises(Conflict):
        await at.cluster.replace_lease(at.namespace, "lease", made)
    assert await at.cluster.get_lease(at.namespace, "lease") == taken


async def test_a_lease_is_released(at: ClusterSite) -> None:
    """A lease without a holder, as after a clean stop, round-trips."""
    made = await at.cluster.create_lease(at.namespace, "lease", LeaseRecord(holder="a"))
    released = await at.cluster.replace_lease(at.namespace, "lease", LeaseRecord(duration_s=0.5, version=made.version))
    assert released.holder == ""
    assert released.duration_s == 1.0


# ------------------------------------------------------------------------------------------------ being there


async def test_a_cluster_is_ready_and_has_an_id(at: ClusterSite) -> None:
    """ping() succeeds while the server is ready, and cluster_uid() is always the same."""
    await at.cluster.ping()
    assert await at.cluster.cluster_uid() == await at.cluster.cluster_uid() != ""

"""runtime.informer: a cache of one kind, and the news that its subscribers get."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from provisioner.core.objects import StorageClass
from provisioner.runtime.informer import Informer
from tests.support import samples

FIRST, OTHER = samples.storage_class(), structs.replace(samples.storage_class(), provisioner="other/one")
Change = tuple[StorageClass | None, StorageClass | None]


def holding(*items: StorageClass, counted: list[str] | None = None) -> Informer[StorageClass]:
    """An informer with these objects."""
    count = (lambda loop: None) if counted is None else counted.append
    informer = Informer[StorageClass]("classes", key=lambda each: each.name, count=count)
    for item in items:
        informer.apply(item, deleted=False)
    return informer


def test_it_reads_as_a_mapping() -> None:
    """An informer is a mapping of the cached objects by key."""
    informer = holding(FIRST)
    assert informer == {FIRST.name: FIRST}
    assert list(informer.values()) == [FIRST]
    assert dict(informer.items()) == {FIRST.name: FIRST}
    assert (FIRST.name in informer, "x" in informer, informer.get("x"), len(informer)) == (True, False, None, 1)
    with pytest.raises(KeyError):
        informer["x"]


def test_a_list_replaces() -> None:
    """After a list exactly the objects that it contains are cached."""
    informer = holding(FIRST)
    assert not informer.synced
    informer.replace([])
    assert informer == {}
    assert informer.synced


async def test_a_list_in_pages() -> None:
    """A list changes nothing before its last page, and one that is given up changes nothing at all."""
    second = structs.replace(FIRST, metadata=structs.replace(FIRST.metadata, name="second"))
    informer = holding(FIRST)
    informer.listing().add([OTHER])
    listing = informer.listing()
    listing.add([OTHER])
    listing.add([second])
    assert informer == {FIRST.name: FIRST}
    await listing.complete()
    assert informer == {OTHER.name: OTHER, "second": second}


async def test_a_long_list_gives_way() -> None:
    """Other work gets turns while a long list is taken over, and then finds a cache that misses no object."""

    def named(name: str) -> StorageClass:
        return structs.replace(FIRST, metadata=structs.replace(FIRST.metadata, name=name))

    former, latter = {f"old-{number}" for number in range(700)}, {f"new-{number}" for number in range(700)}
    informer = holding(*map(named, former))
    listing = informer.listing()
    listing.add(map(named, latter))
    taking = asyncio.create_task(listing.complete())
    seen = []
    while not taking.done():
        await asyncio.sleep(0)
        seen.append(set(informer))
    assert len(seen) > 2
    assert all(former <= names or latter <= names for names in seen)
    assert (set(informer), informer.synced) == (latter, True)


def test_a_list_of_what_is_cached() -> None:
    """An unchanged object stays the cached one, so a list takes no second copy; subscribers see it as an update."""
    informer, heard = holding(FIRST), list[Change]()
    with informer.subscribed(on_updated=lambda before, after: heard.append((before, after))):
        informer.replace([structs.replace(FIRST)])
    assert informer[FIRST.name] is FIRST
    assert heard == [(FIRST, FIRST)]


def test_subscriptions() -> None:
    """A subscriber gets what is cached, then each change with what was before, and nothing after it left."""
    informer, heard = holding(FIRST), list[Change]()
    with informer.subscribed(
        on_added=lambda after: heard.append((None, after)),
        on_updated=lambda before, after: heard.append((before, after)),
        on_deleted=lambda before: heard.append((before, None)),
    ):
        informer.apply(OTHER, deleted=False)
        informer.apply(OTHER, deleted=True)
        informer.apply(OTHER, deleted=True)
    informer.apply(FIRST, deleted=False)
    assert heard == [(None, FIRST), (FIRST, OTHER), (OTHER, None)]


def test_a_subscriber_that_fails() -> None:
    """A handler that raises is counted, and keeps the news from no other subscriber and from no later change."""
    counted, heard = list[str](), list[str]()

    def fails(_: StorageClass) -> None:
        raise RuntimeError("odd")

    informer = holding(FIRST, counted=counted)
    with (
        informer.subscribed(on_added=fails, on_deleted=fails),
        informer.subscribed(on_added=lambda _: heard.append("added"), on_deleted=lambda _: heard.append("deleted")),
    ):
        informer.apply(FIRST, deleted=True)
    assert heard == ["added", "deleted"]
    assert counted == ["listener", "listener"]


def test_objects_that_are_not_wanted() -> None:
    """An object that is not wanted, or no longer, is not cached, and subscribers see it as deleted."""
    gone = list[StorageClass]()
    informer = Informer[StorageClass](
        "classes", key=lambda each: each.name, is_wanted=lambda each: each.provisioner == samples.US
    )
    with informer.subscribed(on_deleted=gone.append):
        informer.apply(OTHER, deleted=False)
        informer.replace([OTHER])
        assert informer == {}
        informer.apply(FIRST, deleted=False)
        informer.apply(OTHER, deleted=False)
    assert informer == {}
    assert gone == [FIRST]


def test_the_index() -> None:
    """The index sees each change, of what is cached, before any subscriber does; its errors are not contained."""
    seen = list[Change]()

    def index(before: StorageClass | None, after: StorageClass | None) -> None:
        if after == OTHER:
            raise RuntimeError("odd")
        seen.append((before, after))

    slim = structs.replace(FIRST, parameters={})
    informer = Informer[StorageClass]("classes", key=lambda each: each.name, transform=lambda _: slim, index=index)
    order = list[int]()
    with informer.subscribed(on_added=lambda _: order.append(len(seen))):
        informer.apply(FIRST, deleted=False)
    assert (seen, order) == ([(None, slim)], [1])
    broken = Informer[StorageClass]("classes", key=lambda each: each.name, index=index)
    with pytest.raises(RuntimeError, match="odd"):
        broken.apply(OTHER, deleted=False)

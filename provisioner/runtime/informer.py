"""Informers: a typed cache per kind of object, with subscriptions.

The names are those of client-go, tools/cache. A reflector writes an informer, everything else reads it as a mapping of
objects by key. Standby replicas keep their informers up to date, so that they can take over quickly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from provisioner.ports.cluster import AnyItem, Kind
from provisioner.runtime.supervision import Count, Shield

T = TypeVar("T", bound=AnyItem)

_IN_A_ROW = 500
"""Objects of a list that an informer takes before other work gets a turn, such as the renewal of the lease."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subscriber(Generic[T]):
    """The handlers of one subscription; None for news that it does not need."""

    on_added: Callable[[T], None] | None
    on_updated: Callable[[T, T], None] | None
    on_deleted: Callable[[T], None] | None

    def call(self, before: T | None, after: T | None) -> None:
        """Call the handler for a change from `before` to `after`."""
        if after is None:
            if before is not None and self.on_deleted is not None:
                self.on_deleted(before)
        elif before is None:
            if self.on_added is not None:
                self.on_added(after)
        elif self.on_updated is not None:
            self.on_updated(before, after)


class Listing(Generic[T]):
    """A list on its way into an informer, page by page.

    Pages are slimmed as they come, and objects that the cache has already are not held twice: at no time does the
    memory have all listed objects in full, nor two copies of the cache.
    """

    def __init__(
        self,
        slim: Callable[[T], tuple[str, T | None]],
        take: Callable[[Mapping[str, T | None]], Iterator[None]],
        listed: dict[str, T | None],
    ) -> None:
        self._slim = slim
        self._take = take
        self._listed = listed

    def add(self, items: Iterable[T]) -> None:
        """Add a page. Until the list is complete, the cache stays as it is."""
        self._listed.update(map(self._slim, items))

    async def complete(self) -> None:
        """Replace the cache; objects that no page had count as deleted.

        A long list gives way to other work, which sees one object after the other change, as by a watch.
        """
        for _ in self._take(self._listed):
            await asyncio.sleep(0)


class Informer(Mapping[str, T]):
    """The cached objects of one kind, by key: read-only for all but the reflector of the kind."""

    def __init__(
        self,
        kind: Kind,
        *,
        key: Callable[[T], str],
        is_wanted: Callable[[T], bool] = lambda item: True,
        transform: Callable[[T], T] = lambda item: item,
        index: Callable[[T | None, T | None], None] = lambda before, after: None,
        count: Count = lambda loop: None,
    ) -> None:
        """Objects that are not wanted are not cached; `transform` returns the copy to cache.

        `index` is called with each change before any subscriber is. Unlike a subscriber's, its errors are not
        contained: they end the reflector's call, which lists again. `count` is called for each unexpected error of a
        subscriber.
        """
        self.kind = kind
        self._key = key
        self._is_wanted = is_wanted
        self._transform = transform
        self._index = index
        self._count = count
        self._items: dict[str, T] = {}
        self._listed: dict[str, T | None] = {}
        """The objects of a list on its way; None for those that are not wanted."""
        self._synced = False
        self._subscribers: list[_Subscriber[T]] = []

    # ------------------------------------------------------------------------------------------- reading

    def __getitem__(self, key: str) -> T:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    # Mapping.values() and items() call __getitem__ for each object, which is slow with ten thousand of them.

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def get(self, key: str, default: T | None = None) -> T | None:  # type: ignore[override]  # as all callers use it
        """As dict.get()."""
        return self._items.get(key, default)

    def values(self) -> ValuesView[T]:
        """As dict.values()."""
        return self._items.values()

    def items(self) -> ItemsView[str, T]:
        """As dict.items()."""
        return self._items.items()

    def newest(self, key: str) -> T | None:
        """Return an object as a list on its way has it, else as cached.

        Only to share its texts with other objects: a list can be given up.
        """
        return self._listed.get(key) or self._items.get(key)

    @property
    def synced(self) -> bool:
        """Whether the kind has been listed.

        Until then an object that is not cached may exist.
        """
        return self._synced

    @contextmanager
    def subscribed(
        self,
        *,
        on_added: Callable[[T], None] | None = None,
        on_updated: Callable[[T, T], None] | None = None,
        on_deleted: Callable[[T], None] | None = None,
    ) -> Iterator[None]:
        """Call the handlers after each change while the context is open.

        `on_added` is first called for each object that is cached already. `on_updated` takes what was cached before,
        then what is cached now. An error in one handler is counted, and does not stop the other
        subscribers.
        """
        subscriber = _Subscriber(on_added, on_updated, on_deleted)
        for item in list(self._items.values()):
            self._notify(subscriber, None, item)
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    # ------------------------------------------------------------------------------------------- writing

    def replace(self, items: Iterable[T]) -> None:
        """Replace the cache with a complete list; objects not in it count as deleted."""
        for _ in self._take(dict(map(self._slim, items))):
            pass

    def listing(self) -> Listing[T]:
        """Begin a list that will replace the cache."""
        self._listed = {}
        return Listing(self._slim, self._take, self._listed)

    def _slim(self, item: T) -> tuple[str, T | None]:
        """Return the key of an object and what to cache: the cached copy itself if nothing has changed."""
        key = self._key(item)
        if not self._is_wanted(item):
            return key, None
        before, after = self._items.get(key), self._transform(item)
        return key, before if before == after else after

    def _take(self, listed: Mapping[str, T | None]) -> Iterator[None]:
        """Replace the cache, and yield now and then. Deletions come last: no directory counts as free in between."""
        gone = dict.fromkeys(self._items.keys() - listed.keys())
        for number, (key, item) in enumerate(chain(listed.items(), gone.items()), start=1):
            self._put(key, item)
            if number % _IN_A_ROW == 0:
                yield
        self._listed = {}
        self._synced = True

    def apply(self, item: T, *, deleted: bool) -> None:
        """Take over one change."""
        if deleted:
            self._put(self._key(item), None)
        else:
            self._put(*self._slim(item))

    def _put(self, key: str, after: T | None) -> None:
        before = self._items.get(key)
        if after is None:
            self._items.pop(key, None)
        else:
            self._items[key] = after
        if before is None and after is None:
            return
        # The index first: a subscriber may ask it about the very object that has changed.
        self._index(before, after)
        for subscriber in list(self._subscribers):
            self._notify(subscriber, before, after)

    def _notify(self, subscriber: _Subscriber[T], before: T | None, after: T | None) -> None:
        try:
            subscriber.call(before, after)
        except BaseException:
            # Only now: there are several calls per change, and a shield costs more than most of them.
            item = after or before
            with Shield("listener", self._count, kind=self.kind, name=item.metadata.name if item is not None else None):
                raise

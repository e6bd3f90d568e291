"""Reflectors keep an informer in step with the API server by list and watch.

Source: client-go, tools/cache.

A watch alone does not show that etcd was restored from a backup. A watch from a version that lies in the future of the
restored cluster gets no answer, neither an error nor an event. Hence three measures:

1. A watch that resumes asks for the current version first.
2. Every version that comes in is compared with the last one.
3. The list is repeated every few hours, and on demand.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from provisioner.core import versions, watches
from provisioner.core.backoff import is_logged
from provisioner.core.watches import WatchState
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import (
    OPTIONAL_KINDS,
    AnyItem,
    Cluster,
    ClusterError,
    Expired,
    Forbidden,
    Kind,
    KindMissing,
    Page,
)
from provisioner.runtime.informer import Informer

log = structlog.get_logger(__name__)

_LACKING_S = 10.0
"""Between two looks whether the cluster has a kind by now that it lacked."""
_LASTING = 4
"""After this many failures in a row the cache counts as out of date."""


class Reflector:
    """Keeps one informer up to date. `restarted` is called for each watch that begins."""

    def __init__(
        self, informer: Informer[Any], *, cluster: Cluster, clock: Clock, restarted: Callable[[Kind], None]
    ) -> None:
        self.kind = informer.kind
        self._informer = informer
        self._cluster = cluster
        self._clock = clock
        self._restarted = restarted
        self._state = WatchState()
        self._error: ClusterError | None = None
        """The error of the latest call; None if it succeeded."""
        self._watching_s: float | None = None
        """When the current watch began."""
        self._relist_at_s = math.inf
        self._limit: asyncio.Timeout | None = None
        self._asked: list[asyncio.Event] = []
        """Events of relist(): each is set, and removed, by a list that began after it was added."""

    @property
    def trouble(self) -> str:
        """Why the informer is not kept up to date; empty while it is."""
        error, watching_s = self._error, self._watching_s
        if error is None or (watching_s is not None and watches.is_established(self._clock.monotonic() - watching_s)):
            return ""
        if isinstance(error, Forbidden):
            return f"{error}; grant list and watch on it, as the chart's ClusterRole does"
        return str(error) if self._state.failures >= _LASTING else ""

    def relist(self) -> asyncio.Event:
        """List again now.

        The event is set when a list that began after this call is in the informer.
        """
        listed = asyncio.Event()
        self._asked.append(listed)
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())  # ends the current watch
        return listed

    async def run(self) -> None:
        """List and watch until cancelled; core.watches decides what follows the end of each watch."""
        while True:
            left_s = self._relist_at_s - self._clock.monotonic()
            try:
                async with asyncio.timeout(left_s if left_s < math.inf else None) as self._limit:
                    await self._round()
            except TimeoutError:
                self._state, self._relist_at_s = self._state.stale(), math.inf
            finally:
                self._limit = None

    async def _round(self) -> None:
        """Wait for the delay, list or compare versions, then watch until the watch ends."""
        await self._clock.sleep(self._state.delay_s(self._clock.random()))
        try:
            # An earlier list on demand may have failed, so that it is still due.
            if self._asked or not self._state.version:
                await self._list()
            else:
                self._compare(await self._cluster.version(self.kind))
            await self._watch()
        except Expired as exc:
            log.info("watch_expired", kind=self.kind, error=str(exc))
            self._state = self._state.expired()
        except ClusterError as exc:
            if isinstance(exc, KindMissing) and self.kind in OPTIONAL_KINDS:
                await self._lack()
                return
            self._error, self._state = exc, self._state.failed()
            if is_logged(self._state.failures):
                log.warning("watch_failed", kind=self.kind, failures=self._state.failures, error=str(exc))
        finally:
            self._watching_s = None

    async def _list(self) -> None:
        asked, listing, count = list(self._asked), self._informer.listing(), 0
        page: Page[AnyItem] | None = None
        while page is None or page.continue_token:
            page = await self._cluster.list(self.kind, continue_token=page.continue_token if page is not None else "")
            listing.add(page.items)
            count += len(page.items)
        await listing.complete()
        log.info("listed", kind=self.kind, items=count, version=page.version)
        self._state = self._state.listed(page.version)
        self._relist_at_s = self._clock.monotonic() + watches.relist_after_s(self._clock.random())
        for each in asked:
            each.set()
            self._asked.remove(each)

    async def _lack(self) -> None:
        """Take the kind for empty: the cluster has no such kind, because a CRD is missing. Look again after a while."""
        if self._state.version or not self._informer.synced:
            log.info("kind_missing", kind=self.kind)
        await self._informer.listing().complete()
        self._state, self._error = WatchState(), None
        asked, self._asked = self._asked, []
        for each in asked:
            each.set()
        await self._clock.sleep(_LACKING_S)

    async def _watch(self) -> None:
        """Watch until the end of the watch.

        If it breaks after some events, the next one resumes after them.
        """
        self._restarted(self.kind)
        began_s = self._watching_s = self._clock.monotonic()
        began = self._state
        try:
            async with aclosing(self._cluster.watch(self.kind, began.version)) as events:
                async for event in events:
                    self._compare(event.version)
                    if event.item is not None:
                        self._informer.apply(event.item, deleted=event.type == "DELETED")
                    self._state = self._state.received(event.version)
                    self._error = None
        except Expired:
            raise
        except ClusterError as exc:
            if self._state is began:
                raise
            log.info("watch_broken", kind=self.kind, error=str(exc))
            self._state = self._state.failed()
            return
        self._state = self._state.ended(self._clock.monotonic() - began_s, brought=self._state is not began)
        if self._state.failures <= began.failures:
            self._error = None

    def _compare(self, version: str) -> None:
        """Raise Expired for a version below the last one: the cluster went back in time."""
        if versions.is_below(version, self._state.version):
            log.warning("cluster_went_back", kind=self.kind, version=version, was=self._state.version)
            raise Expired(f"version {version} is below {self._state.version}: the cluster was restored from a backup")


async def relist(reflectors: Sequence[Reflector]) -> None:
    """List all kinds again, in parallel; return when all lists are in the informers."""
    for listed in [each.relist() for each in reflectors]:
        await listed.wait()

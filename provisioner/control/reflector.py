"""A reflector: keeps one kind of the store as the API server has it, by list and watch (client-go, tools/cache)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import structlog

from provisioner.control.store import Store
from provisioner.core.watches import WatchState
from provisioner.ports import AnyItem, Clock, Cluster, ClusterError, Expired, Kind

log = structlog.get_logger(__name__)


async def reflect(
    kind: Kind,
    *,
    cluster: Cluster,
    store: Store,
    clock: Clock,
    restarted: Callable[[Kind], None],
) -> None:
    """List, watch, and begin again where core.watches says so, for ever. `restarted` counts the watches."""
    state = WatchState()
    while True:
        await clock.sleep(state.delay_s(clock.random()))
        try:
            if not state.version:
                state = state.listed(await _list(kind, cluster, store))
                continue
            restarted(kind)
            state = await _watch(kind, cluster, store, clock, state)
        except Expired:
            log.info("watch_expired", kind=kind)
            state = state.expired()
        except ClusterError as exc:
            state = state.failed()
            if state.failures in (1, 2, 4) or state.failures % 16 == 0:
                log.warning("watch_failed", kind=kind, failures=state.failures, error=str(exc))


async def _list(kind: Kind, cluster: Cluster, store: Store) -> str:
    items: list[AnyItem] = []
    page = await cluster.list(kind)
    items.extend(page.items)
    while page.continue_token:
        page = await cluster.list(kind, continue_token=page.continue_token)
        items.extend(page.items)
    store.replace(kind, items)
    log.info("listed", kind=kind, items=len(items), version=page.version)
    return page.version


async def _watch(kind: Kind, cluster: Cluster, store: Store, clock: Clock, state: WatchState) -> WatchState:
    """One watch until its end. One that breaks after it brought something resumes after that, not where it began."""
    began_s = clock.monotonic()
    progress = state
    try:
        async with aclosing(cluster.watch(kind, state.version)) as events:
            async for event in events:
                if event.item is not None:
                    store.apply(kind, event.item, deleted=event.type == "DELETED")
                progress = progress.received(event.version)
    except Expired:
        raise
    except ClusterError as exc:
        if progress is state:
            raise
        log.info("watch_broken", kind=kind, error=str(exc))
        return progress.failed()
    return progress.ended(clock.monotonic() - began_s, brought=progress is not state)

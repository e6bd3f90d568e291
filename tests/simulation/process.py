"""One process of the provisioner, built as in commands.run, over fakes of its ports; it can die at any call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NoReturn

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.context import ControllerContext
from provisioner.controllers.export_health import ExportHealth
from provisioner.controllers.leader import LeaderTasks
from provisioner.controllers.unused_exports import UnusedExports
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.places import Places
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.ports.cluster import Cluster, Kind
from provisioner.ports.tree import Cause, ExportError, Tree
from provisioner.runtime.events import EventRecorder
from provisioner.runtime.leadership import Leadership
from provisioner.runtime.reflector import Reflector, relist
from provisioner.runtime.supervision import Supervisor
from provisioner.telemetry.metrics import Metrics
from tests.support.fakes.clock import LoopClock

PROVISIONER = "example.com/nfs"
WORKERS = 3

running: ContextVar[Process | None] = ContextVar("running", default=None)
"""The process whose code is running; None outside of processes."""


class Died(BaseException):
    """The process is dead: nothing that it still tries has an effect."""


class Parts:
    """The parts of a process; a deliberate bug replaces some of them."""

    def cluster(self, cluster: Cluster, cache: ClusterCache) -> Cluster:
        """The API server as the controllers see it."""
        return cluster

    def cache(self, places: Places, *, with_snapshots: bool) -> ClusterCache:
        """The cache."""
        return ClusterCache(PROVISIONER, places=places, with_snapshots=with_snapshots)

    def export(self, location: Location, tree: Tree) -> Export:
        """An export with its ledger."""
        return Export(location, tree)

    def supervisor(self, clock: Clock, metrics: Metrics) -> Supervisor:
        """Keeps the loops running."""
        return Supervisor(clock, metrics)


class Clock(LoopClock):
    """Simulated time with its own randomness, and a wall clock that may be wrong."""

    def __init__(self, chance: random.Random, error_s: Callable[[], float]) -> None:
        super().__init__()
        self._chance = chance
        self._error_s = error_s
        self._first_error_s = error_s()

    def now(self) -> datetime:
        """See `Clock`."""
        return super().now() + timedelta(seconds=self._error_s())

    def steady(self) -> datetime:
        """See `Clock`."""
        return super().steady() + timedelta(seconds=self._first_error_s)

    def random(self) -> float:
        """See `Clock`."""
        return self._chance.random()


@dataclass(frozen=True, slots=True)
class Elected:
    """The `Leadership` of a process. The last one started has the Lease; earlier ones do not know that yet."""

    instance: str
    term: int
    terms: Callable[[], int]
    """The term of the last process that was started."""

    def holds(self) -> bool:
        """See `Leadership`."""
        return True

    async def confirm(self) -> bool | None:
        """See `Leadership`."""
        return self.terms() == self.term


class Process:
    """One process of the provisioner."""

    def __init__(
        self,
        name: str,
        *,
        cluster: Cluster,
        trees: Mapping[Location, Tree],
        clock: Clock,
        metrics: Metrics,
        parts: Parts,
        leadership: Leadership,
        ended: Callable[[Process, BaseException | None], None],
        with_snapshots: bool = False,
    ) -> None:
        """`ended` is called when the process ends, with its error, or None if it was stopped."""
        self.name = name
        self.dead = False
        self.stopping = asyncio.Event()
        self._clock = clock
        self._metrics = metrics
        self._parts = parts
        self._leadership = leadership
        exports = {location: parts.export(location, tree) for location, tree in trees.items()}
        self._exports = ExportRegistry(exports, next(iter(exports)), nowhere)
        self._cache = parts.cache(self._exports.places, with_snapshots=with_snapshots)
        self._cluster = parts.cluster(cluster, self._cache)
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the process."""
        context = copy_context()
        context.run(running.set, self)
        self._task = asyncio.get_running_loop().create_task(self._main(), name=self.name, context=context)

    def die(self) -> None:
        """End immediately, as by kill -9: nothing that it does from now on has an effect."""
        self.dead = True
        if self._task is not None:
            self._task.cancel()

    async def _main(self) -> None:
        end: BaseException | None = None
        try:
            await self._run()
        except BaseException as exc:  # noqa: BLE001  # an uncaught error ends the process, not the simulation
            end = exc
        self._ended(self, end)

    async def _run(self) -> None:
        cluster, cache, clock, metrics = self._cluster, self._cache, self._clock, self._metrics
        supervisor = self._parts.supervisor(clock, metrics)
        health = ExportHealth(self._exports, clock, metrics, marked=cache.marked)
        recorder = EventRecorder(cluster, clock, count=metrics.unexpected)
        ctx = ControllerContext(
            provisioner=PROVISIONER,
            cluster=cluster,
            cache=cache,
            exports=self._exports,
            health=health,
            recorder=recorder,
            metrics=metrics,
            clock=clock,
        )
        reflectors = [Reflector(each, cluster=cluster, clock=clock, restarted=_ignore) for each in cache.informers]
        leader = LeaderTasks(ctx, self._leadership, workers=WORKERS, relist=partial(relist, reflectors))
        async with asyncio.TaskGroup() as group:
            background = [
                *(supervisor.keep("reflector", each.run, kind=each.kind) for each in reflectors),
                supervisor.keep("exports", health.run),
                supervisor.keep("exports", UnusedExports(ctx).run),
                supervisor.keep("events", recorder.run),
            ]
            tasks = [group.create_task(each) for each in background]
            await supervisor.keep("leader", partial(leader.run, self.stopping), until=self.stopping)
            for task in tasks:
                task.cancel()


def _ignore(_kind: Kind) -> None:
    """The restarts of watches are not counted."""


def nowhere(location: Location, _options: MountOptions) -> tuple[Export, SetRoutes]:
    """The driver for exports that no setting names."""
    raise ExportError(Cause.UNREACHABLE, f"{location} is no part of this simulation")


def unreachable() -> NoReturn:
    """Raise Died, for a process that is dead."""
    raise Died

"""One process of the provisioner, put together as app.run does it, over fakes of its ports; it can die at any call."""

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
"""The process whose code this is; None for everybody else."""


class Died(BaseException):
    """The process is dead: whatever it still tries reaches nobody."""


class Parts:
    """What a process is made of; a deliberate bug substitutes one of them."""

    def cluster(self, cluster: Cluster, cache: ClusterCache) -> Cluster:
        """The API server as control sees it."""
        return cluster

    def cache(self) -> ClusterCache:
        """The cache."""
        return ClusterCache(PROVISIONER)

    def export(self, location: Location, tree: Tree) -> Export:
        """An export with its ledger."""
        return Export(location, tree)

    def supervisor(self, clock: Clock, metrics: Metrics) -> Supervisor:
        """What keeps the loops running."""
        return Supervisor(clock, metrics)


class Clock(LoopClock):
    """Simulated time with chance of its own, and a wall clock that may be wrong."""

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
    """The `Leadership` of a process. The last one that was started has the Lease; those before it do not know yet."""

    instance: str
    term: int
    terms: Callable[[], int]
    """The term of the last one that was started."""

    def holds(self) -> bool:
        """See `Leadership`."""
        return True

    async def confirm(self) -> bool | None:
        """See `Leadership`."""
        return self.terms() == self.term


class Process:
    """One process. `ended` is called with what ended it, or None where it was told to."""

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
    ) -> None:
        self.name = name
        self.dead = False
        self.stopping = asyncio.Event()
        self._clock = clock
        self._metrics = metrics
        self._parts = parts
        self._leadership = leadership
        self._cache = parts.cache()
        self._cluster = parts.cluster(cluster, self._cache)
        exports = {location: parts.export(location, tree) for location, tree in trees.items()}
        self._exports = ExportRegistry(exports, next(iter(exports)), nowhere)
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        context = copy_context()
        context.run(running.set, self)
        self._task = asyncio.get_running_loop().create_task(self._main(), name=self.name, context=context)

    def die(self) -> None:
        """End at once, as by kill -9: nothing that is done from now on reaches anybody."""
        self.dead = True
        if self._task is not None:
            self._task.cancel()

    async def _main(self) -> None:
        end: BaseException | None = None
        try:
            await self._run()
        except BaseException as exc:  # noqa: BLE001  # a process ends with whatever it does not catch, the simulation does not
            end = exc
        self._ended(self, end)

    async def _run(self) -> None:
        cluster, cache, clock, metrics = self._cluster, self._cache, self._clock, self._metrics
        supervisor = self._parts.supervisor(clock, metrics)
        watch = ExportHealth(self._exports, clock, metrics, marked=cache.marked)
        recorder = EventRecorder(cluster, clock, count=metrics.unexpected)
        ctx = ControllerContext(
            provisioner=PROVISIONER,
            cluster=cluster,
            cache=cache,
            exports=self._exports,
            health=watch,
            recorder=recorder,
            metrics=metrics,
            clock=clock,
        )
        reflectors = [Reflector(each, cluster=cluster, clock=clock, restarted=_ignore) for each in cache.informers]
        term = LeaderTasks(ctx, self._leadership, workers=WORKERS, relist=partial(relist, reflectors))
        async with asyncio.TaskGroup() as group:
            background = [
                *(supervisor.keep("reflector", each.run, kind=each.kind) for each in reflectors),
                supervisor.keep("exports", watch.run),
                supervisor.keep("exports", UnusedExports(ctx).run),
                supervisor.keep("events", recorder.run),
            ]
            tasks = [group.create_task(each) for each in background]
            await supervisor.keep("leader", partial(term.lead, self.stopping), until=self.stopping)
            for task in tasks:
                task.cancel()


def _ignore(_kind: Kind) -> None:
    """Nobody counts the watches."""


def nowhere(location: Location, _options: MountOptions) -> tuple[Export, SetRoutes]:
    """The driver of exports that no setting names."""
    raise ExportError(Cause.UNREACHABLE, f"{location} is no part of this simulation")


def unreachable() -> NoReturn:
    """For a process that is dead."""
    raise Died

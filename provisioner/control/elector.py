"""The elector: lets the work run exactly while this replica holds the Lease (core.leases has the rules)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from provisioner.control.supervision import Count, Shield
from provisioner.core import leases
from provisioner.core.leases import LeaseRecord, LeaseTimes, Observation
from provisioner.ports import AlreadyExists, Clock, Cluster, ClusterError, Conflict

log = structlog.get_logger(__name__)

Lead = Callable[[asyncio.Event], Awaitable[None]]
"""The leader's work: ends by itself, in good order, after the event is set; cancelled when the lease is lost."""


class Elector:
    """Holds one Lease for one identity."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes,
        count: Count = lambda loop: None,
    ) -> None:
        """`count` is called for unexpected errors; each is no more than a try that failed."""
        self._cluster = cluster
        self._clock = clock
        self._count = count
        self._namespace, self._name = namespace, name
        self._identity = identity
        self._times = times
        self._seen: Observation | None = None

    async def run(self, lead: Lead, stopping: asyncio.Event) -> None:
        """Wait for the lease, lead, and wait again when it is lost; release it and return when told to stop."""
        while not stopping.is_set():
            asked_s = await self._acquire(stopping)
            if asked_s is None:
                return
            log.info("leading", lease=self._name, identity=self._identity)
            await self._hold(lead, stopping, asked_s)

    async def _acquire(self, stopping: asyncio.Event) -> float | None:
        """Try until the lease is ours; returns when (monotonic) the successful request was sent."""
        while not stopping.is_set():
            asked_s = self._clock.monotonic()
            if await self._try():
                return asked_s
            pause_s = self._times.retry_period_s * (1 + 0.2 * self._clock.random())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await stopping.wait()
        return None

    async def _hold(self, lead: Lead, stopping: asyncio.Event, asked_s: float) -> None:
        work = asyncio.ensure_future(lead(stopping))
        keeping = asyncio.create_task(self._renew(asked_s))
        try:
            await asyncio.wait({work, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                log.error("lease_lost", lease=self._name, identity=self._identity)
        finally:
            for task in (work, keeping):
                task.cancel()
            await asyncio.gather(work, keeping, return_exceptions=True)
            if stopping.is_set():
                await self._release()

    async def _renew(self, asked_s: float) -> None:
        """Renew until that fails for the renew deadline, or until somebody else has the lease."""
        while True:
            await self._clock.sleep(self._times.retry_period_s)
            left_s = asked_s + self._times.renew_deadline_s - self._clock.monotonic()
            if left_s <= 0:
                return
            now_s = self._clock.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    if await self._try():
                        asked_s = now_s
            except TimeoutError:
                return
            if self._seen is not None and self._seen.lease.holder not in ("", self._identity):
                return

    async def _try(self) -> bool:
        """Read the lease if we must, and write our name into it if we may."""
        with Shield("lease", self._count, lease=self._name):
            return await self._ask()
        return False

    async def _ask(self) -> bool:
        try:
            if self._seen is None or self._seen.lease.holder != self._identity:
                await self._look()
            if not leases.claimable(self._seen, self._identity, self._clock.monotonic()):
                return False
            await self._write(leases.taken(self._seen, self._identity, self._times, self._stamp()))
        except (Conflict, AlreadyExists):
            with suppress(ClusterError):
                await self._look()  # somebody wrote it meanwhile: who?
            return False
        except ClusterError as exc:
            log.warning("lease_not_reached", lease=self._name, error=str(exc))
            return False
        return True

    async def _look(self) -> None:
        lease = await self._cluster.get_lease(self._namespace, self._name)
        self._seen = None if lease is None else leases.observe(self._seen, lease, self._clock.monotonic())

    async def _write(self, lease: LeaseRecord) -> None:
        write = self._cluster.replace_lease if lease.version else self._cluster.create_lease
        written = await write(self._namespace, self._name, lease)
        self._seen = leases.observe(self._seen, written, self._clock.monotonic())

    async def _release(self) -> None:
        if self._seen is None or self._seen.lease.holder != self._identity:
            return
        with Shield("lease", self._count), suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._write(leases.released(self._seen.lease, self._stamp()))
                log.info("lease_released", lease=self._name)

    def _stamp(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

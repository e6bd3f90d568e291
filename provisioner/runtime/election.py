"""Leader election by a Lease.

The leader's work runs exactly while this replica holds it (rules: core.leases).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from provisioner.core import leases
from provisioner.core.backoff import is_logged
from provisioner.core.leases import LeaseRecord, LeaseTimes, Observation
from provisioner.ports.aio import wait_for_event
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import AlreadyExists, Cluster, ClusterError, Conflict, Forbidden, NotFound, Rejected
from provisioner.runtime.supervision import Count, Shield

log = structlog.get_logger(__name__)

Lead = Callable[[asyncio.Event], Awaitable[None]]
"""The leader's work: returns cleanly after the event is set; cancelled when the lease is lost."""

_LASTING = 4
"""After this many failures in a row the replica counts as unable to take part."""
_RELEASE_S = 1.0
"""How long a replica that stops tries to release the lease."""


class Elector:
    """Acquires and renews one Lease for one identity."""

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
        went_back: Callable[[], None] = lambda: None,
    ) -> None:
        """`went_back` is called when the Lease shows that etcd was restored from a backup.

        `count` is called for unexpected errors; each counts as one failed try.
        """
        self._cluster = cluster
        self._clock = clock
        self._count = count
        self._namespace, self._name = namespace, name
        self._identity = identity
        self._times = times
        self._went_back = went_back
        self._seen: Observation | None = None
        self._failures = 0
        self._error: ClusterError | None = None
        self._held_until_s = -math.inf

    @property
    def instance(self) -> str:
        """See `Leadership`."""
        return self._identity

    @property
    def term(self) -> int:
        """See `Leadership`."""
        return self._seen.lease.transitions if self._seen is not None else 0

    def holds(self) -> bool:
        """See `Leadership`."""
        return self._clock.monotonic() < self._held_until_s

    async def confirm(self) -> bool:
        """See `Leadership`. The answer does not change what this replica knows of the Lease."""
        lease = await self._cluster.get_lease(self._namespace, self._name)
        return lease is not None and lease.holder == self._identity and self.holds()

    @property
    def trouble(self) -> str:
        """Why this replica cannot take part in the election.

        Returns an empty string if it can, and while another replica leads.
        """
        if isinstance(self._error, Rejected | NotFound) or self._failures >= _LASTING:
            hint = self._hint()
            return f"{self._error}; {hint}" if hint else str(self._error)
        return ""

    async def run(self, lead: Lead, stopping: asyncio.Event) -> None:
        """Acquire the lease, lead, and start over when it is lost.

        Once stopping is set, release it and return.
        """
        while not stopping.is_set():
            asked_s = await self._acquire(stopping)
            if asked_s is None:
                return
            log.info("leading", lease=self._name, identity=self._identity)
            await self._hold(lead, stopping, asked_s)

    async def _acquire(self, stopping: asyncio.Event) -> float | None:
        """Try until this replica has the lease.

        Return when (monotonic) the successful request was sent.
        """
        while not stopping.is_set():
            asked_s = self._clock.monotonic()
            if await self._try():
                return asked_s
            pause_s = self._times.retry_period_s * (1 + 0.2 * self._clock.random())
            await wait_for_event(stopping, timeout_s=pause_s)
        return None

    async def _hold(self, lead: Lead, stopping: asyncio.Event, asked_s: float) -> None:
        """Run the work while renewing the lease, until either ends."""
        # The deadline counts from before the request: another replica counts from when the server got it, or later.
        self._held_until_s = asked_s + self._times.renew_deadline_s
        work = asyncio.ensure_future(lead(stopping))
        keeping = asyncio.create_task(self._renew())
        try:
            await asyncio.wait({work, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()  # raises what the work raised
            else:
                log.error("lease_lost", lease=self._name, identity=self._identity)
        finally:
            self._held_until_s = -math.inf
            for task in (work, keeping):
                task.cancel()
            await asyncio.gather(work, keeping, return_exceptions=True)
            if stopping.is_set():
                await self._release()

    async def _renew(self) -> None:
        """Renew until that fails for the renew deadline, or until another replica has the lease."""
        while True:
            await self._clock.sleep(self._times.retry_period_s)
            left_s = self._held_until_s - self._clock.monotonic()
            if left_s <= 0:
                return
            now_s = self._clock.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    if await self._try():
                        self._held_until_s = now_s + self._times.renew_deadline_s
            except TimeoutError:
                return
            if self._seen is not None and self._seen.holder not in ("", self._identity):
                return

    async def _try(self) -> bool:
        """Make one try to acquire or renew the lease; return whether this replica has it now."""
        with Shield("lease", self._count, lease=self._name):
            return await self._ask()
        return False

    async def _ask(self) -> bool:
        try:
            written = await self._try_to_write()
        except ClusterError as exc:
            self._failed(exc)
            return False
        self._failures, self._error = 0, None
        return written

    async def _try_to_write(self) -> bool:
        """Write the identity into the lease if that is allowed; return whether it was written.

        Raises ClusterError.
        """
        if self._seen is None or self._seen.holder != self._identity:
            await self._look()
        if not leases.claimable(self._seen, self._identity, self._clock.monotonic()):
            return False
        lease = leases.taken(self._seen, self._identity, self._times, self._stamp())
        try:
            await self._write(lease)
        except (Conflict, AlreadyExists):
            await self._look()  # another replica has written it since it was read
            return False
        except NotFound:
            if not lease.version:
                raise  # creating it failed: the namespace does not exist
            await self._look()
            return False
        return True

    def _failed(self, error: ClusterError) -> None:
        """Count a failure; log the 1st, 2nd, 4th, 8th … in a row, and each of a new kind."""
        new = type(error) is not type(self._error)
        self._failures, self._error = self._failures + 1, error
        if not (new or is_logged(self._failures)):
            return
        fields = {"lease": self._name, "failures": self._failures, "error": str(error), "hint": self._hint() or None}
        if isinstance(error, Forbidden):
            log.warning("lease_forbidden", **fields)
        else:
            log.warning("lease_not_reached", **fields)

    def _hint(self) -> str:
        if isinstance(self._error, Forbidden):
            right = "get, create and update on leases.coordination.k8s.io"
            return f"grant {right} in the namespace {self._namespace}, as the chart's Role does"
        if isinstance(self._error, NotFound):
            return f"create the namespace {self._namespace}, or name another one with --lease-namespace"
        return ""

    async def _look(self) -> None:
        self._observe(await self._cluster.get_lease(self._namespace, self._name))

    async def _write(self, lease: LeaseRecord) -> None:
        write = self._cluster.replace_lease if lease.version else self._cluster.create_lease
        self._observe(await write(self._namespace, self._name, lease))

    def _observe(self, lease: LeaseRecord | None) -> None:
        if leases.went_back(self._seen, lease):
            log.warning("lease_went_back", lease=self._name, version=lease.version if lease else None)
            self._went_back()
        self._seen = leases.observe(self._seen, lease, self._clock.monotonic())

    async def _release(self) -> None:
        """Give the lease up, best effort: without that, the next leader waits until it expires."""
        with Shield("lease", self._count), suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                while self._seen is not None and self._seen.lease.holder == self._identity:
                    try:
                        await self._write(leases.released(self._seen.lease, self._stamp()))
                        log.info("lease_released", lease=self._name)
                    except Conflict:
                        await self._look()  # the server got the renewal that was cancelled

    def _stamp(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

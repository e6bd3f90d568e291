"""Leader election on a Lease, as a state machine over observations; time is the local monotonic clock only.

The server's clock and the holder's clock are never compared with ours: a lease counts as held for its duration from
the moment that *we* saw it change, and we count as its holder for `renew_deadline_s` from the moment that we *asked*
for the last renewal that succeeded, so that we stop before anybody else may start (client-go, tools/leaderelection).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from provisioner.core.errors import InvalidSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A `coordination.k8s.io/v1` Lease. Times are RFC 3339 texts with microseconds that we only compare for change."""

    holder: str = ""
    duration_s: float = 15.0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    version: str = ""
    """The object's resourceVersion; empty for one that is to be created."""
    program: str = ""
    """The version of the program that wrote it last, which its driver notes; empty for one that does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long a lease lasts, how long its holder goes on without a renewal, and how often either side tries."""

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse times with which two leaders could overlap, or none could stay."""
        if not self.duration_s > self.renew_deadline_s > self.retry_period_s > 0:
            raise InvalidSettings(
                f"--lease-duration ({self.duration_s:g} s) must exceed --renew-deadline ({self.renew_deadline_s:g} s),"
                f" and that above --retry-period ({self.retry_period_s:g} s)"
            )
        if self.duration_s < 1:
            raise InvalidSettings("--lease-duration must be at least one second: a Lease counts whole seconds")


@dataclass(frozen=True, slots=True)
class Observation:
    """A lease, and the local time at which it was first seen as it is."""

    lease: LeaseRecord
    since_s: float


def observe(previous: Observation | None, lease: LeaseRecord, now_s: float) -> Observation:
    """What we know after reading the lease; only a change of it starts its time anew."""
    if previous is not None and previous.lease.version == lease.version:
        return previous
    return Observation(lease, now_s)


def claimable(seen: Observation | None, identity: str, now_s: float) -> bool:
    """Whether we may write our name: nobody holds the lease, we do, or its holder let it run out before our eyes."""
    if seen is None or not seen.lease.holder or seen.lease.holder == identity:
        return True
    return now_s >= seen.since_s + seen.lease.duration_s


def taken(seen: Observation | None, identity: str, times: LeaseTimes, stamp: str) -> LeaseRecord:
    """The lease as we write it to acquire or to renew it; `stamp` is the wall clock, for people to read."""
    if seen is None:
        return LeaseRecord(holder=identity, duration_s=times.duration_s, acquired=stamp, renewed=stamp)
    lease = seen.lease
    if lease.holder == identity:
        return replace(lease, duration_s=times.duration_s, renewed=stamp)
    return replace(
        lease,
        holder=identity,
        duration_s=times.duration_s,
        acquired=stamp,
        renewed=stamp,
        transitions=lease.transitions + 1,
    )


def released(lease: LeaseRecord, stamp: str) -> LeaseRecord:
    """The lease as a holder that stops leaves it: free at once for the next one."""
    return replace(lease, holder="", duration_s=1.0, renewed=stamp)

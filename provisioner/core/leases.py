"""Leader election on a Lease, as a state machine over observations; time is the local monotonic clock only.

The clocks of the API server and of the holder are never compared with the local one. A lease counts as held for its
duration from the moment this replica *saw* it change. A leader counts as its holder for `renew_deadline_s` from the
moment it *sent* the last successful renewal, so that it stops before another replica starts (client-go,
tools/leaderelection).

A lease that vanished, or whose version went back (etcd was restored from a backup), does not say who leads now. The
holder known before still counts for the duration: a leader continues, and the other replicas wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from provisioner.core.errors import InvalidSettings
from provisioner.core.versions import is_below


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A `coordination.k8s.io/v1` Lease.

    Its times are RFC 3339 texts that are only compared for change.
    """

    holder: str = ""
    duration_s: float = 15.0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    version: str = ""
    """The object's resourceVersion; empty for a Lease that does not exist yet."""
    program: str = ""
    """The version of the program that wrote it last; empty if unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long a lease lasts, how long its holder leads without a renewal, and how often replicas try."""

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse times with which two leaders could overlap, or no leader could stay."""
        if not self.duration_s > self.renew_deadline_s > self.retry_period_s > 0:
            raise InvalidSettings(
                f"--lease-duration ({self.duration_s:g} s) must exceed --renew-deadline ({self.renew_deadline_s:g} s),"
                f" which must exceed --retry-period ({self.retry_period_s:g} s)"
            )
        if self.duration_s < 1:
            raise InvalidSettings("--lease-duration must be at least one second: a Lease has whole seconds")


@dataclass(frozen=True, slots=True)
class Observation:
    """A lease, and the local time at which it was first seen in this state."""

    lease: LeaseRecord
    """Its version is empty while the Lease does not exist."""
    since_s: float
    holder: str
    """The replica that counts as its holder."""
    duration_s: float
    """How long that holder can be silent."""


def observe(previous: Observation | None, lease: LeaseRecord | None, now_s: float) -> Observation:
    """Return the observation after reading the lease, or its absence.

    Only a change restarts its time.
    """
    lease = lease or LeaseRecord()
    if previous is None:
        return Observation(lease, now_s, lease.holder, lease.duration_s)
    known = previous.lease
    if (known.version, known.renewed) == (lease.version, lease.renewed):
        return previous
    if went_back(previous, lease) and previous.holder:
        lease = replace(lease, transitions=max(lease.transitions, known.transitions))
        return Observation(lease, now_s, previous.holder, max(lease.duration_s, previous.duration_s))
    return Observation(lease, now_s, lease.holder, lease.duration_s)


def went_back(previous: Observation | None, lease: LeaseRecord | None) -> bool:
    """Return True if a lease that was seen before has vanished, or is an older one now."""
    if previous is None or not previous.lease.version:
        return False
    return lease is None or not lease.version or is_below(lease.version, previous.lease.version)


def claimable(seen: Observation | None, identity: str, now_s: float) -> bool:
    """Return True if `identity` can take the lease: it is free, its own, or seen to expire."""
    if seen is None or seen.holder in ("", identity):
        return True
    return now_s >= seen.since_s + seen.duration_s


def taken(seen: Observation | None, identity: str, times: LeaseTimes, stamp: str) -> LeaseRecord:
    """Return the lease to write for acquiring or renewing it.

    `stamp` is the wall clock, for people to read.
    """
    if seen is None or not (seen.lease.version or seen.lease.transitions):
        return LeaseRecord(holder=identity, duration_s=times.duration_s, acquired=stamp, renewed=stamp)
    lease, renewal = seen.lease, seen.holder == identity
    return replace(
        lease,
        holder=identity,
        duration_s=times.duration_s,
        acquired=lease.acquired if renewal and lease.holder == identity else stamp,
        renewed=stamp,
        transitions=lease.transitions + (0 if renewal else 1),
    )


def released(lease: LeaseRecord, stamp: str) -> LeaseRecord:
    """Return the lease to write when its holder stops: free for the next one immediately."""
    return replace(lease, holder="", duration_s=1.0, renewed=stamp)

"""The measurements. Each takes a Site, leaves no volume behind, and gives figures by name."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from provisioner.core.records import Record, encode
from testbed.waiting import eventually
from tests.benchmarks import objects, usage
from tests.benchmarks.flood import Request
from tests.benchmarks.sightings import VOLUMES
from tests.benchmarks.site import Site

Figures = dict[str, float]
"""Values by the keys of report.FIGURES."""

_EVENTS_A_VOLUME = 2
"""Provisioning and ProvisioningSucceeded."""
_PAUSE_S = 0.02
"""Between single claims, so that each finds the daemon at rest."""


def ceiling(site: Site, count: int) -> Figures:
    """What the API server does with volumes like ours, created and deleted by a client that does nothing else."""
    namespace = site.namespace("ceiling")
    names = [f"{namespace}-{i}" for i in range(count)]
    bodies = [
        objects.volume(
            name, namespace=namespace, claim=f"claim-{i}", claim_uid=name, export_id="0" * 32, finalizer=False
        )
        for i, name in enumerate(names)
    ]
    created = site.flood(*(Request("POST", VOLUMES, body) for body in bodies))
    site.sightings.added(namespace, count)
    deleted = site.flood(*(Request("DELETE", f"{VOLUMES}/{name}") for name in names))
    site.sightings.deleted(namespace, count)
    return {"ceiling_create": created.rate, "ceiling_delete": deleted.rate}


def backlog(site: Site, count: int) -> Figures:
    """The daemon starts and finds so many claims, and later so many released volumes, waiting for it."""
    namespace = site.namespace("backlog")
    site.create_claims(namespace, count)
    started_s = time.monotonic()
    site.daemon.start()
    added_s = site.sightings.added(namespace, count)
    events_s = _events_written(site, count)
    figures = {
        "start_to_first": added_s[0] - started_s,
        "backlog_create": _rate(added_s),
        "backlog_events": events_s - added_s[-1],
    }
    _rest_and_stop(site)
    site.release(namespace)
    started_s = time.monotonic()
    site.daemon.start()
    deleted_s = site.sightings.deleted(namespace, count)
    _rest_and_stop(site)
    return figures | {"start_to_first_delete": deleted_s[0] - started_s, "backlog_delete": _rate(deleted_s)}


def burst(site: Site, count: int) -> tuple[Figures, Counter[str], Counter[str]]:
    """So many claims are created, and later released, as fast as they are taken, while the daemon runs and is idle.

    Beside the figures: the daemon's requests for all creations, and for all deletions.
    """
    namespace = site.namespace("burst")
    _started(site)
    before = _Reading.of(site)
    made = site.create_claims(namespace, count)
    added_s = site.sightings.added(namespace, count)
    # It is quiet when all events are written. Asking it for its metrics meanwhile would cost it CPU.
    usage.wait_quiet(before.pid)
    between = _Reading.of(site)
    released = site.release(namespace)
    deleted_s = site.sightings.deleted(namespace, count)
    usage.wait_quiet(before.pid)
    after = _Reading.of(site)
    figures = {
        "burst_create": count / (added_s[-1] - made.began_s),
        "burst_claims": made.rate,
        "burst_delete": count / (deleted_s[-1] - released.began_s),
        "cpu_create": (between.daemon_s - before.daemon_s) / count * 1e3,
        "cpu_delete": (after.daemon_s - between.daemon_s) / count * 1e3,
        "cpu_server_create": (between.server_s - before.server_s) / count * 1e3,
        "cpu_server_delete": (after.server_s - between.server_s) / count * 1e3,
        "requests_create": (between.requests - before.requests).total() / count,
        "requests_delete": (after.requests - between.requests).total() / count,
        "cpu_others": after.others_percent(before),
    }
    _rest_and_stop(site)
    return figures, between.requests - before.requests, after.requests - between.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What everybody had used at one moment."""

    pid: int
    at_s: float
    daemon_s: float
    server_s: float
    own_s: float
    machine_s: float
    requests: Counter[str]

    @classmethod
    def of(cls, site: Site) -> Self:
        assert site.daemon.pid is not None
        return cls(
            pid=site.daemon.pid,
            at_s=time.monotonic(),
            daemon_s=usage.cpu_s(site.daemon.pid),
            server_s=site.server_cpu_s(),
            own_s=usage.own_cpu_s(),
            machine_s=usage.machine_cpu_s(),
            requests=usage.api_requests(site.daemon),
        )

    def others_percent(self, since: Self) -> float:
        """How busy others have kept the machine since then: what they had, rates of ours lack."""
        ours_s = sum((self.daemon_s - since.daemon_s, self.server_s - since.server_s, self.own_s - since.own_s))
        whole_s = (self.at_s - since.at_s) * (os.cpu_count() or 1)
        return max(0.0, (self.machine_s - since.machine_s - ours_s) / whole_s * 100)


def single(site: Site, count: int) -> tuple[list[float], list[float]]:
    """One claim after the other, in milliseconds: from the claim's sending, and from its answer, to its volume seen.

    The second leaves out what the API server takes to store the claim, but the watch may bring the claim to the daemon
    before the answer comes to us.
    """
    namespace = site.namespace("single")
    pid = _started(site)
    from_sending_ms, from_answer_ms = [], []
    with site.one_by_one(namespace) as connection:
        for i in range(count):
            sent_s = time.monotonic()
            site.post_claim(connection, namespace, f"claim-{i}")
            answered_s = time.monotonic()
            seen_s = site.sightings.added(namespace, i + 1)[i]
            from_sending_ms.append((seen_s - sent_s) * 1e3)
            from_answer_ms.append((seen_s - answered_s) * 1e3)
            time.sleep(_PAUSE_S)
    usage.wait_quiet(pid)
    site.release(namespace)
    site.sightings.deleted(namespace, count)
    _rest_and_stop(site)
    return from_sending_ms, from_answer_ms


def idle(site: Site) -> Figures:
    """The memory of a daemon that leads and has nothing to do."""
    pid = _started(site)
    figures = {"memory_idle": usage.memory_mb(pid), "memory_idle_peak": usage.memory_mb(pid, "VmHWM")}
    site.daemon.stop()
    return figures


def held(site: Site, count: int) -> Figures:
    """The memory of a daemon that starts with so many claims, bound volumes and records of the ledger.

    The daemon did not make them, so that this takes a minute and not several; the site is of no use after it.
    """
    namespace = site.namespace("held")
    names = [f"claim-{i}" for i in range(count)]
    path = objects.claims_path(namespace)
    site.flood(*(Request("POST", path, objects.claim(name, volume=f"pvc-{namespace}-{name}")) for name in names))
    uids = {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in site.api.list(path)}
    volumes = {name: f"pvc-{uids[name]}" for name in names}
    _write_ledger(site.export, namespace, uids)
    export_id = (site.export / ".provisioner" / "export").readlink().name
    bodies = (
        objects.volume(
            volumes[name],
            namespace=namespace,
            claim=name,
            claim_uid=uids[name],
            export_id=export_id,
            finalizer=True,
        )
        for name in names
    )
    site.flood(*(Request("POST", VOLUMES, body) for body in bodies))
    bound = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": objects.SIZE}}
    site.flood(*(Request("PATCH", f"{path}/{name}/status", {"status": bound}) for name in names))
    phase = {"status": {"phase": "Bound"}}
    site.flood(*(Request("PATCH", f"{VOLUMES}/{name}/status", phase) for name in volumes.values()))
    began_s = time.monotonic()
    site.daemon.start()
    site.daemon.wait_ready(timeout_s=300.0)
    ready_s = time.monotonic() - began_s
    assert site.daemon.pid is not None
    usage.wait_quiet(site.daemon.pid)
    figures = {
        "start_to_ready_held": ready_s,
        "memory_held": usage.memory_mb(site.daemon.pid),
        "memory_held_peak": usage.memory_mb(site.daemon.pid, "VmHWM"),
    }
    site.daemon.stop()
    return figures


def _write_ledger(export: Path, namespace: str, uids: dict[str, str]) -> None:
    for claim, uid in uids.items():
        volume = f"pvc-{uid}"
        record = Record(
            directory=f"{namespace}-{claim}-{volume}",
            namespace=namespace,
            claim=claim,
            claim_uid=uid,
            class_name=objects.CLASS,
            on_delete="delete",
            capacity=objects.SIZE,
            created="2026-01-01T00:00:00Z",
        )
        (export / ".provisioner" / "volumes" / volume).symlink_to(encode(record))


def _started(site: Site) -> int:
    """Start the daemon, wait until it leads and is at rest, and give its process id."""
    site.daemon.start()
    eventually(lambda: "nfs_provisioner_leader 1.0" in site.daemon.http("/metrics"), "the daemon leads")
    assert site.daemon.pid is not None
    usage.wait_quiet(site.daemon.pid)
    return site.daemon.pid


def _rest_and_stop(site: Site) -> None:
    assert site.daemon.pid is not None
    usage.wait_quiet(site.daemon.pid)
    site.daemon.stop()


def _rate(times_s: list[float]) -> float:
    """A second, from the first to the last."""
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])


def _events_written(site: Site, volumes: int) -> float:
    """Wait until a daemon that was just started has written the events of so many volumes; when that was."""
    wanted = _EVENTS_A_VOLUME * volumes
    eventually(lambda: usage.api_requests(site.daemon)["create events"] >= wanted, f"{wanted} events", timeout_s=300.0)
    return time.monotonic()


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that is not below `percent` of all of them."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]

"""The measurements. Each takes a Bench, leaves no volume behind, and returns figures by name."""

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
from tests.benchmarks.bench import Bench
from tests.benchmarks.flood import Request
from tests.benchmarks.volume_watch import VOLUMES

Figures = dict[str, float]
"""Values by the keys of report.FIGURES."""

_EVENTS_PER_VOLUME = 2
"""Provisioning and ProvisioningSucceeded."""
_PAUSE_S = 0.02
"""Between single claims, so that each finds the daemon idle."""


def ceiling(bench: Bench, count: int) -> Figures:
    """Measure how fast the API server creates and deletes volumes like ours for a client that does nothing else."""
    namespace = bench.namespace("ceiling")
    names = [f"{namespace}-{i}" for i in range(count)]
    bodies = [
        objects.volume(
            name, namespace=namespace, claim=f"claim-{i}", claim_uid=name, export_id="0" * 32, finalizer=False
        )
        for i, name in enumerate(names)
    ]
    created = bench.flood(*(Request("POST", VOLUMES, body) for body in bodies))
    bench.volumes.added(namespace, count)
    deleted = bench.flood(*(Request("DELETE", f"{VOLUMES}/{name}") for name in names))
    bench.volumes.deleted(namespace, count)
    return {"ceiling_create": created.rate, "ceiling_delete": deleted.rate}


def backlog(bench: Bench, count: int) -> Figures:
    """Measure a start of the daemon with `count` waiting claims, and one with as many released volumes."""
    namespace = bench.namespace("backlog")
    bench.create_claims(namespace, count)
    started_s = time.monotonic()
    bench.daemon.start()
    added_s = bench.volumes.added(namespace, count)
    events_s = _events_written(bench, count)
    figures = {
        "start_to_first": added_s[0] - started_s,
        "backlog_create": _rate(added_s),
        "backlog_events": events_s - added_s[-1],
    }
    _rest_and_stop(bench)
    bench.release(namespace)
    started_s = time.monotonic()
    bench.daemon.start()
    deleted_s = bench.volumes.deleted(namespace, count)
    _rest_and_stop(bench)
    return figures | {"start_to_first_delete": deleted_s[0] - started_s, "backlog_delete": _rate(deleted_s)}


def burst(bench: Bench, count: int) -> tuple[Figures, Counter[str], Counter[str]]:
    """Measure `count` claims that are created, and later released, as fast as possible beside an idle daemon.

    Return the figures, and the daemon's requests for all creations and for all deletions.
    """
    namespace = bench.namespace("burst")
    _started(bench)
    before = _Reading.of(bench)
    made = bench.create_claims(namespace, count)
    added_s = bench.volumes.added(namespace, count)
    # The daemon is quiet once all events are written. Asking for its metrics earlier would cost it CPU.
    usage.wait_quiet(before.pid)
    between = _Reading.of(bench)
    released = bench.release(namespace)
    deleted_s = bench.volumes.deleted(namespace, count)
    usage.wait_quiet(before.pid)
    after = _Reading.of(bench)
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
    _rest_and_stop(bench)
    return figures, between.requests - before.requests, after.requests - between.requests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The usage of all processes at one moment."""

    pid: int
    at_s: float
    daemon_s: float
    server_s: float
    own_s: float
    machine_s: float
    requests: Counter[str]

    @classmethod
    def of(cls, bench: Bench) -> Self:
        assert bench.daemon.pid is not None
        return cls(
            pid=bench.daemon.pid,
            at_s=time.monotonic(),
            daemon_s=usage.cpu_s(bench.daemon.pid),
            server_s=bench.server_cpu_s(),
            own_s=usage.own_cpu_s(),
            machine_s=usage.machine_cpu_s(),
            requests=usage.api_requests(bench.daemon),
        )

    def others_percent(self, since: Self) -> float:
        """Return the percentage of the machine that other processes used since then."""
        ours_s = sum((self.daemon_s - since.daemon_s, self.server_s - since.server_s, self.own_s - since.own_s))
        whole_s = (self.at_s - since.at_s) * (os.cpu_count() or 1)
        return max(0.0, (self.machine_s - since.machine_s - ours_s) / whole_s * 100)


def single(bench: Bench, count: int) -> tuple[list[float], list[float]]:
    """Measure single claims in milliseconds, from the request and from its answer until the volume appears.

    The second leaves out the API server's time to store the claim, but the watch can bring the claim to the daemon
    before the answer arrives here.
    """
    namespace = bench.namespace("single")
    pid = _started(bench)
    from_sending_ms, from_answer_ms = [], []
    with bench.one_by_one(namespace) as connection:
        for i in range(count):
            sent_s = time.monotonic()
            bench.post_claim(connection, namespace, f"claim-{i}")
            answered_s = time.monotonic()
            seen_s = bench.volumes.added(namespace, i + 1)[i]
            from_sending_ms.append((seen_s - sent_s) * 1e3)
            from_answer_ms.append((seen_s - answered_s) * 1e3)
            time.sleep(_PAUSE_S)
    usage.wait_quiet(pid)
    bench.release(namespace)
    bench.volumes.deleted(namespace, count)
    _rest_and_stop(bench)
    return from_sending_ms, from_answer_ms


def idle(bench: Bench) -> Figures:
    """Measure the memory of an idle leader."""
    pid = _started(bench)
    figures = {"memory_idle": usage.memory_mb(pid), "memory_idle_peak": usage.memory_mb(pid, "VmHWM")}
    bench.daemon.stop()
    return figures


def held(bench: Bench, count: int) -> Figures:
    """Measure the memory of a daemon that starts with `count` claims, bound volumes and ledger records.

    The bench writes them, which takes a minute instead of several; afterwards the bench cannot be used again.
    """
    namespace = bench.namespace("held")
    names = [f"claim-{i}" for i in range(count)]
    path = objects.claims_path(namespace)
    bench.flood(*(Request("POST", path, objects.claim(name, volume=f"pvc-{namespace}-{name}")) for name in names))
    uids = {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in bench.api.list(path)}
    volumes = {name: f"pvc-{uids[name]}" for name in names}
    _write_ledger(bench.export, namespace, uids)
    export_id = (bench.export / ".provisioner" / "export").readlink().name
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
    bench.flood(*(Request("POST", VOLUMES, body) for body in bodies))
    bound = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": objects.SIZE}}
    bench.flood(*(Request("PATCH", f"{path}/{name}/status", {"status": bound}) for name in names))
    phase = {"status": {"phase": "Bound"}}
    bench.flood(*(Request("PATCH", f"{VOLUMES}/{name}/status", phase) for name in volumes.values()))
    began_s = time.monotonic()
    bench.daemon.start()
    bench.daemon.wait_ready(timeout_s=300.0)
    ready_s = time.monotonic() - began_s
    assert bench.daemon.pid is not None
    usage.wait_quiet(bench.daemon.pid)
    figures = {
        "start_to_ready_held": ready_s,
        "memory_held": usage.memory_mb(bench.daemon.pid),
        "memory_held_peak": usage.memory_mb(bench.daemon.pid, "VmHWM"),
    }
    bench.daemon.stop()
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


def _started(bench: Bench) -> int:
    """Start the daemon, wait until it leads and is quiet, and return its process id."""
    bench.daemon.start()
    eventually(lambda: "nfs_provisioner_leader 1.0" in bench.daemon.http("/metrics"), "the daemon leads")
    assert bench.daemon.pid is not None
    usage.wait_quiet(bench.daemon.pid)
    return bench.daemon.pid


def _rest_and_stop(bench: Bench) -> None:
    assert bench.daemon.pid is not None
    usage.wait_quiet(bench.daemon.pid)
    bench.daemon.stop()


def _rate(times_s: list[float]) -> float:
    """Return the rate per second, from the first to the last."""
    return (len(times_s) - 1) / (times_s[-1] - times_s[0])


def _events_written(bench: Bench, volumes: int) -> float:
    """Wait until a daemon that was just started has written the events of all volumes, and return the time."""
    wanted = _EVENTS_PER_VOLUME * volumes
    eventually(lambda: usage.api_requests(bench.daemon)["create events"] >= wanted, f"{wanted} events", timeout_s=300.0)
    return time.monotonic()


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that is not below `percent` of all values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__trunc__() - 1)]

"""The measurements. Each takes a Bench and a Contestant, leaves no volume behind, and returns figures by name."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from tests.benchmarks import objects, usage
from tests.benchmarks.bench import PROGRAM, Bench
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.figures import Figures, percentile, rate
from tests.benchmarks.flood import Request

_PAUSE_S = 0.02
"""Between single claims, so that each finds the program idle."""
_RELIST_S = 15.0
"""Until both programs have found that the API server is back: client-go waits up to 13 s between its first attempts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of a backlog, and its API requests per volume by phase and kind."""

    figures: Figures
    requests: Mapping[str, Mapping[str, float]]


def warm_up(bench: Bench, contestant: Contestant) -> None:
    """Start and stop: the first start of the daemon writes byte code and creates the export's ledger."""
    single(bench, contestant, 5)


def ceiling(bench: Bench, count: int) -> tuple[float, float]:
    """Measure how fast the API server creates and deletes volumes for a client that does nothing else, per second."""
    namespace = bench.namespace("ceiling")
    names = [f"{namespace}-{i}" for i in range(count)]
    created = bench.flood(
        *(Request("POST", objects.VOLUMES, objects.volume(name, namespace=namespace)) for name in names)
    )
    bench.volumes.added(namespace, count)
    deleted = bench.flood(*(Request("DELETE", f"{objects.VOLUMES}/{name}") for name in names))
    bench.volumes.deleted(namespace, count)
    return created.rate, deleted.rate


def single(bench: Bench, contestant: Contestant, count: int) -> Figures:
    """Measure a start without work, and single claims from the request until the volume appears."""
    bench.use_classes(contestant.classes)
    namespace = bench.namespace("single")
    contestant.empty_trash()
    pid = contestant.start()
    figures = {"cpu_start": usage.cpu_s(pid) * 1e3, "memory_idle": usage.memory_mb(pid)}
    taken_ms = []
    with bench.connection() as connection:
        for i in range(count):
            sent_s = time.monotonic()
            bench.post_claim(connection, namespace, objects.claim(i, classes=len(contestant.classes)))
            seen_s = bench.volumes.added(namespace, i + 1)[i]
            taken_ms.append((seen_s - sent_s) * 1e3)
            time.sleep(_PAUSE_S)
    usage.wait_quiet(pid)
    bench.release(namespace)
    bench.volumes.deleted(namespace, count)
    contestant.stop()
    return figures | {"single_p50": percentile(taken_ms, 50), "single_p99": percentile(taken_ms, 99)}


def idle(bench: Bench, contestant: Contestant, seconds: float) -> Figures:
    """Measure what a leader without work costs, its Lease included."""
    bench.use_classes(contestant.classes)
    contestant.empty_trash()
    pid = contestant.start()
    began_s, requests, cpu_s = time.monotonic(), usage.user_requests(bench.metrics(), PROGRAM), usage.cpu_s(pid)
    time.sleep(seconds)
    requests, cpu_s = usage.user_requests(bench.metrics(), PROGRAM) - requests, usage.cpu_s(pid) - cpu_s
    minutes = (time.monotonic() - began_s) / 60
    contestant.stop()
    return {"requests_idle": requests / minutes, "cpu_idle": cpu_s * 1e3 / minutes}


def backlog(
    bench: Bench, contestant: Contestant, count: int, *, cpu_start_s: float, held: bool = False, relist: bool = False
) -> Measured:
    """Measure a start with `count` waiting claims, and one with as many released volumes.

    With `held` also a start between the two, with these claims and volumes Bound; with `relist` a list of everything
    too. The CPU per volume includes events and all other work until the program is quiet, without `cpu_start_s`.
    """
    bench.use_classes(contestant.classes)
    namespace = bench.namespace("backlog")
    contestant.empty_trash()
    bench.create_claims(namespace, count)
    before = _Reading.of(bench)
    contestant.server.start()
    added_s = bench.volumes.added(namespace, count)
    usage.wait_quiet(contestant.pid)
    created = _Reading.of(bench, contestant.pid)
    figures = {"memory_created": usage.memory_mb(contestant.pid)}
    contestant.stop()

    if held:
        bench.bind(namespace)
        figures |= _held(bench, contestant, relist=relist)
    contestant.empty_trash()
    bench.release(namespace)
    between = _Reading.of(bench)
    contestant.server.start()
    deleted_s = bench.volumes.deleted(namespace, count)
    usage.wait_quiet(contestant.pid)
    deleted = _Reading.of(bench, contestant.pid)
    figures["memory_deleted"] = usage.memory_mb(contestant.pid)
    contestant.stop()

    requests = {"created": created.requests - before.requests, "deleted": deleted.requests - between.requests}
    figures |= {
        "create_rate": rate(added_s),
        "delete_rate": rate(deleted_s),
        "start_to_first": added_s[0] - before.at_s,
        "start_to_first_delete": deleted_s[0] - between.at_s,
        "cpu_create": (created.program_s - cpu_start_s) / count * 1e3,
        "cpu_delete": (deleted.program_s - cpu_start_s) / count * 1e3,
        "cpu_server_create": (created.server_s - before.server_s) / count * 1e3,
        "cpu_server_delete": (deleted.server_s - between.server_s) / count * 1e3,
        "requests_create": requests["created"].total() / count,
        "requests_delete": requests["deleted"].total() / count,
        "cpu_others": created.others_percent(before),
    }
    per_volume = {phase: {kind: n / count for kind, n in kinds.items()} for phase, kinds in requests.items()}
    return Measured(figures=figures, requests=per_volume)


def _held(bench: Bench, contestant: Contestant, *, relist: bool) -> Figures:
    """Measure a start with Bound claims and volumes and one claim that waits."""
    namespace = bench.namespace("held")
    bench.create_claims(namespace, 1)
    began_s = time.monotonic()
    contestant.server.start()
    pid = contestant.pid
    figures = {"start_held": bench.volumes.added(namespace, 1)[0] - began_s}
    usage.wait_quiet(pid)
    figures |= {
        "cpu_held": usage.cpu_s(pid) * 1e3,
        "memory_held": usage.memory_mb(pid),
        "memory_held_peak": usage.memory_mb(pid, "VmHWM"),
    }
    if relist:
        usage.reset_peak(pid)
        bench.expire()
        time.sleep(_RELIST_S)
        # A program can end when the API server is away for longer than its Lease: then there is no figure.
        if contestant.server.pid == pid:
            usage.wait_quiet(pid)
            figures["relist_spike"] = usage.memory_mb(pid, "VmHWM") - figures["memory_held"]
        contestant.server.start()
    bench.release(namespace)
    bench.volumes.deleted(namespace, 1)
    contestant.stop()
    return figures


def whole(bench: Bench, contestant: Contestant, count: int) -> Figures:
    """Measure claims from their creation until they are Bound, and from their deletion until the volumes are gone.

    The whole control plane runs. The claims are created one after the other, as in Kubernetes' own performance test of
    storage drivers (test/e2e/storage/testsuites/volumeperf.go, with 300 claims of 1Mi).
    """
    bench.use_classes(contestant.classes)
    namespace = bench.namespace("whole")
    watch = bench.watch_claims()
    pid = contestant.start()
    sent_s = {}
    with bench.connection() as connection:
        for number in range(count):
            claim = objects.claim(number, handed_over=False)
            sent_s[claim["metadata"]["name"]] = time.monotonic()
            bench.post_claim(connection, namespace, claim)
    bound_s = watch.times(namespace, "bound", count)
    usage.wait_quiet(pid)
    taken_s = [bound_s[name] - at_s for name, at_s in sent_s.items()]

    path = objects.claims_path(namespace)
    deleted = bench.flood(*(Request("DELETE", f"{path}/{name}") for name in sent_s))
    gone_s = bench.volumes.deleted(namespace, count)
    contestant.stop()
    return {
        "bound_rate": count / (max(bound_s.values()) - min(sent_s.values())),
        "bound_p50": percentile(taken_s, 50),
        "bound_p99": percentile(taken_s, 99),
        "cleanup_rate": count / (gone_s[-1] - deleted.began_s),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The usage of all processes at one moment."""

    at_s: float
    program_s: float
    server_s: float
    own_s: float
    machine_s: float
    requests: Counter[str]

    @classmethod
    def of(cls, bench: Bench, pid: int | None = None) -> Self:
        """Read the usage, with a program that does not run yet as 0."""
        # The answer costs the API server CPU and time: ask it before the clocks.
        requests = bench.api_requests()
        return cls(
            program_s=0.0 if pid is None else usage.cpu_s(pid),
            server_s=bench.server_cpu_s(),
            own_s=usage.own_cpu_s(),
            machine_s=usage.machine_cpu_s(),
            requests=requests,
            at_s=time.monotonic(),
        )

    def others_percent(self, since: Self) -> float:
        """Return the percentage of the machine that other processes used since then."""
        known_s = sum((self.program_s - since.program_s, self.server_s - since.server_s, self.own_s - since.own_s))
        whole_s = (self.at_s - since.at_s) * (os.cpu_count() or 1)
        return max(0.0, (self.machine_s - since.machine_s - known_s) / whole_s * 100)

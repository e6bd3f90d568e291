"""The measurements. Each takes a Bench and a Contestant, leaves no volume behind, and returns figures by name."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from provisioner.core.records import Record, encode
from tests.benchmarks import objects, usage
from tests.benchmarks.bench import Bench
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.figures import Figures, percentile, rate
from tests.benchmarks.flood import Request
from tests.benchmarks.volume_watch import VOLUMES

_PAUSE_S = 0.02
"""Between single claims, so that each finds the program idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The figures of one contestant in one pair, and its API requests per volume by phase and kind."""

    figures: Figures
    requests: Mapping[str, Mapping[str, float]]


def measure(bench: Bench, contestant: Contestant, *, claims: int, singles: int) -> Measured:
    """Measure single claims, then a start with `claims` waiting claims, then one with as many released volumes."""
    bench.use_class(contestant.storage_class)
    figures = single(bench, contestant, singles)
    phases = backlog(bench, contestant, claims, cpu_start_s=figures["cpu_start"] / 1e3)
    return Measured(figures=figures | phases.figures, requests=phases.requests)


def warm_up(bench: Bench, contestant: Contestant) -> None:
    """Start and stop: the first start of the daemon writes byte code and creates the export's ledger."""
    bench.use_class(contestant.storage_class)
    single(bench, contestant, 5)


def ceiling(bench: Bench, count: int) -> tuple[float, float]:
    """Measure how fast the API server creates and deletes volumes for a client that does nothing else, per second."""
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
    return created.rate, deleted.rate


def single(bench: Bench, contestant: Contestant, count: int) -> Figures:
    """Measure an idle leader, and single claims from the request until the volume appears."""
    namespace = bench.namespace("single")
    contestant.empty_trash()
    pid = contestant.start()
    figures = {"cpu_start": usage.cpu_s(pid) * 1e3, "memory_idle": usage.memory_mb(pid)}
    taken_ms = []
    with bench.connection() as connection:
        for i in range(count):
            sent_s = time.monotonic()
            bench.post_claim(connection, namespace, f"claim-{i}")
            seen_s = bench.volumes.added(namespace, i + 1)[i]
            taken_ms.append((seen_s - sent_s) * 1e3)
            time.sleep(_PAUSE_S)
    usage.wait_quiet(pid)
    bench.release(namespace)
    bench.volumes.deleted(namespace, count)
    contestant.stop()
    return figures | {"single_p50": percentile(taken_ms, 50), "single_p99": percentile(taken_ms, 99)}


def backlog(bench: Bench, contestant: Contestant, count: int, *, cpu_start_s: float) -> Measured:
    """Measure a start with `count` waiting claims, and one with as many released volumes.

    The CPU per volume includes events and all other work until the program is quiet, without `cpu_start_s`.
    """
    namespace = bench.namespace("backlog")
    contestant.empty_trash()
    bench.create_claims(namespace, count)
    before = _Reading.of(bench)
    contestant.server.start()
    added_s = bench.volumes.added(namespace, count)
    usage.wait_quiet(contestant.pid)
    created = _Reading.of(bench, contestant.pid)
    memory_created = usage.memory_mb(contestant.pid)
    contestant.stop()

    bench.release(namespace)
    between = _Reading.of(bench)
    contestant.server.start()
    deleted_s = bench.volumes.deleted(namespace, count)
    usage.wait_quiet(contestant.pid)
    deleted = _Reading.of(bench, contestant.pid)
    memory_deleted = usage.memory_mb(contestant.pid)
    contestant.stop()

    requests = {"created": created.requests - before.requests, "deleted": deleted.requests - between.requests}
    figures = {
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
        "memory_created": memory_created,
        "memory_deleted": memory_deleted,
        "cpu_others": created.others_percent(before),
    }
    per_volume = {phase: {kind: n / count for kind, n in kinds.items()} for phase, kinds in requests.items()}
    return Measured(figures=figures, requests=per_volume)


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


def held(bench: Bench, contestants: Sequence[Contestant], count: int) -> list[Figures]:
    """Measure each program after a start with `count` claims, bound volumes and ledger records.

    The bench writes them, which takes a minute instead of several; afterwards the bench cannot be used again. The
    daemon has started before, because the records are in its export's ledger.
    """
    _write_held(bench, count)
    found = []
    for contestant in contestants:
        contestant.empty_trash()
        bench.use_class(contestant.storage_class)
        pid = contestant.start()
        figures = {
            "memory_held": usage.memory_mb(pid),
            "memory_held_peak": usage.memory_mb(pid, "VmHWM"),
            "cpu_held": usage.cpu_s(pid) * 1e3,
        }
        contestant.stop()
        found.append(figures)
    return found


def _write_held(bench: Bench, count: int) -> None:
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

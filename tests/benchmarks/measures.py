"""The measurements. Each takes a Bench and a Contestant, leaves no volume behind, and returns figures by name."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from provisioner.core import names
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
    bench.empty_trash()
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
    bench.empty_trash()
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
    """Measure each program after a start with `count` claims, bound volumes, directories and ledger records.

    The bench writes them, which takes a minute instead of several; afterwards the bench cannot be used again. The
    daemon must have started before, because it creates the ledger.
    """
    _write_held(bench, count)
    found = []
    for contestant in contestants:
        bench.empty_trash()
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
    """Write what the daemon and the volume binder, which does not run, leave of bound claims."""
    namespace = bench.namespace("held")
    path = objects.claims_path(namespace)
    bench.create_claims(namespace, count)
    uids = {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in bench.api.list(path)}
    export_id = (bench.export / ".provisioner" / "export").readlink().name
    bodies = (
        objects.volume(
            f"pvc-{uid}", namespace=namespace, claim=name, claim_uid=uid, export_id=export_id, finalizer=True
        )
        for name, uid in uids.items()
    )
    bench.flood(*(Request("POST", VOLUMES, body) for body in bodies))
    _write_directories(bench, namespace)
    binding = {name: {"spec": {"volumeName": f"pvc-{uid}"}} for name, uid in uids.items()}
    bench.flood(*(Request("PATCH", f"{path}/{name}", body) for name, body in binding.items()))
    bound = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": objects.SIZE}}
    bench.flood(*(Request("PATCH", f"{path}/{name}/status", {"status": bound}) for name in uids))
    phase = {"status": {"phase": "Bound"}}
    bench.flood(*(Request("PATCH", f"{VOLUMES}/pvc-{uid}/status", phase) for uid in uids.values()))


def _write_directories(bench: Bench, namespace: str) -> None:
    """Create the directories and records of all volumes, as the daemon does."""
    cluster_id, namespace_uid = (
        bench.api.get(f"{objects.NAMESPACES}/{name}")["metadata"]["uid"] for name in ("kube-system", namespace)
    )
    for volume in bench.api.list(VOLUMES):
        name, claim = volume["metadata"]["name"], volume["spec"]["claimRef"]
        record = Record(
            directory=volume["metadata"]["annotations"][names.DIRECTORY],
            namespace=namespace,
            claim=claim["name"],
            claim_uid=claim["uid"],
            class_name=objects.CLASS,
            on_delete="delete",
            capacity=objects.SIZE,
            created="2026-01-01T00:00:00Z",
            cluster=cluster_id,
            modes="RWX",
            volume_uid=volume["metadata"]["uid"],
            namespace_uid=namespace_uid,
        )
        (bench.export / record.directory).mkdir()
        (bench.export / ".provisioner" / "volumes" / name).symlink_to(encode(record))

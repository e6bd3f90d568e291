"""Resource usage of processes from /proc, and requests from the metrics of the API server."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_OF_A_VOLUME = ("events", "persistentvolumeclaims", "persistentvolumes", "pods", "storageclasses")


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU, user and system, of all threads since the process started (proc(5), stat)."""
    # The second field is a name in parentheses with arbitrary characters: count the fields after it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def machine_cpu_s() -> float:
    """Return the seconds in which the machine's processors were busy since its start (proc(5), stat)."""
    user, nice, system, _idle, _iowait, *interrupts_and_stolen = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts_and_stolen)) / _TICKS_PER_SECOND


def own_cpu_s() -> float:
    """Return the seconds of CPU of this process and of its finished children."""
    return sum(os.times()[:4])


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Return resident memory, or with `VmHWM` its peak, in megabytes of 10^6 bytes (proc(5), status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise KeyError(f"{field} is not in /proc/{pid}/status")


def reset_peak(pid: int) -> None:
    """Let `VmHWM` begin with what is resident now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_quiet(pid: int, *, timeout_s: float = 60.0) -> None:
    """Wait until the process uses almost no CPU for a second, or until the timeout."""
    deadline = time.monotonic() + timeout_s
    used_s = cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(1.0)
        before_s, used_s = used_s, cpu_s(pid)
        if used_s - before_s <= 0.04:
            return


def api_requests(metrics: str) -> Counter[str]:
    """Count requests for the objects of a volume's life in the metrics of an API server, by `verb resource`.

    Lists and watches are not counted: a program sends them once per start.
    """
    requests: Counter[str] = Counter()
    for sample in _samples(metrics, "apiserver_request_total"):
        verb, resource, part = (sample.labels[name] for name in ("verb", "resource", "subresource"))
        if resource in _OF_A_VOLUME and verb not in ("LIST", "WATCH"):
            requests[f"{verb} {resource}{f'/{part}' if part else ''}"] += int(sample.value)
    return requests


def user_requests(metrics: str, flow_schema: str) -> int:
    """Count the requests, of every kind, that the API server has assigned to a FlowSchema."""
    samples = _samples(metrics, "apiserver_flowcontrol_dispatched_requests_total")
    return int(sum(sample.value for sample in samples if sample.labels["flow_schema"] == flow_schema))


def _samples(metrics: str, name: str) -> Iterator[Sample]:
    # The metrics are megabytes: parse only the lines of one of them.
    lines = "".join(f"{line}\n" for line in metrics.splitlines() if line.startswith(f"{name}{{"))
    for family in text_string_to_metric_families(lines):
        yield from family.samples

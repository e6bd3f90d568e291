"""What a process uses, as Linux counts it under /proc, and what the daemon says of its own requests."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_BESIDE_THE_WORK = ("leases", "readyz")


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, of all threads since the process began (proc(5), stat)."""
    # The second field is a name in parentheses, which may hold anything: count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def machine_cpu_s() -> float:
    """Seconds in which a processor of this machine was busy, with whatever, since it was started (proc(5), stat)."""
    user, nice, system, _idle, _iowait, *interrupts_and_stolen = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts_and_stolen)) / _TICKS_A_SECOND


def own_cpu_s() -> float:
    """Seconds of CPU of this process and of its children that have ended."""
    return sum(os.times()[:4])


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory now, or with `VmHWM` its peak, in megabytes of 10^6 bytes (proc(5), status)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise KeyError(f"{field} is not in /proc/{pid}/status")


def wait_quiet(pid: int, *, timeout_s: float = 60.0) -> None:
    """Return once the process has used next to no CPU for half a second, or after the time."""
    deadline = time.monotonic() + timeout_s
    used_s = cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        before_s, used_s = used_s, cpu_s(pid)
        if used_s - before_s <= 0.02:
            return


def api_requests(daemon: Daemon) -> Counter[str]:
    """Calls of the API server by `verb resource`, watches, lists and what runs by the clock left out."""
    requests: Counter[str] = Counter()
    for family in text_string_to_metric_families(daemon.http("/metrics", timeout_s=30.0)):
        for sample in family.samples:
            if sample.name != "nfs_provisioner_api_requests_total":
                continue
            verb, resource = sample.labels["verb"], sample.labels["resource"]
            if resource not in _BESIDE_THE_WORK and verb not in ("list", "watch"):
                requests[f"{verb} {resource}"] += int(sample.value)
    return requests

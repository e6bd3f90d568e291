"""`make bench-smoke`: a pair of small measurements, which fails when a figure falls by half.

A run with a figure beyond its limit is repeated once, and only a figure that is beyond it twice fails: other load of
the machine, or one slow disk flush, must not fail a change.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial

from testbed.binaries import BinariesMissing, Progress
from testbed.commands import exit_status, to_terminal
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.benchmarks import contestants, limits, measures, usage
from tests.benchmarks.bench import open_bench
from tests.benchmarks.figures import Figures
from tests.benchmarks.flood import FloodFailed
from tests.benchmarks.machine import machine
from tests.benchmarks.report import DIRECTORY
from tests.benchmarks.watching import NotSeen

PATH = DIRECTORY / "smoke.json"
_CLAIMS = 400
_SINGLES = 10
_COUNTS = ("requests_create", "requests_delete")
_RATIOS = ("create_rate", "delete_rate", "cpu_create", "cpu_delete", "memory_idle", "memory_created")
_INTERPRETER = (sys.executable, "-c", "import asyncio, ssl")
_INTERPRETERS = 5


def main() -> int:
    """Measure and judge; return 1 if a figure is beyond its limit twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.smoke", description=__doc__)
    parser.add_argument("--calibrate", type=int, default=0, metavar="N", help="run N times, and print the limits")
    options = parser.parse_args()
    run = partial(_calibrate, options.calibrate) if options.calibrate else _judge
    return exit_status(run, BinariesMissing, FloodFailed, NotInTime, NotSeen, ServerFailed)


def _judge() -> int:
    for _ in range(2):
        figures = measure(to_terminal())
        print(", ".join(f"{key} {value:.2f}" for key, value in figures.items()))
        beyond = limits.judge(figures, limits.LIMITS)
        for line in beyond:
            print(line, file=sys.stderr)
        if not beyond:
            return 0
    return 1


def _calibrate(count: int) -> int:
    runs: list[Figures] = []
    progress = to_terminal()
    for number in range(count):
        progress(f"run {number + 1} of {count}")
        runs.append(measure(progress))
        PATH.parent.mkdir(parents=True, exist_ok=True)
        PATH.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=2) + "\n")
    print("\n".join(limits.lines(runs)))
    return 0


def measure(progress: Progress) -> Figures:
    """Measure the peer and the daemon once, and return the figures that have limits."""
    found: dict[str, Figures] = {}
    with open_bench() as bench:
        for contestant in (contestants.peer(bench, progress), contestants.daemon(bench)):
            measures.warm_up(bench, contestant)
            figures = measures.single(bench, contestant, _SINGLES)
            backlog = measures.backlog(bench, contestant, _CLAIMS, cpu_start_s=figures["cpu_start"] / 1e3)
            found[contestant.name] = figures | backlog.figures
    peer, daemon = found["peer"], found["nfs-provisioner"]
    return (
        {key: daemon[key] / peer[key] for key in _RATIOS}
        | {key: daemon[key] for key in _COUNTS}
        | {"cpu_start": daemon["cpu_start"] / _interpreter_cpu_ms()}
    )


def _interpreter_cpu_ms() -> float:
    """Return the CPU of a Python process that does little."""
    before_s = usage.own_cpu_s()
    for _ in range(_INTERPRETERS):
        subprocess.run(_INTERPRETER, check=True)
    return (usage.own_cpu_s() - before_s) / _INTERPRETERS * 1e3


if __name__ == "__main__":
    sys.exit(main())

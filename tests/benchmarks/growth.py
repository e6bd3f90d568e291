"""`python -m tests.benchmarks.growth`: how rate, memory, CPU and start grow with the number of volumes.

Each size has an API server of its own. A run that was interrupted continues where it stopped: figures that the JSON
has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from testbed.binaries import BinariesMissing, Progress
from testbed.commands import exit_status, to_terminal
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.benchmarks import contestants, measures
from tests.benchmarks.bench import open_bench
from tests.benchmarks.figures import Figures, text
from tests.benchmarks.flood import FloodFailed
from tests.benchmarks.machine import machine
from tests.benchmarks.report import DIRECTORY
from tests.benchmarks.watching import NotSeen

PATH = DIRECTORY / "growth.json"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
_PER_EXPORT = 100_000
"""Below the limits of a ledger and of a listing."""


def main() -> int:
    """Measure each size, print the figures and keep them as JSON; return 1 if something failed."""
    options = _parser().parse_args()
    return exit_status(partial(_run, options), BinariesMissing, FloodFailed, NotInTime, NotSeen, ServerFailed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.growth", description=__doc__)
    sizes = ",".join(map(str, SIZES))
    parser.add_argument("--sizes", default=sizes, help=f"claims and volumes, separated by commas (default: {sizes})")
    parser.add_argument("--peer-up-to", type=int, default=10_000, help="the largest size of the peer (default: 10000)")
    parser.add_argument("--again", action="store_true", help="measure what the JSON has already")
    return parser


def _run(options: argparse.Namespace) -> int:
    sizes = sorted(int(size) for size in options.sizes.split(","))
    found = {} if options.again or not PATH.exists() else json.loads(PATH.read_text())["figures"]
    progress = to_terminal()
    for size in sizes:
        names = [name for name in _names(size, options.peer_up_to) if str(size) not in found.get(name, {})]
        for name, figures in _measured(size, names, progress).items():
            found.setdefault(name, {})[str(size)] = figures
        save(PATH, found)
    for name, by_size in found.items():
        for size, figures in by_size.items():
            print(f"{name}, {size}: " + ", ".join(f"{key} {text(value)}" for key, value in figures.items()))
    print(f"JSON: {PATH}")
    return 0


def _names(size: int, peer_up_to: int) -> Sequence[str]:
    return ["peer", "nfs-provisioner"] if size <= peer_up_to else ["nfs-provisioner"]


def _measured(size: int, names: Sequence[str], progress: Progress) -> dict[str, Figures]:
    """Measure contestants with one size: their figures by name."""
    if not names:
        return {}
    figures = {}
    with open_bench() as bench:
        for name in names:
            progress(f"{size:,} volumes: {name}")
            contestant = (
                contestants.peer(bench, progress)
                if name == "peer"
                else contestants.daemon(bench, exports=-(-size // _PER_EXPORT))
            )
            measures.warm_up(bench, contestant)
            start = measures.single(bench, contestant, 1)
            backlog = measures.backlog(
                bench, contestant, size, cpu_start_s=start["cpu_start"] / 1e3, held=True, relist=contestant.is_daemon
            )
            figures[name] = {"memory_idle": start["memory_idle"]} | backlog.figures
    return figures


def save(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures, by contestant and size, with what they depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())

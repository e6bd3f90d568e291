"""`make bench`: how fast the daemon creates and reclaims volumes on a real API server, and what it uses for that.

The API server's own rate is measured between the daemon's, round by round (A B A B), because machines are noisy:
compare ratios, not rates, between runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

from rich.console import Console

from testbed.binaries import BinariesMissing
from testbed.processes import ServerFailed
from tests.benchmarks import measures
from tests.benchmarks.bench import Bench, open_bench
from tests.benchmarks.flood import FloodFailed
from tests.benchmarks.measures import Figures, percentile
from tests.benchmarks.report import Report
from tests.benchmarks.volume_watch import NotSeen

_WORKERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of the measurements."""

    volumes: int
    rounds: int
    singles: int
    held: int


FULL = Sizes(volumes=1000, rounds=3, singles=200, held=10_000)
QUICK = Sizes(volumes=100, rounds=1, singles=20, held=300)


def main() -> int:
    """Measure and print; return 1 if something failed, with --strict also if a mark was missed."""
    options = _parser().parse_args()
    sizes = QUICK if options.quick else FULL
    progress = Console(stderr=True)
    # Like Ctrl-C, SIGTERM stops the servers and removes the temporary directory.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_bench(workers=options.workers) as bench:
            report = _measure(bench, sizes, progress)
    except (BinariesMissing, FloodFailed, NotSeen, ServerFailed) as exc:
        progress.print(str(exc), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.json()) if options.output == "json" else report.print_table()
    missed = report.missed()
    if missed:
        progress.print(f"missed: {'; '.join(missed)}", style="red", markup=False)
    return 1 if missed and options.strict else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few volumes and one round: does it still run?")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a mark is missed")
    parser.add_argument("--workers", type=int, default=_WORKERS, help="as for `nfs-provisioner run`")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser


def _measure(bench: Bench, sizes: Sizes, progress: Console) -> Report:
    loads = {"before": os.getloadavg()}
    values: dict[str, list[float]] = defaultdict(list)
    requests: dict[str, Counter[str]] = {"made": Counter(), "reclaimed": Counter()}

    def note(figures: Figures) -> None:
        for key, value in figures.items():
            values[key].append(value)

    # The first start writes byte code and creates the export's ledger: it is not measured.
    measures.idle(bench)
    measures.ceiling(bench, sizes.volumes)
    for number in range(sizes.rounds):
        progress.print(f"round {number + 1} of {sizes.rounds}: ceiling, backlog, ceiling, burst", markup=False)
        note(measures.idle(bench))
        first = measures.ceiling(bench, sizes.volumes)
        backlog = measures.backlog(bench, sizes.volumes)
        second = measures.ceiling(bench, sizes.volumes)
        burst, made, reclaimed = measures.burst(bench, sizes.volumes)
        requests["made"] += made
        requests["reclaimed"] += reclaimed
        note(_round(first, backlog, second, burst))
    progress.print(f"{sizes.singles} single claims", markup=False)
    note(_latency(*measures.single(bench, sizes.singles)))
    progress.print(f"memory with {sizes.held} volumes", markup=False)
    note(measures.held(bench, sizes.held))
    total = sizes.volumes * sizes.rounds
    return Report(
        values=values,
        requests={phase: {kind: n / total for kind, n in kinds.items()} for phase, kinds in requests.items()},
        sizes=asdict(sizes),
        load_average=loads | {"after": os.getloadavg()},
    )


def _round(first: Figures, backlog: Figures, second: Figures, burst: Figures) -> Figures:
    """Return one round's figures; the ceiling is the mean of the two measured around the backlog."""
    figures = {key: (first[key] + second[key]) / 2 for key in first} | backlog | burst
    for work in ("create", "delete"):
        for kind in ("backlog", "burst"):
            figures[f"ratio_{kind}_{work}"] = figures[f"{kind}_{work}"] / figures[f"ceiling_{work}"]
    return figures


def _latency(from_sending_ms: list[float], from_answer_ms: list[float]) -> Figures:
    return {
        "single_p50": percentile(from_sending_ms, 50),
        "single_p99": percentile(from_sending_ms, 99),
        "single_answered_p50": percentile(from_answer_ms, 50),
        "single_answered_p99": percentile(from_answer_ms, 99),
    }


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: how fast the daemon creates and deletes volumes, beside a provisioner on the Go library.

Both run in turn on one API server, over local directories, with leader election and without limits on requests.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from testbed.binaries import BinariesMissing
from testbed.commands import exit_status, to_terminal
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.benchmarks import contestants, measures
from tests.benchmarks.bench import open_bench
from tests.benchmarks.flood import FloodFailed
from tests.benchmarks.pairs import compare
from tests.benchmarks.volume_watch import NotSeen


def main() -> int:
    """Measure, print the table and keep the JSON; return 1 if something failed."""
    options = _parser().parse_args()
    return exit_status(partial(_run, options), BinariesMissing, FloodFailed, NotInTime, NotSeen, ServerFailed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each program, in turn (default: 5)")
    parser.add_argument("--claims", type=int, default=1000, help="that wait before each start (default: 1000)")
    parser.add_argument("--singles", type=int, default=200, help="claims created one by one (default: 200)")
    parser.add_argument(
        "--held", type=int, default=10_000, help="bound volumes of the last start; 0: none (default: 10000)"
    )
    parser.add_argument("--workers", type=int, default=contestants.DAEMON_WORKERS, help="as for `nfs-provisioner run`")
    return parser


def _run(options: argparse.Namespace) -> int:
    progress = to_terminal()
    with open_bench() as bench:
        pair = contestants.peer(bench, progress), contestants.daemon(bench, workers=options.workers)
        report, path = compare(
            bench, *pair, pairs=options.pairs, claims=options.claims, singles=options.singles, progress=progress
        )
        if options.held:
            progress(f"starts with {options.held} bound volumes")
            for contestant, figures in zip(pair, measures.held(bench, pair, options.held), strict=True):
                report.add(contestant.name, figures)
            report.save(path)
    report.print()
    print(f"JSON: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

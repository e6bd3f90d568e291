"""`make bench`: how fast the daemon creates and deletes volumes, beside a provisioner on the Go library.

Both run in turn on one API server, over local directories, with leader election and without limits on requests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from testbed.binaries import BinariesMissing
from testbed.commands import exit_status, to_terminal
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.benchmarks import contestants
from tests.benchmarks.bench import Bench, open_bench
from tests.benchmarks.flood import FloodFailed
from tests.benchmarks.pairs import Comparison
from tests.benchmarks.report import DIRECTORY, Report
from tests.benchmarks.watching import NotSeen

PATH = DIRECTORY / "local.json"


def main() -> int:
    """Measure, print the table and keep the JSON; return 1 if something failed."""
    options = _parser().parse_args()
    return exit_status(partial(_run, options), BinariesMissing, FloodFailed, NotInTime, NotSeen, ServerFailed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--pairs", type=int, default=5, help="measurements of each program, in turn (default: 5)")
    add("--claims", type=int, default=1000, help="that wait before each start (default: 1000)")
    add("--singles", type=int, default=200, help="claims created one by one (default: 200)")
    add("--many", type=int, default=10_000, help="waiting claims, and Bound ones, of more pairs; 0: none")
    add("--many-pairs", type=int, default=2, help="pairs with that many (default: 2)")
    add("--idle", type=float, default=180.0, help="seconds to count the requests of an idle leader; 0: none")
    add("--whole", type=int, default=300, help="claims through a whole control plane; 0: none (default: 300)")
    add("--whole-pairs", type=int, default=3, help="pairs on a whole control plane (default: 3)")
    add("--workers", type=int, default=contestants.DAEMON_WORKERS, help="as for `nfs-provisioner run`")
    return parser


def _run(options: argparse.Namespace) -> int:
    report = Report(
        first="peer", second="nfs-provisioner", sizes={"pairs": options.pairs, "single claims": options.singles}
    )
    with _compare(open_bench(), report, options.workers) as comparison:
        comparison.warm_up()
        comparison.waiting(claims=options.claims, pairs=options.pairs, singles=options.singles)
        if options.many:
            comparison.waiting(claims=options.many, pairs=options.many_pairs, singles=0, held=True)
        if options.idle:
            comparison.idle(options.idle)
    if options.whole:
        with _compare(open_bench(whole=True), report, options.workers) as comparison:
            comparison.whole(claims=options.whole, pairs=options.whole_pairs)
    report.print()
    print(f"JSON: {PATH}")
    return 0


@contextmanager
def _compare(opened: AbstractContextManager[Bench], report: Report, workers: int) -> Iterator[Comparison]:
    progress = to_terminal()
    with opened as bench:
        pair = contestants.peer(bench, progress), contestants.daemon(bench, workers=workers)
        yield Comparison(bench=bench, contestants=pair, report=report, path=PATH, progress=progress)


if __name__ == "__main__":
    sys.exit(main())

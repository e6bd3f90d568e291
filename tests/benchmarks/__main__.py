"""`make bench`: how fast the daemon creates and deletes volumes, beside a provisioner on the Go library.

Both run in turn on one API server, over local directories, with leader election and without limits on requests. Then
the daemon over NFS runs in turn with itself over a local directory.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Literal

from testbed import ganesha
from testbed.api import Object
from testbed.binaries import BinariesMissing, Progress
from testbed.commands import exit_status, to_terminal
from testbed.ganesha import Export as GaneshaExport
from testbed.ganesha import Ganesha
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.benchmarks import contestants, objects
from tests.benchmarks.bench import Bench, open_bench
from tests.benchmarks.flood import FloodFailed
from tests.benchmarks.pairs import Comparison
from tests.benchmarks.report import DIRECTORY, Report
from tests.benchmarks.watching import NotSeen

LOCAL, DIRECT = DIRECTORY / "local.json", DIRECTORY / "direct.json"
_HOST = "127.0.0.1"
_SHARE = "/bench"
NFS_VERSIONS = ("4.2", "4.1", "4.0", "3")


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
    add("--nfs", choices=(*NFS_VERSIONS, ""), default="4.1", help="version of the pairs over NFS; empty: none")
    add("--nfs-pairs", type=int, default=3, help="pairs of NFS and a local directory (default: 3)")
    add("--peer-finalizer", action=argparse.BooleanOptionalAction, default=True, help="as the daemon (default: yes)")
    add("--workers", type=int, default=contestants.DAEMON_WORKERS, help="as for `nfs-provisioner run`")
    return parser


def _run(options: argparse.Namespace) -> int:
    progress = to_terminal()
    report = Report(
        first="peer",
        second="nfs-provisioner",
        sizes={"pairs": options.pairs, "single claims": options.singles, "many pairs": options.many_pairs},
    )
    if options.pairs:
        with open_bench() as bench:
            _local(_against_the_peer(bench, report, options, progress), options)
    if options.whole:
        with open_bench(whole=True) as bench:
            comparison = _against_the_peer(bench, report, options, progress)
            comparison.whole(claims=options.whole, pairs=options.whole_pairs)
    if report.values:
        _print(report, LOCAL)
    if options.nfs:
        _nfs(options, progress)
    return 0


def _against_the_peer(bench: Bench, report: Report, options: argparse.Namespace, progress: Progress) -> Comparison:
    pair = (
        contestants.peer(bench, progress, finalizer=options.peer_finalizer),
        contestants.daemon(bench, workers=options.workers),
    )
    return Comparison(bench=bench, contestants=pair, report=report, path=LOCAL, progress=progress)


def _local(comparison: Comparison, options: argparse.Namespace) -> None:
    comparison.warm_up()
    comparison.waiting(claims=options.claims, pairs=options.pairs, singles=options.singles)
    if options.many:
        comparison.waiting(claims=options.many, pairs=options.many_pairs, singles=0, held=True)
    if options.idle:
        comparison.idle(options.idle)


def _nfs(options: argparse.Namespace, progress: Progress) -> None:
    """Compare the daemon over NFS with itself over a local directory, where this machine can run a server."""
    report = Report(
        first="local directory",
        second=f"NFS {options.nfs}",
        sizes={"pairs": options.nfs_pairs, "single claims": options.singles},
    )
    versions: tuple[Literal[3, 4], ...] = (3, 4) if options.nfs == "3" else (4,)
    with open_bench() as bench:
        (export := bench.directory / "nfs").mkdir()
        reason = ganesha.missing(versions=versions) or ganesha.vfs_problem(export)
        if reason:
            print(f"no figures over NFS: {reason}", file=sys.stderr)
            return
        with Ganesha([GaneshaExport(export, _SHARE)], versions=versions) as server:
            local = contestants.daemon(bench, name=report.first, workers=options.workers)
            direct = contestants.direct_daemon(
                bench,
                report.second,
                workers=options.workers,
                storage_class=_direct_class(server, options.nfs),
                export=export,
            )
            comparison = Comparison(
                bench=bench, contestants=(local, direct), report=report, path=DIRECT, progress=progress
            )
            comparison.warm_up()
            comparison.waiting(claims=options.claims, pairs=options.nfs_pairs, singles=options.singles)
    _print(report, DIRECT)


def _direct_class(server: Ganesha, version: str) -> Object:
    body = objects.storage_class()
    body["parameters"] |= {"server": _HOST, "share": _SHARE}
    body["mountOptions"] = [f"port={server.port}", f"mountport={server.mount_port}", f"nfsvers={version}"]
    return body


def _print(report: Report, path: Path) -> None:
    report.print()
    print(f"JSON: {path}")


if __name__ == "__main__":
    sys.exit(main())

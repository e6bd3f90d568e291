"""`python -m tests.benchmarks.nfs_client`: purges and the start over NFS, with a local Ganesha and without Kubernetes.

It compares a purge with removing path by path, in the same rounds because machines are noisy, and measures the time to
read a ledger at the start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from provisioner.core.locations import location
from provisioner.core.records import Record, encode
from provisioner.ledger.export import Export
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from testbed import ganesha
from testbed.ganesha import Export as GaneshaExport
from testbed.ganesha import Ganesha
from tests.benchmarks import usage
from tests.benchmarks.figures import Figures, percentile
from tests.benchmarks.machine import machine
from tests.benchmarks.report import DIRECTORY

_HOST = "127.0.0.1"
_TIMEOUT_S = 10.0
_NAMES_PER_DIRECTORY = 200
VERSIONS = ("4.2", "4.1", "4.0", "3")
PATH = DIRECTORY / "nfs-client.json"
MARKS = {"ratio_purge": 5.0}
"""The minimum of each ratio."""
LIMITS = {"ledger_s": 3.0}
"""The maximum of each time, with 10,000 records."""


def main() -> int:
    """Measure and print JSON; return 1 if this machine cannot run a server, with --strict if a mark is missed."""
    options = _parser().parse_args()
    with TemporaryDirectory(prefix="bench-nfs-") as name:
        reason = ganesha.missing(versions=(3, 4)) or ganesha.vfs_problem(Path(name))
        if reason:
            print(f"this machine cannot run an NFS server: {reason}", file=sys.stderr)
            return 1
        figures = _measure(Path(name), options)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")
    print(PATH.read_text())
    missed = [key for key, mark in MARKS.items() if any(one[key] < mark for one in figures.values() if key in one)]
    missed += [key for key, mark in LIMITS.items() if any(one[key] > mark for one in figures.values() if key in one)]
    return 1 if missed and options.strict else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nfs_client", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side, in turn")
    parser.add_argument("--entries", type=int, default=20_000, help="in the directory that is purged")
    parser.add_argument("--records", type=int, default=10_000, help="in the ledger that is read")
    parser.add_argument("--version", choices=VERSIONS, action="append", help="of NFS; repeatable; all unless given")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a mark is missed")
    return parser


def _measure(home: Path, options: argparse.Namespace) -> dict[str, Figures]:
    versions = options.version or list(VERSIONS)
    figures: dict[str, Figures] = {}
    for version in versions:
        rounds = [purge(home / f"purge-{version}-{n}", version, options.entries) for n in range(options.rounds)]
        figures[f"purge {version}"] = {key: percentile((one[key] for one in rounds), 50) for key in rounds[0]}
        figures[f"ledger {version}"] = ledger(home / f"ledger-{version}", version, options.records, options.rounds)
    return figures


# ------------------------------------------------------------------------------------------- purge


def purge(home: Path, version: str, entries: int) -> Figures:
    """Measure the removal of two equal directories over one connection, by a purge and path by path."""
    home.mkdir(parents=True)
    for name in ("whole", "single"):
        _fill(home / name, entries)
    with Ganesha([GaneshaExport(home, "/purge")], versions=(3, 4)) as server:
        return asyncio.run(_purge(server, version))


def _fill(top: Path, entries: int) -> None:
    for number in range(entries):
        directory = top / str(number // _NAMES_PER_DIRECTORY)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"entry-{number}").symlink_to("nowhere")


async def _purge(server: Ganesha, version: str) -> Figures:
    tree = _tree(server, "/purge", version)
    try:
        with _timed() as whole:
            removed = await tree.remove_tree(("whole",))
        with _timed() as single:
            count = await _one_by_one(tree)
    finally:
        await tree.close()
    return {
        "entries": removed,
        "purge_rate": round(removed / whole[0]),
        "single_rate": round(count / single[0]),
        "ratio_purge": round(single[0] / whole[0] * removed / count, 2),
        "purge_cpu_s": round(whole[1], 2),
        "single_cpu_s": round(single[1], 2),
    }


def _tree(server: Ganesha, path: str, version: str) -> DirectTree:
    """Return an export with its own connection."""
    pool = ConnectionPool(Credentials(), timeout_s=_TIMEOUT_S)
    return DirectTree(location(_HOST, path), pool, version=version, port=server.port, mount_port=server.mount_port)


async def _one_by_one(tree: DirectTree) -> int:
    """Remove every path in turn, and return their number."""
    removed = 0
    for directory in await tree.list(("single",)):
        for entry in await tree.list(("single", directory.name)):
            await tree.remove_symlink(("single", directory.name, entry.name))
            removed += 1
        await tree.remove_directory(("single", directory.name))
        removed += 1
    await tree.remove_directory(("single",))
    return removed + 1


# ------------------------------------------------------------------------------------------- ledger


def ledger(home: Path, version: str, records: int, rounds: int) -> Figures:
    """Measure opening an export with many records over a new connection: seconds of time and of CPU."""
    home.mkdir(parents=True)
    with Ganesha([GaneshaExport(home, "/ledger")], versions=(3, 4)) as server:
        asyncio.run(_opened(server, version, 0))
        for number in range(records):
            volume = f"pvc-{number:08x}-0000-4000-8000-000000000000"
            (home / ".provisioner" / "volumes" / volume).symlink_to(encode(_record(volume, number)))
        taken = [asyncio.run(_opened(server, version, records)) for _ in range(rounds)]
    return {
        "ledger_s": round(percentile((passed_s for passed_s, _ in taken), 50), 3),
        "ledger_cpu_s": round(percentile((cpu_s for _, cpu_s in taken), 50), 3),
    }


def _record(volume: str, number: int) -> Record:
    return Record(
        directory=f"team-{number % 100}-data-{number}-{volume}",
        namespace=f"team-{number % 100}",
        claim=f"data-{number}",
        claim_uid=volume.removeprefix("pvc-"),
        class_name="nfs",
        on_delete="delete",
        capacity="10Gi",
        created="2026-01-01T00:00:00Z",
        cluster="1e4b6a5c-5c5f-4f0e-9d5e-6c1d5a3c2b1a",
        modes="RWX",
        mount_options="nfsvers=4.1",
    )


async def _opened(server: Ganesha, version: str, records: int) -> tuple[float, float]:
    export = Export(location(_HOST, "/ledger"), _tree(server, "/ledger", version))
    try:
        with _timed() as taken:
            await export.open()
    finally:
        await export.close()
    if len(export.records) != records:
        raise RuntimeError(f"{len(export.records)} records of {records} were read")
    return taken[0], taken[1]


@contextmanager
def _timed() -> Iterator[list[float]]:
    """Measure a context: the list has its seconds of time and of this process's CPU afterwards."""
    taken: list[float] = []
    began_s, cpu_s = time.monotonic(), usage.own_cpu_s()
    yield taken
    taken += [time.monotonic() - began_s, usage.own_cpu_s() - cpu_s]


if __name__ == "__main__":
    sys.exit(main())

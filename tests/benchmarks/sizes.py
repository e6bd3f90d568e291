"""`python -m tests.benchmarks.sizes`: the bytes of one claim and its volume, in lists, watches and the ledger.

A whole control plane binds and releases claims, so that objects have all fields that they have in a cluster.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from testbed.api import Api, Object
from testbed.binaries import BinariesMissing
from testbed.commands import exit_status
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.benchmarks import contestants, objects
from tests.benchmarks.bench import Bench, open_bench
from tests.benchmarks.flood import FloodFailed, Request
from tests.benchmarks.machine import machine
from tests.benchmarks.report import DIRECTORY
from tests.benchmarks.watching import NotSeen

PATH = DIRECTORY / "sizes.json"
_CLAIMS = 100
_RECORDS = 20_000
_WATCH_S = 600
_SETTLED_S = 3.0


def main() -> int:
    """Measure, and print and keep the JSON; return 1 if something failed."""
    return exit_status(_run, BinariesMissing, FloodFailed, NotInTime, NotSeen, ServerFailed)


def _run() -> int:
    with open_bench(whole=True) as bench:
        figures = _measured(bench)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")
    print(PATH.read_text())
    return 0


def _measured(bench: Bench) -> dict[str, float]:
    daemon = contestants.daemon(bench)
    bench.use_classes(daemon.classes)
    namespace = bench.namespace("sizes")
    daemon.start()
    path = objects.claims_path(namespace)
    streams = [_Stream(bench.api, each) for each in (objects.CLAIMS, objects.VOLUMES)]
    bound = bench.watch_claims()
    bench.flood(*(Request("POST", path, objects.claim(number, handed_over=False)) for number in range(_CLAIMS)))
    names = bound.times(namespace, "bound", _CLAIMS)
    claims, volumes = bench.api.list(objects.CLAIMS), bench.api.list(objects.VOLUMES)
    records = list((daemon.exports[0] / ".provisioner" / "volumes").iterdir())
    record_bytes = sum(len(os.readlink(record)) for record in records) / len(records)
    created = [stream.settled() for stream in streams]
    bench.flood(*(Request("DELETE", f"{path}/{name}") for name in names))
    bench.volumes.deleted(namespace, _CLAIMS)
    whole = [stream.settled() for stream in streams]
    daemon.stop()
    return {
        "claim_bytes": sum(map(size, claims)) / len(claims),
        "volume_bytes": sum(map(size, volumes)) / len(volumes),
        "created_events": sum(one.events for one in created) / _CLAIMS,
        "created_bytes": sum(one.bytes for one in created) / _CLAIMS,
        "deleted_events": sum(one.events - before.events for one, before in zip(whole, created, strict=True)) / _CLAIMS,
        "deleted_bytes": sum(one.bytes - before.bytes for one, before in zip(whole, created, strict=True)) / _CLAIMS,
        "record_bytes": record_bytes,
        "read_record_us": _read_record_us(int(record_bytes)),
    }


def size(item: Object) -> int:
    """Return the bytes of an object as the API server writes JSON."""
    return len(json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode())


class _Volume(NamedTuple):
    events: int
    bytes: int


class _Stream:
    """Counts the events and bytes of a watch in a thread that lives as long as the process."""

    def __init__(self, api: Api, path: str) -> None:
        self._seen = _Volume(0, 0)
        version = str(api.get(path, limit="1")["metadata"]["resourceVersion"])
        threading.Thread(target=self._watch, args=(api, path, version), daemon=True).start()

    def settled(self) -> _Volume:
        """Return what came until now, once nothing has come for some seconds."""
        before = None
        while before != self._seen:
            before = self._seen
            time.sleep(_SETTLED_S)
        return self._seen

    def _watch(self, api: Api, path: str, version: str) -> None:
        # The end of the API server ends the thread.
        with contextlib.suppress(OSError):
            self._follow(api, path, version)

    def _follow(self, api: Api, path: str, version: str) -> None:
        while True:
            # The API server ends a watch whose reader falls behind: resume at the last version.
            for event in api.watch(path, timeout_s=_WATCH_S, resourceVersion=version):
                version = event["object"]["metadata"]["resourceVersion"]
                # A line end follows each event.
                self._seen = _Volume(self._seen.events + 1, self._seen.bytes + size(event) + 1)


def _read_record_us(length: int) -> float:
    """Return the microseconds to list and read one record, of many in a local directory."""
    with tempfile.TemporaryDirectory(prefix="bench-records-") as name:
        for number in range(_RECORDS):
            Path(name, f"pvc-{number:036}").symlink_to("x" * length)
        began_s = time.monotonic()
        for entry in os.scandir(name):
            os.readlink(entry.path)
        return (time.monotonic() - began_s) / _RECORDS * 1e6


if __name__ == "__main__":
    sys.exit(main())

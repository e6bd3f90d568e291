"""Servers that stop, die and return while others work: no other claim is delayed, nothing is lost or duplicated."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbed.api import Api, Object
from testbed.ganesha import Ganesha
from testbed.waiting import NotInTime
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import DirectExport
from tests.support.disk import disagreement, disk
from tests.support.storage import VOLUMES

pytestmark = pytest.mark.timeout(300)

TOLD_S = 10.0
RECOVERY_S = 15.0
BUSY_S = 5.0
"""What a busy machine can add to either of them. An event has the time of its cause, however late it is written."""
WRITTEN_S = 60.0
"""The limit for writing all events on a busy machine."""
BINDING_S = 10.0
"""The time that the cluster needs to bind claims whose volumes exist, on a busy machine."""
SINGLES = 40
WAITING = 40
SLACK_S = 0.5
"""What a busy machine can add to a median; a 99th percentile gets four times as much.

It is half of what a claim behind a hung server would wait: the time limit of a probe.
"""
MANY = 250
SWEEP_S = 60.0
"""The interval of the sweep, which deletes the records of volumes that were gone before a crash."""


class Arrivals(threading.Thread):
    """Notes when each PersistentVolume appears, by time.monotonic()."""

    def __init__(self, api: Api) -> None:
        super().__init__(daemon=True)
        self._api = api
        self.seen_s: dict[str, float] = {}
        self.closing = threading.Event()

    def run(self) -> None:
        """Watch until `closing` is set."""
        while not self.closing.is_set():
            for event in self._api.watch(VOLUMES, timeout_s=1):
                self.seen_s.setdefault(event["object"]["metadata"]["name"], time.monotonic())


@contextmanager
def arrivals(api: Api) -> Iterator[Arrivals]:
    """Watch for arrivals while the context is open."""
    thread = Arrivals(api)
    thread.start()
    try:
        yield thread
    finally:
        thread.closing.set()
        thread.join()


def latencies_s(direct: DirectStorage, class_name: str, prefix: str) -> list[float]:
    """Create claims one after another, and return how long each waits for its volume, sorted."""
    sent_s: dict[str, float] = {}
    with arrivals(direct.api) as watched:
        for number in range(SINGLES):
            began_s = time.monotonic()
            claim = direct.claim(class_name, f"{prefix}-{number}")
            sent_s[f"pvc-{claim['metadata']['uid']}"] = began_s
            time.sleep(0.02)
        direct.eventually(lambda: sent_s.keys() <= watched.seen_s.keys(), f"the claims {prefix} have volumes")
    return sorted(watched.seen_s[name] - began_s for name, began_s in sent_s.items())


def make_claims(direct: DirectStorage, classes: Mapping[str, str]) -> None:
    """Create claims with these names and classes."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: direct.claim(classes[name], name), classes))


@contextmanager
def pending(direct: DirectStorage, classes: Mapping[str, str]) -> Iterator[None]:
    """Keep claims Pending while the context is open.

    The cluster's controllers write an event each time that they look at a Pending claim, so a comparison needs as many
    of them before an outage as during it.
    """
    make_claims(direct, classes)
    yield
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(direct.delete_claim, classes))


def report(prefix: str, values_s: list[float]) -> tuple[float, float]:
    """Print and return the median and the 99th percentile."""
    median_s, p99_s = statistics.median(values_s), values_s[int(len(values_s) * 0.99)]
    print(f"{prefix}: p50 {median_s * 1000:.0f} ms, p99 {p99_s * 1000:.0f} ms")
    return median_s, p99_s


def usage(pid: int | None) -> tuple[float, int, int]:
    """Return resident megabytes, threads and open files of a process (proc(5))."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(lines["VmRSS"].split()[0]) * 1024 / 1e6, int(lines["Threads"]), files


def volumes_of(direct: DirectStorage, class_name: str) -> list[Object]:
    """Return the PersistentVolumes of a class."""
    return [volume for volume in direct.api.list(VOLUMES) if volume["spec"]["storageClassName"] == class_name]


def moment(text: str) -> datetime:
    """Parse a time of the API, which has whole seconds."""
    return datetime.fromisoformat(text)


def waited_s(direct: DirectStorage, name: str, *words: str) -> float:
    """Return the age of a claim at its first event with these words. Raises AssertionError if it has other events."""
    direct.failure(name, *words, timeout_s=WRITTEN_S)
    events = direct.events(name, reason="ProvisioningFailed")
    assert len({event["message"] for event in events}) == 1
    claim = direct.api.get(f"{direct.claims}/{name}")
    made = moment(claim["metadata"]["creationTimestamp"])
    return (min(moment(event["firstTimestamp"]) for event in events) - made).total_seconds()


def agreed(
    direct: DirectStorage, export: DirectExport, class_name: str, count: int, *, timeout_s: float = 30.0
) -> None:
    """Wait until the class has this number of volumes and the disk agrees with them."""
    seen = ""

    def agree() -> bool:
        nonlocal seen
        volumes = volumes_of(direct, class_name)
        wrong_count = "" if len(volumes) == count else f"{len(volumes)} volumes instead of {count}"
        seen = disagreement(export.root, volumes) or wrong_count
        return not seen

    try:
        direct.eventually(agree, "disk and API agree", timeout_s=timeout_s)
    except NotInTime as exc:
        raise AssertionError(f"{export.location}: {seen}") from exc


@pytest.mark.thorough
def test_two_of_three_servers_gone(direct: DirectStorage, serve: MakeServer) -> None:
    """With one server stopped and one killed, claims on the third bind as fast as before; the others get the cause."""
    exports = {name: DirectExport(serve(f"/{name}"), f"/{name}") for name in ("stopped", "killed", "well")}
    classes = {name: direct.class_on(export) for name, export in exports.items()}
    unserved = direct.storage_class("nobody.example/provisioner")
    for name, class_name in classes.items():
        direct.claim(class_name, f"{name}-first")
    volumes = {name: direct.bound(f"{name}-first") for name in classes}
    latencies_s(direct, classes["well"], "warm")
    with pending(direct, {f"unserved-{number}": unserved for number in range(2 * WAITING)}):
        before = report("all three well", latencies_s(direct, classes["well"], "before"))
    mb_before, threads_before, files_before = usage(direct.daemon.pid)
    exports["stopped"].server.pause()
    exports["killed"].server.kill()
    began_s = time.monotonic()
    waiting = {f"{name}-{number}": name for name in ("stopped", "killed") for number in range(WAITING)}
    make_claims(direct, {name: classes[server] for name, server in waiting.items()})
    print(f"{len(waiting)} claims made {time.monotonic() - began_s:.1f} s after the servers went")
    for name in ("stopped", "killed"):
        direct.delete_claim(f"{name}-first")
    during = report("two of three gone", latencies_s(direct, classes["well"], "during"))
    for name, words in (("stopped", "is not responding on port"), ("killed", "refuses connections on port")):
        ages_s = [
            waited_s(direct, claim, exports[name].location, "is not responding", words)
            for claim, server in waiting.items()
            if server == name
        ]
        print(f"{name}: the event came at most {max(ages_s):.0f} s after the claim")
        assert max(ages_s) <= TOLD_S + BUSY_S
    while time.monotonic() < began_s + 20.0:
        time.sleep(0.5)
    later = report("two of three gone for 20 s", latencies_s(direct, classes["well"], "later"))
    mb, threads, files = usage(direct.daemon.pid)
    print(f"before: {mb_before:.0f} MB, {threads_before} threads, {files_before} files")
    print(f"during: {mb:.0f} MB, {threads} threads, {files} files")
    exports["stopped"].server.resume()
    exports["killed"].server.start()
    returned = datetime.now(UTC)
    for name in waiting:
        volume = direct.bound(name, timeout_s=RECOVERY_S + BINDING_S)
        assert moment(volume["metadata"]["creationTimestamp"]) <= returned + timedelta(seconds=RECOVERY_S + BUSY_S)
    for name in ("stopped", "killed"):
        direct.volume_gone(volumes[name]["metadata"]["name"], timeout_s=RECOVERY_S + BINDING_S)
        agreed(direct, exports[name], classes[name], WAITING)
    agreed(direct, exports["well"], classes["well"], 4 * SINGLES + 1)
    for median_s, p99_s in (during, later):
        assert median_s <= 1.5 * before[0] + SLACK_S
        assert p99_s <= 1.5 * before[1] + 4 * SLACK_S
    assert mb < mb_before + 20
    assert threads <= threads_before + 8
    assert files <= files_before + 64


@pytest.mark.parametrize("version", [pytest.param("3", marks=pytest.mark.thorough), "4.2"])
def test_a_server_that_crashes(direct: DirectStorage, serve: MakeServer, version: str) -> None:
    """When a server is killed amid hundreds of creations, and of deletions, disk and API agree exactly in the end."""
    server = serve(f"/crash-{version}")
    export = DirectExport(server, f"/crash-{version}", version)
    class_name = direct.class_on(export)
    names = [f"data-{number}" for number in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda name: direct.claim(class_name, name), names)
        crash(direct, server, lambda: len(disk(export.root).directories) > MANY // 4)
        list(made)
        direct.eventually(
            lambda: all(claim["status"]["phase"] == "Bound" for claim in direct.api.list(direct.claims)),
            "all claims are Bound",
            timeout_s=120,
        )
        agreed(direct, export, class_name, MANY)
        gone = pool.map(direct.delete_claim, names)
        crash(direct, server, lambda: len(disk(export.root).directories) < MANY - MANY // 4)
        list(gone)
    direct.eventually(lambda: not volumes_of(direct, class_name), "all volumes are gone", timeout_s=120)
    agreed(direct, export, class_name, 0, timeout_s=SWEEP_S + RECOVERY_S)


def crash(direct: DirectStorage, server: Ganesha, moment: Callable[[], bool]) -> None:
    """Kill the server once the work reaches a point, and start it again after a second."""
    direct.eventually(moment, "the work is half done", timeout_s=60)
    server.kill()
    time.sleep(1.0)
    server.start()

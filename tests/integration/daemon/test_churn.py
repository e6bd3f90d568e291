"""Hundreds of claims come and go while all fails that can: nobody's data is touched, and nothing is left behind."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import ganesha
from testbed.api import ApiError
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from tests.integration.daemon.direct.exported import VERSIONS, DirectExport
from tests.integration.daemon.test_leadership import SHORT, leads
from tests.support.churn import Chronicle, Kind, Tenants, Watcher, at_work, desk, unquiet
from tests.support.daemon import Daemon, Daemons
from tests.support.storage import Storage
from tests.support.weather import SmallDisk, Weather

CLAIMS = 500
DURATION_S = float(os.environ.get("CHURN_SECONDS", "120"))
SEED = int(os.environ.get("CHURN_SEED", "7"))
"""Of the plan of claims and faults; the machine's timing makes each run another one all the same."""
QUIET_S = 180.0
"""How long everything may take to come to rest on a busy machine; the sweep looks every minute."""
FAULT_S = 6.0
OUTLIVES_LEASE_S = 6.0
PATTERNS = {
    "${.PVC.name}-${.PV.name}": False,
    "${.PVC.namespace}/team/${.PVC.name}": True,
}
"""A flat one and a nested one, and whether it is the same for every claim of one name."""


class Sites:
    """A large export and a small one, each of a server of its own."""

    def __init__(self, home: Path) -> None:
        (home / "large").mkdir()
        self.disk = SmallDisk(home / "small", size_mb=64, inodes=8000)
        self.large = Ganesha([Export(home / "large", "/large")], versions=VERSIONS)
        self.small = Ganesha([Export(self.disk.exported, "/small", squash="Root_Squash")], versions=VERSIONS)
        self.large.start()
        self.small.start()

    def close(self) -> None:
        """End the servers, and take the small disk away."""
        self.large.stop()
        self.small.stop()
        self.disk.close()


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    """Servers that run; skipped where they cannot, or where nothing can be mounted."""
    reason = ganesha.missing(versions=VERSIONS) or ganesha.vfs_problem(tmp_path)
    if reason or os.geteuid() != 0:
        pytest.skip(f"this machine cannot run an NFS server on a small disk: {reason or 'that takes root'}")
    opened = Sites(tmp_path)
    yield opened
    opened.close()


def kinds_on(server: Ganesha, version: str | None, storage: Storage, provisioner: str) -> list[Kind]:
    """A class for each rule and pattern on a server's export."""
    export = DirectExport(server, server.exports[0].path, version)
    kinds = []
    for rule, pattern in itertools.product(("delete", "archive", "retain"), PATTERNS):
        parameters = export.parameters | {"pathPattern": pattern, "onDelete": rule}
        name = storage.storage_class(provisioner, parameters, mountOptions=export.mount_options)
        kinds.append(Kind(rule, export, name, lasting=PATTERNS[pattern] and rule == "retain"))
    return kinds


def pause_leader(daemons: list[Daemon]) -> None:
    """Freeze whoever leads, if one does."""
    for daemon in daemons:
        try:
            if daemon.pid is not None and leads(daemon):
                print(f"          {daemon.log.stem} is paused")
                daemon.pause()
                return
        except OSError:
            pass


def again(daemon: Daemon) -> None:
    """Kill -9 and start."""
    daemon.kill()
    daemon.start()


def plan(weather: Weather, plane: ControlPlane, daemons: list[Daemon], sites: Sites) -> None:
    """All that goes wrong in one run."""
    first, second = daemons
    weather.one_after_another(
        {
            "no space": sites.disk.without_space,
            "no inodes": sites.disk.without_inodes,
            "read-only": lambda: sites.disk.read_only(sites.small),
            "denied": sites.disk.denied,
            "stale": lambda: sites.disk.stale(sites.small),
        },
        lasting_s=FAULT_S,
    )
    weather.now_and_then(max(3, int(DURATION_S / 7)), "first: kill -9, start", lambda: again(first))
    for at_s in weather.now_and_then(2, "second: start", second.start):
        weather.at(at_s + DURATION_S / 4, "second: kill -9", second.kill)
    for at_s in weather.now_and_then(3, "the leader is paused", lambda: pause_leader(daemons)):
        for daemon in daemons:
            weather.at(at_s + OUTLIVES_LEASE_S, "it goes on", daemon.resume)
    for at_s in weather.now_and_then(3, "API server: kill", plane.api_server.kill):
        weather.at(at_s + 2.0, "API server: start", plane.api_server.start)
    for at_s in weather.now_and_then(3, "large NFS server: kill", sites.large.kill):
        weather.at(at_s + 1.0, "large NFS server: start", sites.large.start)


def clear_up(plane: ControlPlane, daemons: list[Daemon], sites: Sites) -> None:
    """Everything runs again, with one replica."""
    plane.start()
    sites.large.start()
    sites.small.start()
    first, second = daemons
    second.kill()
    first.resume()
    first.start()


@pytest.mark.timeout(int(DURATION_S + QUIET_S) + 240)
def test_churn(control_plane: ControlPlane, daemon: Daemons, storage: Storage, sites: Sites) -> None:
    """No live claim's directory is ever touched or shared, only what a rule allows is destroyed, and in the end API,

    directories and ledger agree: while 500 claims churn, replicas are killed and overlap, API and NFS servers die, and
    a disk is full, without inodes, read-only, closed and stale in turn.
    """
    print(f"CHURN_SEED={SEED} CHURN_SECONDS={DURATION_S:g}")
    chance = random.Random(SEED)
    daemons = [daemon(*SHORT, "--log-level=info")]
    daemons.append(daemon(*SHORT, provisioner_name=daemons[0].provisioner_name, wait_ready=False))
    versions = chance.sample(["3", None], 2)  # None is the best there is
    large, small = (
        kinds_on(server, version, storage, daemons[0].provisioner_name)
        for server, version in zip((sites.large, sites.small), versions, strict=True)
    )
    kinds = {f"claim-{number}": chance.choice(large if number % 5 else small) for number in range(CLAIMS)}
    chronicle, weather = Chronicle(), Weather(chance, DURATION_S)
    plan(weather, control_plane, daemons, sites)

    def unharmed() -> None:
        assert chronicle.problems == []

    with desk() as opened:
        tenants = Tenants(storage, kinds, chronicle, opened, random.Random(SEED))
        watcher = Watcher(chronicle)
        with at_work([watcher]):
            with at_work([tenants]):
                weather.run(unharmed)
                clear_up(control_plane, daemons, sites)
            print(f"{len(chronicle.lives)} claims, {tenants.rounds} rounds, {watcher.looks} looks; now quiet")
            settle(storage, chronicle, [*large, *small])
            unharmed()


def settle(storage: Storage, chronicle: Chronicle, classes: list[Kind]) -> None:
    """Wait until nothing is amiss. Raises AssertionError with what still is."""
    began_s, wrong = time.monotonic(), ["nothing was looked at yet"]
    while wrong and time.monotonic() < began_s + QUIET_S:
        time.sleep(2.0)
        try:
            wrong = unquiet(storage, chronicle, classes)
        except (ApiError, OSError) as exc:
            wrong = [repr(exc)]
    print(f"at rest after {time.monotonic() - began_s:.0f} s")
    assert wrong == [], f"{len(wrong)} things are amiss: {wrong[:20]}"

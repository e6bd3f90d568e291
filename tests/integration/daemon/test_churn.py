"""Hundreds of claims come and go while daemons, servers and disks fail: no live data is touched, nothing is left."""

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
from tests.integration.daemon.test_leadership import SHORT, leads
from tests.support.daemon import Daemon, Daemons
from tests.support.direct_export import VERSIONS, DirectExport
from tests.support.fault_schedule import FaultSchedule, SmallDisk
from tests.support.load import ClaimLog, Kind, Tenants, Watcher, remaining_problems, running, tenant_writer
from tests.support.storage import Storage

CLAIMS = 500
DURATION_S = float(os.environ.get("CHURN_SECONDS", "60"))
SEED = int(os.environ.get("CHURN_SEED", "7"))
"""Seeds the plan of claims and faults; timing makes each run different all the same."""
SETTLED_S = 180.0
"""The limit for settling on a busy machine; the sweep runs every minute."""
FAULT_S = 6.0
OUTLIVES_LEASE_S = 6.0
PATTERNS = {
    "${.PVC.name}-${.PV.name}": False,
    "${.PVC.namespace}/team/${.PVC.name}": True,
}
"""A flat and a nested pattern, and whether it gives each claim of one name the same directory."""


class Servers:
    """A large export and a small one, each on its own server."""

    def __init__(self, home: Path) -> None:
        (home / "large").mkdir()
        self.disk = SmallDisk(home / "small", size_mb=64, inodes=8000)
        self.large = Ganesha([Export(home / "large", "/large")], versions=VERSIONS)
        self.small = Ganesha([Export(self.disk.exported, "/small", squash="Root_Squash")], versions=VERSIONS)
        self.large.start()
        self.small.start()

    def close(self) -> None:
        """Stop the servers and unmount the small disk."""
        self.large.stop()
        self.small.stop()
        self.disk.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Running servers; skipped where they cannot run, or where the tests cannot mount."""
    reason = ganesha.missing(versions=VERSIONS) or ganesha.vfs_problem(tmp_path)
    if reason or os.geteuid() != 0:
        pytest.skip(f"this machine cannot run an NFS server on a small disk: {reason or 'that takes root'}")
    opened = Servers(tmp_path)
    yield opened
    opened.close()


def kinds_on(server: Ganesha, version: str | None, storage: Storage, provisioner: str) -> list[Kind]:
    """Create a class per rule and pattern on a server's export."""
    export = DirectExport(server, server.exports[0].path, version)
    kinds = []
    for rule, pattern in itertools.product(("delete", "archive", "retain"), PATTERNS):
        parameters = export.parameters | {"pathPattern": pattern, "onDelete": rule}
        name = storage.storage_class(provisioner, parameters, mountOptions=export.mount_options)
        kinds.append(Kind(rule, export, name, lasting=PATTERNS[pattern] and rule == "retain"))
    return kinds


def pause_leader(daemons: list[Daemon]) -> None:
    """Freeze the leader, if there is one."""
    for daemon in daemons:
        try:
            if daemon.pid is not None and leads(daemon):
                print(f"          {daemon.log.stem} is paused")
                daemon.pause()
                return
        except OSError:
            pass


def restart(daemon: Daemon) -> None:
    """Kill the daemon and start it again."""
    daemon.kill()
    daemon.start()


def plan(faults: FaultSchedule, plane: ControlPlane, daemons: list[Daemon], servers: Servers) -> None:
    """Schedule all faults of one run."""
    first, second = daemons
    faults.in_turn(
        {
            "no space": servers.disk.without_space,
            "no inodes": servers.disk.without_inodes,
            "read-only": lambda: servers.disk.read_only(servers.small),
            "denied": servers.disk.denied,
            "stale": lambda: servers.disk.stale(servers.small),
        },
        lasting_s=FAULT_S,
    )
    faults.spread(max(3, int(DURATION_S / 7)), "first: kill -9, start", lambda: restart(first))
    for at_s in faults.spread(2, "second: start", second.start):
        faults.at(at_s + DURATION_S / 4, "second: kill -9", second.kill)
    for at_s in faults.spread(3, "the leader is paused", lambda: pause_leader(daemons)):
        for daemon in daemons:
            faults.at(at_s + OUTLIVES_LEASE_S, "it goes on", daemon.resume)
    for at_s in faults.spread(3, "API server: kill", plane.api_server.kill):
        faults.at(at_s + 2.0, "API server: start", plane.api_server.start)
    for at_s in faults.spread(3, "large NFS server: kill", servers.large.kill):
        faults.at(at_s + 1.0, "large NFS server: start", servers.large.start)


def end_faults(plane: ControlPlane, daemons: list[Daemon], servers: Servers) -> None:
    """Restore all servers and one replica."""
    plane.start()
    servers.large.start()
    servers.small.start()
    first, second = daemons
    second.kill()
    first.resume()
    first.start()


@pytest.mark.timeout(int(DURATION_S + SETTLED_S) + 240)
def test_churn(control_plane: ControlPlane, daemon: Daemons, storage: Storage, servers: Servers) -> None:
    """No live claim's directory is touched or shared, and in the end API, directories and ledger agree.

    Hundreds of claims come and go, replicas are killed and overlap, API and NFS servers die, and a disk is
    full, without inodes, read-only, closed and stale in turn. Only what a rule allows is deleted.
    """
    print(f"CHURN_SEED={SEED} CHURN_SECONDS={DURATION_S:g}")
    chance = random.Random(SEED)
    daemons = [daemon(*SHORT, "--log-level=info")]
    daemons.append(daemon(*SHORT, provisioner_name=daemons[0].provisioner_name, wait_ready=False))
    versions = chance.sample(["3", None], 2)  # None is the best version
    large, small = (
        kinds_on(server, version, storage, daemons[0].provisioner_name)
        for server, version in zip((servers.large, servers.small), versions, strict=True)
    )
    kinds = {f"claim-{number}": chance.choice(large if number % 5 else small) for number in range(CLAIMS)}
    claim_log, faults = ClaimLog(), FaultSchedule(chance, DURATION_S)
    plan(faults, control_plane, daemons, servers)

    def no_problems() -> None:
        assert claim_log.problems == []

    with tenant_writer() as opened:
        tenants = Tenants(storage, kinds, claim_log, opened, random.Random(SEED))
        watcher = Watcher(claim_log)
        with running([watcher]):
            with running([tenants]):
                faults.run(no_problems)
                end_faults(control_plane, daemons, servers)
            print(f"{len(claim_log.claims_by_uid)} claims, {tenants.rounds} rounds, {watcher.checks} checks; load over")
            settle(storage, claim_log, [*large, *small])
            no_problems()


def settle(storage: Storage, claim_log: ClaimLog, classes: list[Kind]) -> None:
    """Wait until no problem is left. Raises AssertionError with those that are."""
    began_s, wrong = time.monotonic(), ["not checked yet"]
    while wrong and time.monotonic() < began_s + SETTLED_S:
        time.sleep(2.0)
        try:
            wrong = remaining_problems(storage, claim_log, classes)
        except (ApiError, OSError) as exc:
            wrong = [repr(exc)]
    print(f"settled after {time.monotonic() - began_s:.0f} s")
    assert wrong == [], f"{len(wrong)} problems: {wrong[:20]}"

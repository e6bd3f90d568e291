"""Exports with two names, copies of an export, and exports inside exports."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Daemons
from tests.support.disk import disk
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(180)
OPTIONS = "--no-leader-election"


def crashed(daemon: Daemon, export: Path, *volumes: str) -> None:
    """Restart the daemon as after a crash between the volumes' creation and the settling of their records."""
    daemon.kill()
    ledger = export / ".provisioner"
    for volume in volumes:
        os.rename(ledger / "volumes" / volume, ledger / "pending" / volume)
    daemon.start()
    daemon.wait_ready()


def test_a_crash_on_an_export_with_two_names(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """After a crash bound claims keep directory and record, whichever of the server's names their classes use."""
    started = daemon(
        f"--export=nas.example:/x={export_directory}", f"--export=0-nas.example:/x={export_directory}", OPTIONS
    )
    servers = {"first": "nas.example", "second": "0-nas.example"}
    for claim, server in servers.items():
        storage.claim(storage.storage_class(started.provisioner_name, {"server": server, "share": "/x"}), claim)
    volumes = {claim: storage.bound(claim) for claim in servers}
    assert {claim: volume["spec"]["nfs"]["server"] for claim, volume in volumes.items()} == servers
    names = {volume["metadata"]["name"] for volume in volumes.values()}
    crashed(started, export_directory, *names)
    storage.eventually(lambda: disk(export_directory).records == names, "the records are settled")
    kept = {volume["metadata"]["annotations"]["nfs-provisioner/directory"] for volume in volumes.values()}
    assert disk(export_directory).directories == kept
    assert started.logged("export_known")
    assert not started.logged("attempt_undone")
    up = [line for line in started.http("/metrics").splitlines() if line.startswith("nfs_provisioner_export_up{")]
    assert len(up) == 1, "one export has one series"


def test_a_static_volume_by_the_other_name(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """No claim gets the directory of an admin's volume by another name of its server."""
    started = daemon(f"--export=nas.example:/x={export_directory}", f"--export=10.0.0.5:/x={export_directory}", OPTIONS)
    storage.eventually(lambda: started.logged("export_known"), "the two names are known to be one export")
    storage.make_volume(
        {
            "metadata": {"name": f"static-{storage.namespace}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteMany"],
                "nfs": {"server": "10.0.0.5", "path": "/x/team"},
            },
        }
    )
    parameters = {"server": "nas.example", "share": "/x", "pathPattern": "team/${.PVC.name}"}
    storage.claim(storage.storage_class(started.provisioner_name, parameters))
    event = storage.eventually(lambda: storage.events(reason="ProvisioningFailed"), "the claim is refused")[0]
    assert "overlaps with" in event["message"]


def test_a_copy_of_an_export(daemon: Daemons, storage: Storage, tmp_path: Path) -> None:
    """A copy of an export with its ledger is refused with what to do, and the export itself serves its claims."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    first = daemon(f"--export=nas.example:/x={original}", OPTIONS)
    class_name = storage.storage_class(first.provisioner_name, {"server": "nas.example", "share": "/x"})
    storage.claim(class_name, "before")
    storage.bound("before")
    first.kill()
    shutil.copytree(original, copy, symlinks=True)

    other = storage.storage_class(first.provisioner_name, {"server": "copy.example", "share": "/x"})

    third = daemon(
        f"--export=nas.example:/x={original}",
        f"--export=copy.example:/x={copy}",
        OPTIONS,
        provisioner_name=first.provisioner_name,
        wait_ready=False,
    )
    storage.eventually(lambda: third.logged("export_failing"), "one of the two is refused")
    (line,) = third.logged("export_failing")
    assert "is a copy" in line["error"]
    refused, served = (other, class_name) if "copy.example" in line["export"] else (class_name, other)
    storage.claim(served, "served")
    storage.bound("served")
    storage.claim(refused, "refused")
    event = storage.eventually(lambda: storage.events("refused", reason="ProvisioningFailed"), "it is refused")[0]
    assert "remove .provisioner" in event["message"]


def test_an_export_in_an_export(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """Of two provisioners with nested exports, neither gives out a directory of the other's."""
    inner = export_directory / "team"
    inner.mkdir()
    red = daemon(f"--export=nas.example:/exports={export_directory}", OPTIONS)
    blue = daemon(f"--export=nas.example:/exports/team={inner}", OPTIONS)
    pattern = {"server": "nas.example", "pathPattern": "${.PVC.annotations.path}"}
    on_outer = storage.storage_class(red.provisioner_name, {"share": "/exports"} | pattern)
    on_inner = storage.storage_class(blue.provisioner_name, {"share": "/exports/team"} | pattern)

    def claim(class_name: str, name: str, path: str) -> None:
        storage.claim(class_name, name, metadata={"annotations": {"path": path}})

    claim(on_inner, "victim", "db")
    storage.bound("victim")
    wishes = {"inside": "team/db/inside", "ledger": "team/.provisioner/drafts/x", "beside": "team/new", "root": "team"}
    for name, path in wishes.items():
        claim(on_outer, name, path)
    claim(on_outer, "elsewhere", "teams/db")
    storage.bound("elsewhere")
    for name in wishes:
        refused = partial(storage.events, name, reason="ProvisioningFailed")
        storage.eventually(refused, f"the claim {name} is refused")
    assert os.listdir(inner / "db") == []
    assert disk(inner).directories == {"db"}


def test_an_export_in_a_volume(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """An export whose root lies in a volume of another export is refused, and the daemon writes nothing there."""
    red = daemon(f"--export=nas2.example:/exports={export_directory}", OPTIONS)
    storage.claim(storage.storage_class(red.provisioner_name, {"pathPattern": "team"}))
    storage.bound()
    (export_directory / "team/share").mkdir()
    blue = daemon(f"--export=nas2.example:/share={export_directory / 'team/share'}", OPTIONS, wait_ready=False)
    line = storage.eventually(lambda: blue.logged("export_failing"), "the export is refused")[0]
    assert "is inside a directory that another export uses" in line["error"]
    assert os.listdir(export_directory / "team/share") == []

"""Volumes of nfs-subdir-external-provisioner that name their server differently from every class and setting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.daemon import Daemons
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(180)


def test_a_volume_with_another_name_of_the_server(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """No claim gets a directory in the volume; the log names it, and an --export for its server solves the conflict."""
    (export_directory / "team").mkdir()
    (export_directory / "team/file").write_text("data")
    first = daemon(f"--export=nas.example:/homeless={export_directory}", "--no-leader-election")
    class_name = storage.storage_class(first.provisioner_name, {"pathPattern": "${.PVC.labels.team}/${.PVC.name}"})
    peers = storage.make_volume(
        {
            "metadata": {
                "name": f"pvc-{storage.namespace}",
                "annotations": {"pv.kubernetes.io/provisioned-by": first.provisioner_name},
            },
            "spec": {
                "capacity": {"storage": "1Mi"},
                "accessModes": ["ReadWriteMany"],
                "storageClassName": class_name,
                "claimRef": {"namespace": storage.namespace, "name": "all"},
                "nfs": {"server": "10.0.0.5", "path": "/homeless/team"},
            },
        }
    )["metadata"]["name"]
    storage.claim(class_name, "all", volumeName=peers)
    storage.bound("all")
    for name, team in (("inner", "team"), ("beside", "teams")):
        storage.claim(class_name, name, metadata={"labels": {"team": team}})
    storage.bound("beside")
    event = storage.eventually(lambda: storage.events("inner", reason="ProvisioningFailed"), "it is refused")[0]
    assert f"volume {peers} lies on 10.0.0.5:/homeless/team" in event["message"]
    assert "--export" in event["message"]
    line = storage.eventually(lambda: first.logged("volume_on_unknown_export"), "the log names the volume")[0]
    assert (line["volume"], line["server"], line["path"]) == (peers, "10.0.0.5", "/homeless/team")
    assert "nfs_provisioner_volumes_on_unknown_export 1.0" in first.http("/metrics")
    first.kill()

    names = (f"--export={server}:/homeless={export_directory}" for server in ("nas.example", "10.0.0.5"))
    environment = {"NFS_SERVER": "nas.example", "NFS_PATH": "/homeless"}
    second = daemon(*names, "--no-leader-election", provisioner_name=first.provisioner_name, environment=environment)
    storage.eventually(lambda: second.logged("volume_taken_over"), "the volume is taken over")
    assert peers in os.listdir(export_directory / ".provisioner/volumes")
    assert os.listdir(export_directory / "team") == ["file"]

"""Commands that read exports, over NFS as an admin's machine reaches them: usage, describe and move."""

from __future__ import annotations

import json

import pytest

from testbed.cluster import ControlPlane
from testbed.ganesha import Ganesha
from tests.support.archiving import command
from tests.support.daemon import Daemons
from tests.support.direct_export import DirectExport
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(240)


def test_over_nfs(control_plane: ControlPlane, daemon: Daemons, storage: Storage, nfs_server: Ganesha) -> None:
    """The usage is that of the files, and volumes move to another name of the server, with their own port."""
    started = daemon("--no-leader-election")
    export = DirectExport(nfs_server, "/nfs")
    parameters = {**export.parameters, "onDelete": "delete"}
    storage.claim(storage.storage_class(started.provisioner_name, parameters, mountOptions=export.mount_options))
    volume = storage.bound()
    directory = export.directory(volume)
    (directory / "inner").mkdir()
    (directory / "inner" / "file").write_bytes(b"x" * 1_000_000)

    used = command(control_plane, "usage", started.provisioner_name, "-o", "json")
    assert used.returncode == 0, used.stderr
    (row,) = json.loads(used.stdout)
    assert (row["files"], row["source"], row["complete"]) == (3, "walk", True)
    assert 1_000_000 <= row["used_bytes"] < 2_000_000
    described = command(control_plane, "describe", started.provisioner_name, f"{storage.namespace}/data", "-o", "json")
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["directory"]["state"] == "data"

    journal = f"--journal={export.root.parent / 'journal.json'}"
    words = ("--from=127.0.0.1:/nfs", "--to=localhost:/nfs", journal)
    looked = command(control_plane, "move", started.provisioner_name, *words)
    assert looked.returncode == 0, looked.stderr
    assert "both addresses have the ledger" in looked.stderr
    assert "no StorageClass of provisioner" in looked.stderr
    assert storage.bound()["metadata"]["uid"] == volume["metadata"]["uid"]
    moved = command(control_plane, "move", started.provisioner_name, *words, "--apply")
    assert moved.returncode == 0, moved.stderr
    after = storage.bound()
    assert after["spec"]["nfs"] == {"server": "localhost", "path": volume["spec"]["nfs"]["path"]}
    assert after["spec"]["claimRef"]["uid"] == volume["spec"]["claimRef"]["uid"]
    assert after["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert (directory / "inner" / "file").exists()
    storage.delete_claim()
    storage.volume_gone(after["metadata"]["name"])
    assert not directory.exists()

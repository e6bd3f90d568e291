"""`nfs-provisioner recover` as admins meet it: which cluster, warnings, output and exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from testbed.cluster import ControlPlane, TokenUser
from tests.support.daemon import Daemons
from tests.support.disk import LEDGER
from tests.support.exported import Exported
from tests.support.storage import VOLUMES

pytestmark = pytest.mark.timeout(120)

US = "test.example/recover"


@pytest.fixture
def export(export_directory: Path, daemon: Daemons) -> Exported:
    """An export with the ledger of a provisioner that no longer runs."""
    export = Exported.new(export_directory)
    daemon("--no-leader-election", export.flag, provisioner_name=US).stop()
    return export


def leave(export: Exported, volume: str, *, cluster: str) -> None:
    """Write what a volume of a lost cluster leaves: its record and its directory."""
    (export.root / volume).mkdir()
    record = {
        "v": 1,
        "dir": volume,
        "ns": "shop",
        "pvc": f"claim-{volume}",
        "uid": volume,
        "class": "nfs",
        "del": "archive",
        "size": "1Mi",
        "at": "2026-01-01T00:00:00Z",
        "by": cluster,
    }
    export.plant(volume, record)


def sign(export: Exported, cluster: str, ago: timedelta) -> None:
    """Write the heartbeat of a provisioner of that cluster."""
    at = (datetime.now(UTC) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")
    (export.root / LEDGER / "clusters" / cluster).symlink_to(at)


def recover(kubeconfig: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "provisioner", "recover", f"--provisioner-name={US}"]
    command += [f"--kubeconfig={kubeconfig}", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def contents(export: Exported) -> dict[str, str]:
    """Return the records of an export's ledger."""
    return {path.name: str(path.readlink()) for path in (export.root / LEDGER / "volumes").iterdir()}


def is_made(control_plane: ControlPlane, volume: str) -> bool:
    return volume in [each["metadata"]["name"] for each in control_plane.api.list(VOLUMES)]


def test_several_clusters(control_plane: ControlPlane, export: Exported) -> None:
    """Of several lost clusters one must be chosen: the refusal lists them, and changes nothing."""
    leave(export, "pvc-old-1", cluster="first")
    leave(export, "pvc-old-2", cluster="second")
    sign(export, "second", timedelta(days=3))
    refused = recover(control_plane.kubeconfig, export.flag, "--apply")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "first: 1 volume, 0 archives, never seen; second: 1 volume, 0 archives, last seen 20" in refused.stderr
    assert refused.stderr.count("\n") == 1
    chosen = recover(control_plane.kubeconfig, export.flag, "--cluster=second")
    assert chosen.returncode == 0
    assert f"looked at export {export.location}: 2 volume records, 0 archive records, 2 clusters" in chosen.stderr
    assert "1 volume would be created, 0 archives would be included" in chosen.stderr
    heading, line = chosen.stdout.splitlines()
    assert heading.split() == ["CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "CAPACITY", "CLASS", "WHAT"]
    assert line.split()[:4] == ["shop/claim-pvc-old-2", "pvc-old-2", export.location, "pvc-old-2"]
    assert line.endswith("would be created")
    assert "WARNING" not in chosen.stderr
    unknown = recover(control_plane.kubeconfig, export.flag, "--cluster=third")
    assert unknown.returncode == 2


def test_a_cluster_that_may_be_alive(control_plane: ControlPlane, export: Exported) -> None:
    """A cluster whose provisioner was at work a minute ago causes a warning, and is recovered only with a flag."""
    leave(export, "pvc-alive", cluster="first")
    sign(export, "first", timedelta(minutes=1))
    looked = recover(control_plane.kubeconfig, export.flag)
    assert looked.returncode == 0
    assert "WARNING: a provisioner of cluster first was at work on these exports" in looked.stderr
    assert "would be created" in looked.stdout

    ledger = contents(export)
    refused = recover(control_plane.kubeconfig, export.flag, "--apply")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("a provisioner of cluster first was at work on these exports") == 1
    assert "--old-cluster-is-gone. Nothing was changed" in refused.stderr
    assert contents(export) == ledger
    assert not is_made(control_plane, "pvc-alive")
    assert "--old-cluster-is-gone" in recover(control_plane.kubeconfig, "--help").stdout

    done = recover(control_plane.kubeconfig, export.flag, "--apply", "--old-cluster-is-gone")
    assert done.returncode == 0
    assert is_made(control_plane, "pvc-alive")
    assert "nothing to recover" in recover(control_plane.kubeconfig, export.flag, "--apply").stderr
    control_plane.api.delete(f"{VOLUMES}/pvc-alive")


def test_what_is_next(control_plane: ControlPlane, export: Exported) -> None:
    """After a recovery each remaining step is a command to copy, and completed steps are left out."""
    for volume in ("pvc-old-1", "pvc-old-2"):
        leave(export, volume, cluster="first")
    done = recover(control_plane.kubeconfig, export.flag, "--apply")
    assert done.returncode == 0
    assert "2 volumes created, 0 archives included" in done.stderr
    assert "1. apply the manifests of the claims" in done.stderr
    assert "for pv in pvc-old-1 pvc-old-2; do kubectl patch pv $pv -p '{" in done.stderr
    for volume in ("pvc-old-1", "pvc-old-2"):
        control_plane.api.delete(f"/api/v1/persistentvolumes/{volume}")
    again = recover(control_plane.kubeconfig, export.flag)
    assert "would be created" in again.stdout


def test_manifests(control_plane: ControlPlane, export: Exported) -> None:
    """YAML and JSON are the same List of volumes; messages for people go to the standard error."""
    leave(export, "pvc-old-1", cluster="first")
    as_yaml = yaml.safe_load(recover(control_plane.kubeconfig, export.flag, "-o", "yaml").stdout)
    as_json = json.loads(recover(control_plane.kubeconfig, export.flag, "-o", "json").stdout)
    assert as_yaml == as_json
    assert (as_json["kind"], [item["metadata"]["name"] for item in as_json["items"]]) == ("List", ["pvc-old-1"])


def test_an_export_that_cannot_be_looked_at(control_plane: ControlPlane, export: Exported, tmp_path: Path) -> None:
    """Readable exports are shown, an unreadable one is named; the status says that the result is incomplete."""
    leave(export, "pvc-old-1", cluster="first")
    looked = recover(control_plane.kubeconfig, export.flag, f"--export=nas.test:/gone={tmp_path}/nowhere")
    assert looked.returncode == 1
    assert "skipped export nas.test:/gone: the export does not exist" in looked.stderr
    assert "would be created" in looked.stdout


def test_no_export(control_plane: ControlPlane) -> None:
    """Without an export, the command reports status 2, and not that there is nothing to recover."""
    looked = recover(control_plane.kubeconfig)
    assert (looked.returncode, looked.stdout) == (2, "")
    assert f"nothing to look at: no StorageClass has the provisioner {US}" in looked.stderr
    assert "nothing to recover" not in looked.stderr


def test_an_unknown_volume(control_plane: ControlPlane, export: Exported) -> None:
    """A volume name without a record on any export is reported, and fails."""
    looked = recover(control_plane.kubeconfig, export.flag, "--volume=pvc-typo")
    assert looked.returncode == 1
    assert "no export has a record of: pvc-typo" in looked.stderr


def test_an_api_server_that_refuses(control_plane: ControlPlane, export: Exported, restricted_user: TokenUser) -> None:
    """Without the right to read the cluster there is one line and status 1, in a dry run too."""
    refused = recover(control_plane.kubeconfig_for(restricted_user), export.flag)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "forbidden" in refused.stderr
    assert refused.stderr.count("\n") == 1

"""Odd names and labels from tenants, admins and servers: the daemon survives them and serves everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.cluster import ControlPlane
from tests.support.daemon import Daemons
from tests.support.exported import Exported
from tests.support.storage import ServedStorage, Storage

LATIN_1 = b"caf\xe9"


@pytest.mark.timeout(180)
def test_a_name_that_is_not_unicode(
    storage: Storage, daemon: Daemons, tmp_path: Path, control_plane: ControlPlane
) -> None:
    """A directory whose name is not UTF-8 is an orphan in the log and in the command's output, and claims bind."""
    (tmp_path / "export").mkdir()
    export = Exported.new(tmp_path / "export")
    os.makedirs(os.path.join(os.fsencode(export.root), LATIN_1, b"menu"))
    environment = {"NFS_SERVER": export.server, "NFS_PATH": export.path}
    running = daemon("--no-leader-election", export.flag, environment=environment)
    line = storage.eventually(lambda: next(iter(running.logged("orphans")), None), "the log reports it")
    assert line["unknown"] == ["caf\\xe9"]
    storage.claim(storage.storage_class(running.provisioner_name))
    storage.bound()
    assert running.returncode is None
    assert "caf\\xe9" in orphans(control_plane, running.provisioner_name, export.flag)
    found = json.loads(orphans(control_plane, running.provisioner_name, export.flag, "--output=json"))
    assert [each["kind"] for each in found] == ["unknown"]


def orphans(control_plane: ControlPlane, provisioner: str, *flags: str) -> str:
    """Return what the command prints where the locale has ASCII only."""
    command = [sys.executable, "-m", "provisioner", "orphans", *flags]
    command += [f"--kubeconfig={control_plane.kubeconfig}", f"--provisioner-name={provisioner}"]
    environment = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout


@pytest.mark.timeout(180)
def test_a_pattern_that_reads_labels(served: ServedStorage) -> None:
    """A claim with labels and a large annotation gets the directory that its labels name; without labels, an event."""
    name = served.own_class({"pathPattern": "${.PVC.labels.team}/${.PVC.name}"})
    junk = {"x.example/junk": "y" * 100_000}
    served.claim(name, "data", metadata={"labels": {"team": served.namespace}, "annotations": junk})
    assert served.bound()["spec"]["nfs"]["path"] == f"{served.export.path}/{served.namespace}/data"
    served.claim(name, "other")
    assert "team" in served.refusal("other")

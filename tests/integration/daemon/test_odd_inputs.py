"""What tenants, admins and servers may write, on a real daemon: it ends no process, and keeps nobody else waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.cluster import ControlPlane
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported
from tests.support.storage import Storage

LATIN_1 = b"caf\xe9"


def exported(directory: Path) -> Exported:
    directory.mkdir()
    return Exported.new(directory)


def serving(daemon: Daemons, export: Exported) -> Daemon:
    environment = {"NFS_SERVER": export.server, "NFS_PATH": export.path}
    return daemon("--no-leader-election", export.flag, environment=environment)


@pytest.mark.timeout(180)
def test_a_name_that_is_not_unicode(
    storage: Storage, daemon: Daemons, tmp_path: Path, control_plane: ControlPlane
) -> None:
    """A directory whose name is no UTF-8 is an orphan in the log and in the command's output, and all goes on."""
    export = exported(tmp_path / "export")
    os.makedirs(os.path.join(os.fsencode(export.root), LATIN_1, b"menu"))
    running = serving(daemon, export)
    line = storage.eventually(lambda: next(iter(running.logged("orphans")), None), "the log tells of it")
    assert line["unknown"] == ["caf\\xe9"]
    storage.claim(storage.storage_class(running.provisioner_name))
    storage.bound()
    assert running.returncode is None
    for locale in ("C.UTF-8", "POSIX"):
        table = orphans(control_plane, running.provisioner_name, export.flag, locale=locale)
        assert "caf\\xe9" in table
        found = json.loads(
            orphans(control_plane, running.provisioner_name, export.flag, "--output=json", locale=locale)
        )
        assert [each["kind"] for each in found] == ["unknown"]


def orphans(control_plane: ControlPlane, provisioner: str, *flags: str, locale: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "provisioner", "orphans", *flags]
    command += [f"--kubeconfig={control_plane.kubeconfig}", f"--provisioner-name={provisioner}"]
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=True)
    return done.stdout


@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["nas..example.com", "x" * 64 + ".example.com", "*", "256.1.1.1", "a" * 2000])
def test_a_server_that_cannot_be(storage: Storage, daemon: Daemons, tmp_path: Path, server: str) -> None:
    """A class whose server is no possible name is that class's own trouble: other classes' claims are bound."""
    running = serving(daemon, exported(tmp_path / "export"))
    bad = storage.storage_class(running.provisioner_name, {"server": server, "share": "/x"})
    storage.claim(bad, "waits")
    storage.event("ProvisioningFailed", "waits")
    storage.claim(storage.storage_class(running.provisioner_name))
    storage.bound()
    assert running.returncode is None


@pytest.mark.timeout(180)
def test_a_pattern_that_reads_labels(storage: Storage, daemon: Daemons, tmp_path: Path) -> None:
    """A claim gets the directory that its labels name, whatever else it carries; one without them is told why not."""
    export = exported(tmp_path / "export")
    running = serving(daemon, export)
    name = storage.storage_class(running.provisioner_name, {"pathPattern": "${.PVC.labels.team}/${.PVC.name}"})
    junk = {"x.example/junk": "y" * 100_000}
    storage.claim(name, "data", metadata={"name": "data", "labels": {"team": "red"}, "annotations": junk})
    volume = storage.bound()
    assert volume["spec"]["nfs"]["path"] == f"{export.path}/red/data"
    storage.claim(name, "other")
    assert "team" in storage.event("ProvisioningFailed", "other")["message"]

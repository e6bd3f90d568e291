"""`nfs-provisioner volumes` on a real cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster import ControlPlane, TokenUser
from testbed.processes import free_port
from tests.integration.conftest import Service
from tests.support.storage import ServedStorage

pytestmark = pytest.mark.timeout(120)


def volumes(kubeconfig: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "provisioner", "volumes", f"--kubeconfig={kubeconfig}", *flags]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def listed(control_plane: ControlPlane, served: ServedStorage, *flags: str) -> list[dict[str, Any]]:
    """Return what the command lists as JSON, of the test's namespace."""
    flags = (f"--provisioner-name={served.provisioner}", f"--namespace={served.namespace}", "-o", "json", *flags)
    done = volumes(control_plane.kubeconfig, *flags)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_volumes_as_they_are(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Each volume is listed with its claim, its directory on its export, and its rule for deletion."""
    made = served.volume({"onDelete": "delete", "pathPattern": "a/${.PVC.name}-${.PV.name}"}, "one")
    kept = served.volume(service.second.parameters, "two", reclaimPolicy="Retain")
    first, second = listed(control_plane, served)
    name = made["metadata"]["name"]
    assert first == {
        "volume": name,
        "namespace": served.namespace,
        "claim": "one",
        "storage_class": made["spec"]["storageClassName"],
        "phase": "Bound",
        "capacity": "1Mi",
        "export": service.export.location,
        "directory": f"a/one-{name}",
        "on_delete": "delete",
        "created": made["metadata"]["creationTimestamp"],
    }
    assert (second["claim"], second["export"], second["on_delete"]) == ("two", service.second.location, "retain")
    of_class = listed(control_plane, served, f"--class={kept['spec']['storageClassName']}")
    assert [each["claim"] for each in of_class] == ["two"]


def test_the_table(control_plane: ControlPlane, served: ServedStorage) -> None:
    """Without a terminal, each volume is one line of any length."""
    served.volume({"onDelete": "retain"}, "c" * 200)
    flags = (f"--provisioner-name={served.provisioner}", f"--namespace={served.namespace}")
    heading, line = volumes(control_plane.kubeconfig, *flags).stdout.splitlines()
    assert heading.split()[:2] == ["CLAIM", "CLASS"]
    assert line.startswith(f"{served.namespace}/{'c' * 200}  ")
    assert "  retain  " in line


def test_none(control_plane: ControlPlane, served: ServedStorage) -> None:
    """Without a volume, the output is empty or an empty list, and the standard error has the reason."""
    class_name = served.own_class()
    assert listed(control_plane, served) == []
    name = f"--provisioner-name={served.provisioner}"
    empty = volumes(control_plane.kubeconfig, name, f"--class={class_name}")
    assert empty.returncode == 0
    served.claim(class_name)
    served.bound()
    done = volumes(control_plane.kubeconfig, name, "-n", "nothere", f"--class={class_name}")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.search(rf"no volumes of StorageClass {class_name} in namespace nothere \(\d+ in others\)\n", done.stderr)


def test_a_name_that_nothing_has(control_plane: ControlPlane, served: ServedStorage) -> None:
    """Without a volume or a class of that name, the command reports that there was nothing to look at."""
    served.own_class()
    for flags, output in (((), ""), (("-o", "json"), "[]\n")):
        done = volumes(control_plane.kubeconfig, "--provisioner-name=test.example/nobody", *flags)
        assert (done.returncode, done.stdout) == (2, output)
        assert "no volumes of test.example/nobody: no StorageClass has the provisioner" in done.stderr
        assert f"{served.provisioner} (" in done.stderr


def test_an_api_server_that_does_not_tell(control_plane: ControlPlane, restricted_user: TokenUser) -> None:
    """A refused list ends with status 1 and one line."""
    done = volumes(control_plane.kubeconfig_for(restricted_user))
    assert (done.returncode, done.stdout) == (1, "")
    assert "forbidden" in done.stderr
    assert done.stderr.count("\n") == 1


def test_unusable_settings() -> None:
    """Unusable settings end with status 2 and one line."""
    done = volumes(Path(f"/no-such-kubeconfig-{free_port()}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1

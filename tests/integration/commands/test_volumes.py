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
from tests.support.written_answers import WrittenAnswers

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
        "used_bytes": None,
        "limit_bytes": None,
        "limit_reason": "",
        "limit_why": "",
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


def test_usage(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """USED and LIMIT are what the agent says, also why there is no limit; an export that is gone only costs these."""
    agent = WrittenAnswers(service.export.root)
    full, busy = served.volume({"quota": "preferred"}, "full"), served.volume({"quota": "preferred"}, "busy")
    agent.fill(full, 100, limit_bytes=1 << 20)
    agent.fill(busy, 50, limit_bytes=0, whole=False, reason="busy", why="close the files")
    name = f"--provisioner-name={served.provisioner}"
    flags = (name, f"--namespace={served.namespace}")
    rows = {row["claim"]: row for row in listed(control_plane, served, service.export.flag)}
    assert (rows["full"]["used_bytes"], rows["full"]["limit_bytes"]) == (1 << 20, 1 << 20)
    assert (rows["busy"]["limit_reason"], rows["busy"]["limit_why"]) == ("busy", "close the files")
    heading, first, second = volumes(control_plane.kubeconfig, *flags, service.export.flag).stdout.splitlines()
    assert heading.split()[3:6] == ["CAPACITY", "USED", "LIMIT"]
    assert first.split()[3:7] == ["1Mi", "-", "-", "(busy)"]
    assert second.split()[3:6] == ["1Mi", "1Mi", "1Mi"]
    gone = volumes(control_plane.kubeconfig, *flags, f"--export={service.export.location}=/no-such-directory")
    assert gone.returncode == 0
    assert len(gone.stdout.splitlines()) == 3
    assert f"no usage from export {service.export.location}: " in gone.stderr


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

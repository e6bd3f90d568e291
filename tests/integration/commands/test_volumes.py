"""`nfs-provisioner volumes` on a real cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from provisioner import __version__
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
        "reclaim_policy": "Delete",
        "access_modes": ["ReadWriteMany"],
        "claim_uid": made["spec"]["claimRef"]["uid"],
    }
    assert (second["claim"], second["export"], second["on_delete"]) == ("two", service.second.location, "retain")
    of_class = listed(control_plane, served, f"--class={kept['spec']['storageClassName']}")
    assert [each["claim"] for each in of_class] == ["two"]


def test_the_table(control_plane: ControlPlane, served: ServedStorage) -> None:
    """Without a terminal, each volume is one line of any length."""
    served.volume({"onDelete": "retain"}, "c" * 200)
    flags = (f"--provisioner-name={served.provisioner}", f"--namespace={served.namespace}")
    (volume,) = listed(control_plane, served)
    heading, line = volumes(control_plane.kubeconfig, *flags).stdout.splitlines()
    assert heading.split() == ["NAMESPACE", "CLAIM", "VOLUME", "CLASS", "CAPACITY", "PHASE", "AGE"]
    assert line.split()[:3] == [served.namespace, "c" * 200, volume["volume"]]
    heading, line = volumes(control_plane.kubeconfig, *flags, "-o", "wide").stdout.splitlines()
    assert "EXPORT" in heading.split()
    assert "   retain   " in line
    named = volumes(control_plane.kubeconfig, *flags, "-o", "name", "--no-headers")
    assert named.stdout == f"persistentvolume/{volume['volume']}\n"


def test_choosing(control_plane: ControlPlane, served: ServedStorage) -> None:
    """Labels of the claim, a pod and a field choose and sort volumes; the user's kubeconfig and a context are used."""
    class_name = served.own_class()
    for name, size in (("small", "2Mi"), ("large", "10Mi")):
        served.claim(class_name, name, size=size, metadata={"labels": {"app": name}})
        served.bound(name)
    pod = {
        "metadata": {"name": "reader"},
        "spec": {
            "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "large"}}],
        },
    }
    served.api.post(f"/api/v1/namespaces/{served.namespace}/pods", pod)

    def claims(*flags: str) -> list[str]:
        return [each["claim"] for each in listed(control_plane, served, *flags)]

    assert claims("--sort-by=capacity") == ["small", "large"]
    assert claims("-l", "app=small") == ["small"]
    assert claims("-l", "app!=small") == ["large"]
    assert claims("--pod=reader") == claims(f"--pod={served.namespace}/reader") == ["large"]
    absent = volumes(control_plane.kubeconfig, "--pod=nothere")
    assert (absent.returncode, absent.stderr.count("\n")) == (2, 1)
    wrong = volumes(control_plane.kubeconfig, "--context=nothere")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "nothere" in wrong.stderr


def test_watch(control_plane: ControlPlane, served: ServedStorage) -> None:
    """With `--watch`, a volume that is created or deleted appears below the list."""
    class_name = served.own_class({"onDelete": "delete"})
    flags = (f"--provisioner-name={served.provisioner}", f"--namespace={served.namespace}", f"--class={class_name}")
    command = [sys.executable, "-m", "provisioner", "volumes", f"--kubeconfig={control_plane.kubeconfig}", *flags]
    with subprocess.Popen([*command, "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert "looked at" in watching.stderr.readline()
        assert "no volumes" in watching.stderr.readline()
        served.claim(class_name, "seen")
        volume = served.bound("seen")
        assert watching.stdout.readline().split()[:2] == ["NAMESPACE", "CLAIM"]
        assert volume["metadata"]["name"] in watching.stdout.readline()
        served.released(volume)
        line = ""
        while "Deleted" not in line:
            line = watching.stdout.readline()
            assert line
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130


def test_pending_claims(control_plane: ControlPlane, served: ServedStorage) -> None:
    """`claims` lists what is Pending, with the last warning, or with what the rules say, and nothing that is Bound."""
    served.volume(name="bound")
    served.claim(served.own_class({"onDelet": "delete"}), "odd", metadata={"labels": {"app": "x"}})
    served.claim(served.own_class(volumeBindingMode="WaitForFirstConsumer"), "late")
    served.event("ProvisioningFailed", "odd")
    command = [sys.executable, "-m", "provisioner", "claims", f"--kubeconfig={control_plane.kubeconfig}"]
    command += [f"--provisioner-name={served.provisioner}", f"--namespace={served.namespace}"]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}

    def claims(*flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *flags], capture_output=True, text=True, timeout=60, env=environment, check=False
        )

    late, odd = json.loads(claims("-o", "json").stdout)
    assert (late["claim"], odd["claim"]) == ("late", "odd")
    assert late["why"].startswith("it waits for its first pod")
    assert odd["why"].startswith("ProvisioningFailed: ")
    assert "onDelet" in odd["why"]
    assert claims("-l", "app=x", "-o", "name").stdout == "persistentvolumeclaim/odd\n"
    heading, *lines = claims().stdout.splitlines()
    assert heading.split() == ["NAMESPACE", "CLAIM", "CLASS", "REQUESTED", "AGE", "WHY"]
    assert len(lines) == 2


def test_the_user_s_kubeconfig(control_plane: ControlPlane, served: ServedStorage, tmp_path: Path) -> None:
    """Outside a pod, a command uses ~/.kube/config as kubectl does; `version` knows the daemon from its Lease."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").symlink_to(control_plane.kubeconfig)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    name = f"--provisioner-name={served.provisioner}"
    command = [sys.executable, "-m", "provisioner", "version", name, "--lease-namespace=default", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["client"] == __version__
    assert found["contract"] == 1
    assert (found["daemon"], bool(found["why_unknown"])) in ((__version__, False), (None, True))


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
    assert heading.split()[4:7] == ["CAPACITY", "USED", "LIMIT"]
    assert first.split()[4:8] == ["1Mi", "-", "-", "(busy)"]
    assert second.split()[4:7] == ["1Mi", "1Mi", "1Mi"]
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

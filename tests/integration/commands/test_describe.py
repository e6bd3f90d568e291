"""`nfs-provisioner describe` on a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from testbed.cluster import ControlPlane
from tests.integration.conftest import Service
from tests.support.storage import ServedStorage

pytestmark = pytest.mark.timeout(180)


def describe(
    control_plane: ControlPlane, served: ServedStorage, *words: str, kubeconfig: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    command = [sys.executable, "-m", "provisioner", "describe", *words, f"--provisioner-name={served.provisioner}"]
    command += [f"--kubeconfig={kubeconfig or control_plane.kubeconfig}", served.export.flag]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_one_page(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Claim, volume and directory lead to the same page: with the record, the directory, pods, events and archives."""
    archived = served.volume({"onDelete": "archive"}, "data")
    served.released(archived)
    volume = served.volume({"onDelete": "delete", "pathPattern": "of-${.PVC.namespace}/${.PVC.name}"}, "data")
    (served.directory(volume) / "file").write_text("x")
    name = volume["metadata"]["name"]
    pod = {
        "metadata": {"name": "reader"},
        "spec": {
            "containers": [{"name": "c", "image": "none"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    served.api.post(f"/api/v1/namespaces/{served.namespace}/pods", pod)
    served.event("ProvisioningSucceeded")
    path = f"of-{served.namespace}/data"
    pages = []
    for words in (
        (f"{served.namespace}/data",),
        ("data", "-n", served.namespace),
        (f"persistentvolume/{name}",),
        (path,),
        (f"{served.export.location}/{path}",),
    ):
        done = describe(control_plane, served, *words, "-o", "json")
        assert done.returncode in (0, 1), done.stderr  # 1: another class of the session is unusable
        pages.append(json.loads(done.stdout))
    page = pages[0]
    assert page["claim"]["uid"] == volume["spec"]["claimRef"]["uid"]
    assert page["volume"]["volume"] == page["record"]["volume"] == name
    assert page["record"]["agrees"] is True
    assert page["directory"] == {"export": served.export.location, "directory": path, "state": "data"}
    assert [each["name"] for each in page["pods"]] == ["reader"]
    assert "ProvisioningSucceeded" in {each["reason"] for each in page["events"]}
    assert [each["volume"] for each in page["archives"]] == [archived["metadata"]["name"]]
    for other in pages[1:]:
        assert {**other, "events": None} == {**page, "events": None}

    text = describe(control_plane, served, f"{served.namespace}/data").stdout
    for said in ("Claim:\n", f" {name}\n", "Pods:\n", "reader", "    agrees:", "Events:\n"):
        assert said in text


def test_nothing_of_that_name(control_plane: ControlPlane, served: ServedStorage) -> None:
    """What does not exist is one error line, with the forms that the argument can have."""
    served.own_class()
    done = describe(control_plane, served, f"{served.namespace}/nothere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "name a claim as NAMESPACE/NAME" in done.stderr
    assert describe(control_plane, served, "pvc/x").returncode == 2

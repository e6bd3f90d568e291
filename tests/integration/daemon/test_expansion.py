"""Expansion on a real cluster: kubernetes-contract.md, "Expansion of an in-tree NFS volume"."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from testbed.api import ApiError, Object
from tests.support.daemon import Daemons
from tests.support.exported import Exported
from tests.support.storage import VOLUMES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(120)

SINCE = "2026-01-01T00:00:00Z"


def request(served: ServedStorage, size: str, name: str = "data") -> None:
    """Request another size, as a user does."""
    served.api.patch(f"{served.claims}/{name}", {"spec": {"resources": {"requests": {"storage": size}}}})


def resizing(status: Object) -> list[tuple[str, str]]:
    """Return type and status of the resize conditions; the cluster sets other conditions too."""
    found = ((condition["type"], condition["status"]) for condition in status.get("conditions", []))
    return [condition for condition in found if "Resiz" in condition[0]]


def wait_size(served: ServedStorage, size: str, name: str = "data") -> Object:
    """Wait until the claim has that size and no trace of the resize is left; return the claim."""

    def done() -> Object | None:
        claim = served.get_claim(name)
        status = claim["status"]
        clean = not resizing(status) and not status.get("allocatedResourceStatuses")
        return claim if clean and status["capacity"]["storage"] == size else None

    return served.eventually(done, f"the claim {name} has {size}")


def test_an_expansion_follows_the_contract(served: ServedStorage) -> None:
    """An expansion grows volume and claim, with events Resizing and VolumeResizeSuccessful, and leaves no condition."""
    volume = served.volume(allowVolumeExpansion=True)
    began = served.get_claim()["metadata"]["resourceVersion"]
    seen: list[Object] = []

    def watch() -> None:
        query = {"fieldSelector": "metadata.name=data", "resourceVersion": began}
        for event in served.api.watch(served.claims, timeout_s=20, **query):
            seen.append(event["object"]["status"])
            if event["object"]["status"]["capacity"]["storage"] == "3Mi":
                return

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    request(served, "3Mi")
    claim = wait_size(served, "3Mi")
    watching.join(timeout=25)
    marked = [status for status in seen if status.get("allocatedResourceStatuses")]
    assert marked
    assert marked[0]["allocatedResourceStatuses"] == {"storage": "ControllerResizeInProgress"}
    assert marked[0]["allocatedResources"] == {"storage": "3Mi"}
    assert resizing(marked[0]) == [("Resizing", "True")]
    assert served.get_volume(volume["metadata"]["name"])["spec"]["capacity"] == {"storage": "3Mi"}
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Mi"
    assert served.event("Resizing")["type"] == "Normal"
    assert served.event("VolumeResizeSuccessful")["type"] == "Normal"


def test_several_expansions_in_a_row(served: ServedStorage) -> None:
    """A claim expanded several times, also in another unit, ends with the last size, and so does its volume."""
    volume = served.volume(allowVolumeExpansion=True)
    for size in ("2Mi", "3M", "4Mi", "1Gi"):
        request(served, size)
    wait_size(served, "1Gi")
    assert served.get_volume(volume["metadata"]["name"])["spec"]["capacity"] == {"storage": "1Gi"}


def test_an_expansion_after_the_class_is_gone(served: ServedStorage) -> None:
    """An expansion that the API server allowed is completed although the class is gone."""
    class_name = served.own_class(allowVolumeExpansion=True)
    served.claim(class_name)
    served.bound()
    served.daemon.pause()
    request(served, "2Mi")
    served.delete_if_there(f"/apis/storage.k8s.io/v1/storageclasses/{class_name}")
    served.daemon.resume()
    wait_size(served, "2Mi")


@pytest.mark.parametrize("step", ["marked", "grown"])
def test_an_expansion_cut_off_is_finished(served: ServedStorage, step: str) -> None:
    """After a crash behind the claim's mark, or behind the volume's growth, the expansion is completed."""
    volume = served.volume(allowVolumeExpansion=True)
    served.daemon.pause()
    request(served, "2Mi")
    mark = {
        "conditions": [{"type": "Resizing", "status": "True"}],
        "allocatedResources": {"storage": "2Mi"},
        "allocatedResourceStatuses": {"storage": "ControllerResizeInProgress"},
    }
    served.api.patch(f"{served.claims}/data/status", {"status": mark})
    if step == "grown":
        served.api.patch(f"{VOLUMES}/{volume['metadata']['name']}", {"spec": {"capacity": {"storage": "2Mi"}}})
    served.daemon.resume()
    wait_size(served, "2Mi")
    assert served.get_volume(volume["metadata"]["name"])["spec"]["capacity"] == {"storage": "2Mi"}


def test_a_request_that_is_lowered_again(served: ServedStorage) -> None:
    """A user can lower a request that is not granted yet, and the claim gets the last size."""
    served.volume(allowVolumeExpansion=True)
    served.daemon.pause()
    request(served, "1Gi")
    request(served, "2Mi")
    served.daemon.resume()
    wait_size(served, "2Mi")


def test_conditions_of_others_stay(served: ServedStorage) -> None:
    """A condition that another controller set on the claim survives the expansion."""
    served.volume(allowVolumeExpansion=True)
    other = {
        "type": "example.com/Watched",
        "status": "True",
        "reason": "Test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    served.api.patch(f"{served.claims}/data/status", {"status": {"conditions": [other]}})
    request(served, "2Mi")
    served.eventually(lambda: served.get_claim()["status"]["capacity"]["storage"] == "2Mi", "the claim has grown")
    served.event("VolumeResizeSuccessful")
    conditions = {condition["type"]: condition for condition in served.get_claim()["status"]["conditions"]}
    assert {key: conditions[other["type"]].get(key) for key in other} == other


def test_a_class_without_expansion(served: ServedStorage) -> None:
    """Without allowVolumeExpansion the API server refuses the request, and the volume keeps its size."""
    volume = served.volume()
    with pytest.raises(ApiError, match="dynamically provisioned pvc can be resized"):
        request(served, "2Mi")
    assert served.get_volume(volume["metadata"]["name"])["spec"]["capacity"] == {"storage": "1Mi"}


def test_the_record_grows_with_the_volume(served: ServedStorage) -> None:
    """The ledger records the new size, so that `recover` recreates the volume with it."""
    volume = served.volume(allowVolumeExpansion=True)
    request(served, "2Mi")
    name = volume["metadata"]["name"]
    served.eventually(lambda: served.export.records[name]["size"] == "2Mi", "the record says 2Mi")


def test_a_record_that_is_behind_its_volume_grows(storage: Storage, daemon: Daemons, export_directory: Path) -> None:
    """After a crash between the volume's growth and the record's, the next daemon updates the record."""
    export = Exported.new(export_directory)
    running = daemon("--no-leader-election", export.flag)
    storage.claim(storage.storage_class(running.provisioner_name, export.parameters, allowVolumeExpansion=True))
    name = storage.bound()["metadata"]["name"]
    running.kill()
    storage.api.patch(f"{VOLUMES}/{name}", {"spec": {"capacity": {"storage": "2Mi"}}})
    assert export.records[name]["size"] == "1Mi"
    running.start()
    storage.eventually(lambda: export.records[name]["size"] == "2Mi", "the record says 2Mi")


def test_volumes_of_others_are_not_expanded(served: ServedStorage) -> None:
    """The daemon does not expand a claim that is bound to a volume of another maker."""
    class_name = served.own_class(allowVolumeExpansion=True)
    name = f"static-{served.namespace}"
    served.make_volume(
        {
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": "1Mi"},
                "storageClassName": class_name,
                "nfs": {"server": "elsewhere.test", "path": "/elsewhere"},
            },
        }
    )
    served.claim(class_name, volumeName=name)
    served.bound()
    request(served, "2Mi")
    served.settled()
    assert served.get_volume(name)["spec"]["capacity"] == {"storage": "1Mi"}
    assert served.events(reason="Resizing") == []


def test_an_expansion_beyond_the_classs_limits(served: ServedStorage) -> None:
    """An expansion beyond overcommit changes nothing and gets an event with the limit; a smaller one is granted."""
    volume = served.volume({"overcommit": "1"}, allowVolumeExpansion=True)
    request(served, "1Pi")
    (event, *_) = served.eventually(lambda: served.events(reason="VolumeResizeFailed"), "an event refuses it")
    assert "is refused for now: export" in event["message"]
    assert "overcommit" in event["message"]
    claim = served.get_claim()
    assert claim["status"]["capacity"]["storage"] == "1Mi"
    assert "allocatedResources" not in claim["status"]
    assert served.get_volume(volume["metadata"]["name"])["spec"]["capacity"]["storage"] == "1Mi"
    request(served, "2Mi")
    wait_size(served, "2Mi")

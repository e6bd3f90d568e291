"""The claims, classes and volumes of the measurements, and copies of what the API server has accepted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

from provisioner.core import names
from testbed.api import Object

PROVISIONER = "bench.example/nfs"
SERVER = "nas.bench.example"
NAMESPACES = "/api/v1/namespaces"
CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
SIZE = "1Mi"


def share(number: int) -> str:
    """Return the path of an export, as volumes name it."""
    return f"/exports/bench-{number}"


def class_name(number: int) -> str:
    """Return the name of the class of an export."""
    return f"bench-{number}"


def storage_class(number: int = 0) -> Object:
    """Return the class of an export: policy Delete and onDelete delete."""
    return {
        "metadata": {"name": class_name(number)},
        "provisioner": PROVISIONER,
        "parameters": {"onDelete": "delete", "server": SERVER, "share": share(number)},
    }


def claims_path(namespace: str) -> str:
    """Return the path of a namespace's claims."""
    return f"{NAMESPACES}/{namespace}/persistentvolumeclaims"


def claim_name(number: int) -> str:
    """Return the name of a claim: all have one length, so that copies have the size of their template."""
    return f"claim-{number:07}"


def claim(number: int, *, classes: int = 1, handed_over: bool = True) -> Object:
    """Return a claim; with both annotations of the volume binder if it is handed over to the program."""
    annotations = dict.fromkeys(names.PROVISIONER_ANNOTATIONS, PROVISIONER) if handed_over else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim_name(number), "annotations": annotations},
        "spec": {
            "storageClassName": class_name(number % classes),
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": SIZE}},
        },
    }


def copies(template: Object, count: int, *, step: int = 1) -> Iterator[Object]:
    """Yield copies of a pending claim, each with a name and a uid of its own: every `step`-th after the template."""
    name, uid = template["metadata"]["name"], template["metadata"]["uid"]
    text = json.dumps(template)
    first = int(name.rpartition("-")[2])
    for number in range(first + step, first + step * (count + 1), step):
        yield json.loads(text.replace(name, claim_name(number)).replace(uid, str(uuid.uuid4())))


def path(item: Object) -> str:
    """Return the path of a claim or volume at the API server."""
    name = item["metadata"]["name"]
    if item["kind"] == "PersistentVolume":
        return f"{VOLUMES}/{name}"
    return f"{claims_path(item['metadata']['namespace'])}/{name}"


def key(item: Object) -> str:
    """Return the key of a claim or volume in etcd."""
    name = item["metadata"]["name"]
    if item["kind"] == "PersistentVolume":
        return f"/registry/persistentvolumes/{name}"
    return f"/registry/persistentvolumeclaims/{item['metadata']['namespace']}/{name}"


def in_phase(volume: Object, phase: str) -> Object:
    """Return a volume in another phase, as the volume binder leaves it."""
    return volume | {"apiVersion": "v1", "kind": "PersistentVolume", "status": {"phase": phase}}


def bound(claim: Object) -> Object:
    """Return a claim that is Bound to its volume, as the volume binder leaves it."""
    spec = claim["spec"] | {"volumeName": f"pvc-{claim['metadata']['uid']}"}
    status = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": SIZE}}
    return claim | {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec, "status": status}


def volume(name: str, *, namespace: str) -> Object:
    """Return a volume without a finalizer, so that a DELETE removes it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {names.PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": SIZE},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": name,
                "uid": name,
            },
            "nfs": {"server": SERVER, "path": f"{share(0)}/{name}"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": class_name(0),
            "volumeMode": "Filesystem",
        },
    }

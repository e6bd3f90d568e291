"""The claims and volumes of the measurements, as the cluster's controllers leave them."""

from __future__ import annotations

from provisioner.core import names
from testbed.api import Object

PROVISIONER = "bench.example/nfs"
CLASS = "bench"
SERVER = "nas.bench.example"
SHARE = "/exports/bench"
NAMESPACES = "/api/v1/namespaces"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
SIZE = "1Gi"


def storage_class() -> Object:
    """Return the class of all claims: policy Delete and onDelete delete."""
    return {"metadata": {"name": CLASS}, "provisioner": PROVISIONER, "parameters": {"onDelete": "delete"}}


def claims_path(namespace: str) -> str:
    """Return the path of a namespace's claims."""
    return f"{NAMESPACES}/{namespace}/persistentvolumeclaims"


def claim(name: str) -> Object:
    """Return a claim with both annotations of the volume binder."""
    spec = {
        "storageClassName": CLASS,
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": SIZE}},
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": dict.fromkeys(names.PROVISIONER_ANNOTATIONS, PROVISIONER)},
        "spec": spec,
    }


def volume(name: str, *, namespace: str, claim: str, claim_uid: str, export_id: str, finalizer: bool) -> Object:
    """Return a volume like the daemon's; without its finalizer a DELETE removes it."""
    directory = f"{namespace}-{claim}-{name}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {
                names.PROVISIONED_BY: PROVISIONER,
                names.ON_DELETE: "delete",
                names.DIRECTORY: directory,
                names.EXPORT_ID: export_id,
            },
            "finalizers": [names.FINALIZER] if finalizer else [],
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": SIZE},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": claim,
                "uid": claim_uid,
            },
            "nfs": {"server": SERVER, "path": f"{SHARE}/{directory}"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "volumeMode": "Filesystem",
        },
    }

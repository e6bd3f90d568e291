"""A stand-in for the nfs-subdir chart 4.0.18: its objects, and volumes as its image 4.0.2 creates and reclaims them.

It follows the chart's templates, provisioner.go at v4.0.2, and sig-storage-lib-external-provisioner v6, which saves and
deletes volumes for it. It has the same bugs: a missing annotation becomes an empty component, and a reclaim looks for a
volume's directory at the export's root by its last component.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testbed.api import Api, Object
from testbed.helm import Helm
from tests.support.storage import CLASSES, VOLUMES

CHART = "nfs-subdir-external-provisioner"
VARIABLE = re.compile(r"\${\.PVC\.((labels|annotations)\.(.*?)|.*?)}")

Values = dict[str, Any]


def full_name(release: str) -> str:
    """Return the name of the release's objects."""
    return release if CHART in release else f"{release}-{CHART}"


def objects(release: str, values: Values) -> list[Object]:
    """Return the chart's objects that matter to an upgrade: names, selectors, the class, its own mount."""
    full, server, path = full_name(release), values["nfs"]["server"], values["nfs"]["path"]
    labels = {"app": CHART, "release": release}
    metadata = {"name": full, "labels": labels}
    environment = {"PROVISIONER_NAME": f"cluster.local/{full}", "NFS_SERVER": server, "NFS_PATH": path}
    options = values["nfs"].get("mountOptions")
    source: Object = {"nfs": {"server": server, "path": path}}
    container = {
        "name": CHART,
        "image": f"registry.k8s.io/sig-storage/{CHART}:v4.0.2",
        "volumeMounts": [{"name": f"{CHART}-root", "mountPath": "/persistentvolumes"}],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }
    mounted = {"persistentVolumeClaim": {"claimName": f"pvc-{full}"}} if options else source
    volume = {"name": f"{CHART}-root"} | mounted
    pod = {"serviceAccountName": full, "containers": [container], "volumes": [volume]}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    made: list[Object] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
    ]
    made += _own_mount(full, labels, source | {"mountOptions": options}) if options else []
    given = values["storageClass"]
    return [*made, storage_class(full, labels, options, given)] if given.get("create", True) else made


def storage_class(full: str, labels: Object, options: list[str] | None, given: Values) -> Object:
    """Return the StorageClass for these `storageClass` values, with the chart's defaults."""
    archive = str(given.get("archiveOnDelete", True)).lower()
    others = {key: given[key] for key in ("pathPattern", "onDelete") if given.get(key)}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": given["name"], "labels": labels},
        "provisioner": f"cluster.local/{full}",
        "allowVolumeExpansion": True,
        "reclaimPolicy": given.get("reclaimPolicy", "Delete"),
        "volumeBindingMode": "Immediate",
        "parameters": {"archiveOnDelete": archive} | others,
    } | ({"mountOptions": options} if options else {})


def _own_mount(full: str, labels: Object, source: Object) -> list[Object]:
    """Return volume and claim by which its pod mounts the export with options."""
    common = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": "Filesystem"}
    chosen = {"selector": {"matchLabels": {CHART: full}}, "resources": {"requests": {"storage": "10Mi"}}}
    volume = common | {"capacity": {"storage": "10Mi"}, "persistentVolumeReclaimPolicy": "Retain"} | source
    named = {"labels": labels | {CHART: full}}
    return [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"pv-{full}"} | named, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": f"pvc-{full}", "labels": labels},
            "spec": common | chosen,
        },
    ]


def install(helm: Helm, release: str, namespace: str, values: Values, directory: Path) -> None:
    """Write a chart of its name to `directory` and install it with these values."""
    chart = directory / CHART
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "name": CHART, "version": "4.0.18"}))
    (chart / "templates" / "all.yaml").write_text(yaml.safe_dump_all(objects(release, values)))
    helm.run("install", release, chart, f"--namespace={namespace}", "--values=-", input=yaml.safe_dump(values))


def volume_name(claim: Object) -> str:
    """Return the name of a claim's volume."""
    return f"pvc-{claim['metadata']['uid']}"


def default_directory(claim: Object) -> str:
    """Return the directory of a claim's volume without a pattern."""
    return f"{claim['metadata']['namespace']}-{claim['metadata']['name']}-{volume_name(claim)}"


def make_directory(place: Path) -> None:
    """Create a volume's directory with mode 0777, unless it exists."""
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o777)


def reference_to(claim: Object) -> Object:
    """Return a volume's claimRef."""
    kept = ("namespace", "name", "uid", "resourceVersion")
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | {key: claim["metadata"][key] for key in kept}


def saved_volume(provisioner: str, name: str, reference: Object, **spec: Any) -> Object:
    """Return a PersistentVolume as the peer saves it: with the annotation `provisioned-by` and no other."""
    metadata = {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": provisioner}}
    return {"metadata": metadata, "spec": {"claimRef": reference} | spec}


@dataclass(frozen=True)
class NfsSubdir:
    """The peer's container: it provisions and reclaims when a test calls it, and does nothing by itself."""

    api: Api
    name: str
    server: str
    path: str
    root: Path
    """The directory where its export is mounted."""

    def provision(self, claim: Object) -> Object:
        """Create the volume of a claim, and return it as saved."""
        found = self.api.get(f"{CLASSES}/{claim['spec']['storageClassName']}")
        below = default_directory(claim)
        if "pathPattern" in found["parameters"]:
            below = _filled(found["parameters"]["pathPattern"], claim)
        make_directory(self.root / below)
        body = saved_volume(
            self.name,
            volume_name(claim),
            reference_to(claim),
            accessModes=claim["spec"]["accessModes"],
            capacity={"storage": claim["spec"]["resources"]["requests"]["storage"]},
            mountOptions=found.get("mountOptions"),
            nfs={"server": self.server, "path": posixpath.normpath(f"{self.path}/{below}")},
            persistentVolumeReclaimPolicy=found["reclaimPolicy"],
            storageClassName=found["metadata"]["name"],
        )
        return self.api.post(VOLUMES, body)

    def reclaim(self, volume: Object) -> None:
        """Reclaim a Released volume with policy Delete."""
        place = self.root / posixpath.basename(volume["spec"]["nfs"]["path"])
        parameters = self.api.get(f"{CLASSES}/{volume['spec']['storageClassName']}")["parameters"]
        rule = parameters.get("onDelete") or ("delete" if parameters["archiveOnDelete"] == "false" else "archive")
        if place.exists() and rule == "delete":
            shutil.rmtree(place)
        elif place.exists() and rule == "archive":
            place.rename(self.root / f"archived-{place.name}")
        self.api.delete(f"{VOLUMES}/{volume['metadata']['name']}")


def _filled(pattern: str, claim: Object) -> str:
    """Return a pattern with the claim's values."""

    def value_of(match: re.Match[str]) -> str:
        metadata: Object = claim["metadata"]
        value: str = metadata.get(match[2], {}).get(match[3], "") if match[2] else metadata.get(match[1], "")
        return value

    return VARIABLE.sub(value_of, pattern)

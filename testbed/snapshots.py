"""The stock snapshot-controller and its CRDs, for VolumeSnapshots on a control plane.

The controller is built once from snapshotbuild/go.mod into the cache, like the control plane. The CRDs come from a
module that the same go.mod pins.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from testbed import binaries
from testbed.api import ApiError
from testbed.binaries import Progress, Source, silent
from testbed.cluster import ControlPlane, answers
from testbed.processes import Server, free_port
from testbed.waiting import eventually

NAME = "snapshot-controller"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "snapshot.storage.k8s.io"
PLURALS = ("volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots")

SOURCE = Source(
    name=NAME,
    module=Path(__file__).parent / "snapshotbuild",
    packages={NAME: f"github.com/kubernetes-csi/external-snapshotter/v8/cmd/{NAME}"},
    release="github.com/kubernetes-csi/external-snapshotter/v8",
    stamp=lambda source: {"main.version": f"v{source.version}"},
    takes="9 minutes on two idle cores",
)


def install(progress: Progress = silent) -> Path:
    """Return the directory with the controller and `crds`; build it at the first use. Raises BinariesMissing."""
    directory = binaries.locate((NAME,), SOURCE, progress=progress)
    crds = directory / "crds"
    if not crds.is_dir():
        module = binaries.module_directory(SOURCE, "github.com/kubernetes-csi/external-snapshotter/client/v8", progress)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=directory) as unfinished:
            for plural in PLURALS:
                shutil.copy(module / "config" / "crd" / f"{GROUP}_{plural}.yaml", Path(unfinished) / f"{plural}.yaml")
            with binaries.locked(directory / ".lock", progress):
                if not crds.is_dir():
                    shutil.copytree(unfinished, f"{unfinished}/crds")
                    os.replace(f"{unfinished}/crds", crds)
    return directory


def missing() -> str:
    """Return why the snapshot-controller is missing, or ""."""
    present = binaries.present((NAME,), SOURCE) is not None
    return "" if present else f"{NAME} is not built yet: run `make test`, or `python -m testbed build` once"


def create_crds(cluster: ControlPlane) -> None:
    """Create the CRDs of VolumeSnapshots, and return when the API server serves them."""
    for plural in PLURALS:
        cluster.api.post_yaml(CRDS, (install() / "crds" / f"{plural}.yaml").read_bytes())
    eventually(lambda: all(_is_served(cluster, plural) for plural in PLURALS), "the API server serves the CRDs")


def delete_crds(cluster: ControlPlane) -> None:
    """Delete the CRDs of VolumeSnapshots with all their objects, and return when they are gone."""
    for plural in PLURALS:
        cluster.api.delete(f"{CRDS}/{plural}.{GROUP}")
    left = {f"{plural}.{GROUP}" for plural in PLURALS}
    eventually(
        lambda: left.isdisjoint(each["metadata"]["name"] for each in cluster.api.list(CRDS)),
        "the CRDs are gone",
        timeout_s=120,
    )


def _is_served(cluster: ControlPlane, plural: str) -> bool:
    try:
        cluster.api.list(f"/apis/{GROUP}/v1/{plural}")
    except ApiError:
        return False
    return True


class SnapshotController(Server):
    """The snapshot-controller of a control plane that has the CRDs; see Server for start, stop and the context."""

    def __init__(self, cluster: ControlPlane, *, progress: Progress = silent) -> None:
        port = free_port()
        command: list[str | Path] = [
            install(progress) / NAME,
            f"--kubeconfig={cluster.kubeconfig}",
            f"--http-endpoint=127.0.0.1:{port}",
            "--feature-gates=CSIVolumeGroupSnapshot=false",
            "-v=3",
        ]
        super().__init__(
            NAME,
            command,
            log=cluster.directory / f"{NAME}.log",
            ready=lambda: answers(f"http://127.0.0.1:{port}/metrics"),
        )

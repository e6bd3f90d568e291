"""The work of `volumes`: reads the PersistentVolumes of a provisioner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provisioner.commands.session import list_all
from provisioner.core.listing import VolumeRow, listed
from provisioner.core.objects import StorageClass, Volume
from provisioner.kube.cluster import open_cluster
from provisioner.settings import replica_identity


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeList:
    """The volumes of a provisioner, and what to say if there is none."""

    volumes: Sequence[VolumeRow]
    total: int
    """The number of all PersistentVolumes of the cluster."""
    classes: Mapping[str, int]
    """The number of StorageClasses per provisioner; only read if there is no volume."""


async def list_volumes(kubeconfig: str | None, provisioner: str) -> VolumeList:
    """Return all volumes that the provisioner created. Raises ClusterError, InvalidSettings."""
    async with open_cluster(kubeconfig, provisioner=provisioner, identity=replica_identity()) as cluster:
        volumes = await list_all(cluster, Volume)
        found = [listed(volume) for volume in volumes if volume.is_by(provisioner)]
        classes = [] if found else await list_all(cluster, StorageClass)
        return VolumeList(volumes=found, total=len(volumes), classes=Counter(each.provisioner for each in classes))

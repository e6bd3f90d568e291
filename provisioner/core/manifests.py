"""The PersistentVolumes that the provisioner creates, as the API server accepts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioner.core import names
from provisioner.core.locations import Location, RelPath
from provisioner.core.records import OnDelete, Quota


def volume(
    name: str,
    *,
    provisioner: str,
    export: Location,
    export_id: str,
    directory: RelPath,
    on_delete: OnDelete,
    capacity: str,
    access_modes: Sequence[str],
    mount_options: Sequence[str],
    class_name: str,
    reclaim_policy: str,
    claim_ref: Mapping[str, object],
    gid: int = 0,
    quota: Quota = "none",
) -> dict[str, object]:
    """Return the PersistentVolume of a directory for the claim in `claim_ref` (kubernetes-contract, Provisioning 4).

    It never has `bound-by-controller`: with it, deleting the claim would undo the binding and not release the volume.
    `gid` is the group that the directory has for itself; 0 if it has none. `quota` is the wish in the record.
    """
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {
                names.PROVISIONED_BY: provisioner,
                names.ON_DELETE: on_delete,
                names.DIRECTORY: "/".join(directory),
                names.EXPORT_ID: export_id,
                **({names.GID: str(gid)} if gid else {}),
                **({names.QUOTA: quota} if quota != "none" else {}),
            },
            "finalizers": [names.FINALIZER] if reclaim_policy == "Delete" else [],
        },
        "spec": {
            "accessModes": list(access_modes),
            "capacity": {"storage": capacity},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim_ref},
            "mountOptions": list(mount_options),
            "nfs": {"server": export.server, "path": export.below(directory)},
            "persistentVolumeReclaimPolicy": reclaim_policy,
            "storageClassName": class_name,
            "volumeMode": "Filesystem",
        },
    }

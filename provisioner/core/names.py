"""The names that we share with the cluster: annotations, finalizers, event reasons, labels of the protocol."""

# What the cluster writes and reads (kube-controller-manager, persistentvolume controller).
PROVISIONER_ANNOTATIONS = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
SELECTED_NODE_ANNOTATIONS = (
    "volume.kubernetes.io/selected-node",
    "volume.alpha.kubernetes.io/selected-node",
)
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"

# Our own keys on a PersistentVolume.
PREFIX = "nfs-provisioner/"
ON_DELETE = PREFIX + "on-delete"
DIRECTORY = PREFIX + "directory"
EXPORT_ID = PREFIX + "export-id"
MARKS = (ON_DELETE, DIRECTORY, EXPORT_ID)
"""Those that every volume of our making bears."""

# Our own key on a claim: the archive that it wants to have back.
RESTORE = PREFIX + "restore"

# What nfs-subdir's master, which was never released, reads from a claim. Here the class's mode, uid and gid count.
ACCESS_OF_NFS_SUBDIR = ("nfs.io/createMode", "nfs.io/createUID", "nfs.io/createGID")

# Our own key on the Lease: the version of the daemon that holds it.
VERSION = PREFIX + "version"

# A class that claims without a class get (Kubernetes, Storage Classes, "Default StorageClass").
DEFAULT_CLASS_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)

# The driver of the peer whose volumes we leave alone.
CSI_DRIVER_NFS = "nfs.csi.k8s.io"
CSI_PLACE = ("server", "share", "subdir")
"""The attributes of its volumes that say where they are; it does not tell the cases of their names apart."""

# Event reasons: those of sig-storage-lib-external-provisioner and of external-resizer, so that alerts go on working.
PROVISIONING = "Provisioning"
PROVISIONING_SUCCEEDED = "ProvisioningSucceeded"
PROVISIONING_FAILED = "ProvisioningFailed"
PROVISIONING_CLEANUP_FAILED = "ProvisioningCleanupFailed"
VOLUME_FAILED_DELETE = "VolumeFailedDelete"
DIRECTORY_MISSING = "VolumeDirectoryMissing"
MODE_REFUSED = "VolumeModeRefused"
VOLUME_REBOUND = "VolumeRebound"
DATA_KEPT = "VolumeDataKept"
RECORD_MISSING = "VolumeRecordMissing"
VOLUME_DISAGREES = "VolumeDisagrees"
RESIZING = "Resizing"
VOLUME_RESIZE_SUCCESSFUL = "VolumeResizeSuccessful"
VOLUME_RESIZE_FAILED = "VolumeResizeFailed"


def volume_name(claim_uid: str) -> str:
    """The name of the PersistentVolume for a claim: deterministic, so that a retry finds the first attempt."""
    return f"pvc-{claim_uid}"


def claim_uid(volume: str) -> str | None:
    """The claim's uid in a volume's name, or None where the name is not of our making."""
    return volume.removeprefix("pvc-") if volume.startswith("pvc-") else None

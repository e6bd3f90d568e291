"""Names that the provisioner shares with the cluster: annotations, finalizers, event reasons."""

# Annotations of kube-controller-manager (persistentvolume controller).
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

# The annotation by which the kubelet adds a group to every container of a pod (kubelet, volume manager).
GID = "pv.beta.kubernetes.io/gid"

# The provisioner's own annotations on a PersistentVolume.
PREFIX = "nfs-provisioner/"
ON_DELETE = PREFIX + "on-delete"
DIRECTORY = PREFIX + "directory"
EXPORT_ID = PREFIX + "export-id"
MARKS = (ON_DELETE, DIRECTORY, EXPORT_ID)
"""The annotations that every volume of this provisioner has."""
QUOTA = PREFIX + "quota"
"""The annotation of volumes whose class asks for a quota: a lost ledger is written again with this wish."""

# The annotation of a claim with the archive to restore.
RESTORE = PREFIX + "restore"

# Annotations of a claim that the unreleased master of nfs-subdir reads. Here mode, uid and gid of the class count.
ACCESS_OF_NFS_SUBDIR = ("nfs.io/createMode", "nfs.io/createUID", "nfs.io/createGID")

# The annotation of the Lease with the version of the daemon that holds it.
VERSION = PREFIX + "version"

# The annotations of a default class (Kubernetes, Storage Classes, "Default StorageClass").
DEFAULT_CLASS_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)

# The driver of csi-driver-nfs, whose volumes are left alone.
CSI_DRIVER_NFS = "nfs.csi.k8s.io"
CSI_PLACE = ("server", "share", "subdir")
"""The attributes of its volumes with their place. The driver treats their names as case-insensitive."""

# Event reasons: those of sig-storage-lib-external-provisioner and of external-resizer, as existing alerts use them.
PROVISIONING = "Provisioning"
PROVISIONING_SUCCEEDED = "ProvisioningSucceeded"
PROVISIONING_FAILED = "ProvisioningFailed"
PROVISIONING_CLEANUP_FAILED = "ProvisioningCleanupFailed"
VOLUME_FAILED_DELETE = "VolumeFailedDelete"
DIRECTORY_MISSING = "VolumeDirectoryMissing"
COPY_INCOMPLETE = "VolumeCopyIncomplete"
MODE_REFUSED = "VolumeModeRefused"
VOLUME_CLONED = "VolumeBeingCloned"
VOLUME_REBOUND = "VolumeRebound"
DATA_KEPT = "VolumeDataKept"
RECORD_MISSING = "VolumeRecordMissing"
VOLUME_DISAGREES = "VolumeDisagrees"
RESIZING = "Resizing"
VOLUME_RESIZE_SUCCESSFUL = "VolumeResizeSuccessful"
VOLUME_RESIZE_FAILED = "VolumeResizeFailed"
VOLUME_NEARLY_FULL = "VolumeNearlyFull"
VOLUME_FULL = "VolumeFull"
AUTO_GROW = "AutoGrow"
AUTO_GROW_FAILED = "AutoGrowFailed"

# VolumeSnapshots (external-snapshotter, pkg/utils/util.go).
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
CONTENT_FINALIZER = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
SNAPSHOT_BEING_DELETED = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"
DEFAULT_SNAPSHOT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"
SNAPSHOT_FAILED = "SnapshotFailed"
SNAPSHOT_SCHEDULE_FAILED = "SnapshotScheduleFailed"
SCHEDULED = PREFIX + "scheduled"
"""The label of a scheduled snapshot, with the uid of its claim."""
SCHEDULED_AT = PREFIX + "scheduled-at"
"""The annotation of a scheduled snapshot with the time at which it was due."""
_SNAPSHOT = "snapshot_"  # no object of Kubernetes has such a name


def volume_name(claim_uid: str) -> str:
    """Return the name of a claim's PersistentVolume: deterministic, so that a retry finds the first attempt."""
    return f"pvc-{claim_uid}"


def claim_uid(volume_name: str) -> str | None:
    """Return the claim's uid in a volume's name; None if the name does not have that form."""
    return volume_name.removeprefix("pvc-") if volume_name.startswith("pvc-") else None


def content_name(snapshot_uid: str) -> str:
    """Return the name of a VolumeSnapshot's content, which the snapshot-controller expects."""
    return f"snapcontent-{snapshot_uid}"


def snapshot_uid(content_name: str) -> str:
    """Return the uid of the VolumeSnapshot in the name of a content; empty if the name does not have that form."""
    return content_name.removeprefix("snapcontent-") if content_name.startswith("snapcontent-") else ""


def restored_content_name(handle: str) -> str:
    """Return the name of the content that brings a snapshot back."""
    return f"restored-{handle}"


def snapshot_source(handle: str) -> str:
    """Return the name of a snapshot as the source of a copy, in the record of the volume that it becomes."""
    return _SNAPSHOT + handle


def snapshot_handle(source: str) -> str:
    """Return the handle of the snapshot that is the source of a copy; empty if it is a volume."""
    return source.removeprefix(_SNAPSHOT) if source.startswith(_SNAPSHOT) else ""

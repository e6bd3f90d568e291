"""The few fields of Kubernetes objects that the daemon reads: frozen values, decoded once at the edge.

The daemon's cache keeps only the fields that a rule reads. The `Kept…` mappings below, each beside its type, list the
keys that it keeps, and runtime.transform makes the slim copies. Reading any other key of a cached object raises
NotKept: a stripped field never looks like an absent one. `tests/unit/runtime/test_transform.py` applies the rules to
cached copies, so a rule that reads a stripped field fails there until its key is added here.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from msgspec import Struct, field

from provisioner.core import names


class NotKept(Exception):
    """A rule read a field of a cached object that the cache does not keep: a programming error."""


class Kept(dict[str, str]):
    """A mapping of a cached object: only some of its keys are kept, and reading another one raises NotKept."""

    __slots__ = ()

    KEYS: ClassVar[frozenset[str]] = frozenset()
    UNIQUE: ClassVar[frozenset[str]] = frozenset()
    """Keys whose values no other object has: a mapping with one of them cannot be shared."""

    @classmethod
    def keeps(cls, key: str) -> bool:
        """Whether the cache keeps a key."""
        return key in cls.KEYS

    def __getitem__(self, key: str) -> str:
        self._check(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._check(key)
        return super().__contains__(key)

    def get(self, key: str, default: object = None) -> Any:
        """Like dict.get()."""
        if key not in self.KEYS:  # as _check() does: this call is the most frequent one
            self._check(key)
        return super().get(key, default)

    def _check(self, key: Any) -> None:
        if not self.keeps(key):
            raise NotKept(f"{type(self).__name__} has no {key!r}: add it in core.objects")


class _NotKept(tuple[str, ...]):
    """A placeholder for a list that the cache does not keep."""

    __slots__ = ()

    def _refuse(self, *_: object) -> NoReturn:
        raise NotKept("this list is not kept: add it in core.objects")

    __iter__ = __len__ = __contains__ = __getitem__ = _refuse


NOT_KEPT: tuple[str, ...] = _NotKept()


class KeptNothing(Kept):
    """For mappings of which no rule reads a key, such as labels and selectors."""

    __slots__ = ()


class KeptSize(Kept):
    """The kept quantities."""

    __slots__ = ()

    KEYS = frozenset(("storage",))


class Metadata(Struct, frozen=True, rename="camel", gc=False):
    """`ObjectMeta`, as far as it is read."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


class KeptOfClaim(Kept):
    """The kept annotations of a pending claim.

    Those that a class's pattern names are read live.
    """

    __slots__ = ()

    KEYS = frozenset(
        (
            *names.PROVISIONER_ANNOTATIONS,
            names.CLASS_ANNOTATION,
            *names.SELECTED_NODE_ANNOTATIONS,
            names.RESTORE,
            *names.ACCESS_OF_NFS_SUBDIR,
        )
    )


class KeptOfBoundClaim(Kept):
    """The kept annotations of a claim that has its volume."""

    __slots__ = ()

    KEYS = frozenset((*names.PROVISIONER_ANNOTATIONS, names.CLASS_ANNOTATION))


class KeptOfVolume(Kept):
    """The kept annotations of a volume."""

    __slots__ = ()

    KEYS = frozenset((names.PROVISIONED_BY, *names.MARKS, names.GID, names.QUOTA))
    UNIQUE = frozenset((names.DIRECTORY,))


class DataSource(Struct, frozen=True, rename="camel", gc=False):
    """`dataSource` or `dataSourceRef`: the source for the data of a claim's volume."""

    kind: str = ""
    name: str = ""
    api_group: str | None = None
    namespace: str | None = None

    @property
    def is_claim(self) -> bool:
        """Return True if the source is another claim, of which the volume becomes a clone."""
        return self.kind == "PersistentVolumeClaim" and not self.api_group

    @property
    def is_snapshot(self) -> bool:
        """Return True if the source is a VolumeSnapshot."""
        return self.kind == "VolumeSnapshot" and self.api_group in (None, names.SNAPSHOT_GROUP)


class Resources(Struct, frozen=True, rename="camel", gc=False):
    """Requested sizes, as Kubernetes quantities."""

    requests: dict[str, str] = field(default_factory=dict)


class ClaimSpec(Struct, frozen=True, rename="camel", gc=False):
    """`PersistentVolumeClaimSpec`, as far as it is read."""

    access_modes: tuple[str, ...] = ()
    storage_class_name: str | None = None
    volume_name: str = ""
    volume_mode: str = "Filesystem"
    volume_attributes_class_name: str | None = None
    selector: dict[str, object] | None = None
    data_source: DataSource | None = None
    data_source_ref: DataSource | None = None
    resources: Resources = Resources()


class ClaimStatus(Struct, frozen=True, rename="camel", gc=False):
    """`PersistentVolumeClaimStatus`, as far as it is read."""

    phase: str = "Pending"
    capacity: dict[str, str] = field(default_factory=dict)
    allocated_resources: dict[str, str] = field(default_factory=dict)
    allocated_resource_statuses: dict[str, str] = field(default_factory=dict)


class Claim(Struct, frozen=True, gc=False):
    """A PersistentVolumeClaim."""

    metadata: Metadata = Metadata()
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()

    @property
    def uid(self) -> str:
        """Return the claim's uid, which differs between two successive claims of one name."""
        return self.metadata.uid

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def class_name(self) -> str:
        """Return the claim's class: the old annotation first, then the spec (kubernetes-contract, Provisioning 2)."""
        return self.metadata.annotations.get(names.CLASS_ANNOTATION) or self.spec.storage_class_name or ""

    @property
    def data_source(self) -> DataSource | None:
        """Return the source for the data of its volume; the API server fills both fields with the same."""
        return self.spec.data_source_ref or self.spec.data_source

    @property
    def requested(self) -> str:
        """Return the requested size, as written."""
        return self.spec.resources.requests.get("storage", "")

    def is_for(self, provisioner: str) -> bool:
        """Return True if the cluster assigned this claim to the provisioner: either annotation counts."""
        annotations = self.metadata.annotations
        return any(annotations.get(key) == provisioner for key in names.PROVISIONER_ANNOTATIONS)


class NfsSource(Struct, frozen=True, rename="camel", gc=False):
    """`NFSVolumeSource`: what a node mounts."""

    server: str = ""
    path: str = ""


class KeptOfCsiSource(Kept):
    """The kept attributes of a volume of csi-driver-nfs: those with its place.

    Their names can be in any case, as the driver reads them.
    """

    __slots__ = ()

    KEYS = frozenset(names.CSI_PLACE)

    @classmethod
    def keeps(cls, key: str) -> bool:
        """See `Kept`."""
        return key.lower() in cls.KEYS


class CsiSource(Struct, frozen=True, rename="camel", gc=False):
    """`CSIPersistentVolumeSource`: a volume of a CSI driver."""

    driver: str = ""
    volume_attributes: dict[str, str] = field(default_factory=dict)

    @property
    def nfs(self) -> NfsSource | None:
        """Return what a node mounts for a volume of csi-driver-nfs; None for other drivers, or if it does not say.

        Source: csi-driver-nfs 4.x, pkg/nfs/nodeserver.go, NodePublishVolume.
        """
        said = {key.lower(): value for key, value in self.volume_attributes.items()}
        server, share, directory = (said.get(key, "") for key in names.CSI_PLACE)
        if self.driver != names.CSI_DRIVER_NFS or not server or not share:
            return None
        return NfsSource(server, f"{share.rstrip('/')}/{directory}")


class ClaimRef(Struct, frozen=True, rename="camel", gc=False):
    """The claim to which a volume belongs."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class VolumeSpec(Struct, frozen=True, rename="camel", gc=False):
    """`PersistentVolumeSpec`, as far as it is read."""

    capacity: dict[str, str] = field(default_factory=dict)
    access_modes: tuple[str, ...] = ()
    nfs: NfsSource | None = None
    csi: CsiSource | None = None
    claim_ref: ClaimRef | None = None
    mount_options: tuple[str, ...] = ()
    persistent_volume_reclaim_policy: str = "Retain"
    storage_class_name: str = ""


class VolumeStatus(Struct, frozen=True, rename="camel", gc=False):
    """`PersistentVolumeStatus`, as far as it is read."""

    phase: str = "Pending"


class Volume(Struct, frozen=True, gc=False):
    """A PersistentVolume."""

    metadata: Metadata = Metadata()
    spec: VolumeSpec = VolumeSpec()
    status: VolumeStatus = VolumeStatus()

    @property
    def name(self) -> str:
        """Return the volume's name."""
        return self.metadata.name

    @property
    def capacity(self) -> str:
        """Return the volume's size, as written."""
        return self.spec.capacity.get("storage", "")

    @property
    def source(self) -> NfsSource | None:
        """Return the place of the directory of an NFS volume or one of csi-driver-nfs.

        Return None for all others.
        """
        spec = self.spec
        return spec.nfs if spec.nfs is not None or spec.csi is None else spec.csi.nfs

    @property
    def is_marked(self) -> bool:
        """Return True if it has any of the annotations that volumes of this provisioner have."""
        return any(key in self.metadata.annotations for key in names.MARKS)

    def is_by(self, provisioner: str) -> bool:
        """Return True if the volume says that the provisioner created it.

        Users can write that: never rely on it.
        """
        return self.metadata.annotations.get(names.PROVISIONED_BY) == provisioner


class Namespace(Struct, frozen=True, gc=False):
    """A Namespace."""

    metadata: Metadata = Metadata()


class StorageClass(Struct, frozen=True, rename="camel", gc=False):
    """A StorageClass."""

    metadata: Metadata = Metadata()
    provisioner: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    reclaim_policy: str = "Delete"
    mount_options: tuple[str, ...] = ()
    volume_binding_mode: str = "Immediate"
    allow_volume_expansion: bool = False

    @property
    def name(self) -> str:
        """Return the class's name."""
        return self.metadata.name


class SnapshotSource(Struct, frozen=True, rename="camel", gc=False):
    """What a VolumeSnapshot is of: a claim, or a content that exists already."""

    persistent_volume_claim_name: str = ""
    volume_snapshot_content_name: str = ""


class SnapshotSpec(Struct, frozen=True, rename="camel", gc=False):
    """`VolumeSnapshotSpec`, as far as it is read."""

    source: SnapshotSource = SnapshotSource()
    volume_snapshot_class_name: str | None = None


class SnapshotStatus(Struct, frozen=True, rename="camel", gc=False):
    """`VolumeSnapshotStatus`, as far as it is read."""

    bound_volume_snapshot_content_name: str = ""
    ready_to_use: bool = False


class Snapshot(Struct, frozen=True, gc=False):
    """A VolumeSnapshot of snapshot.storage.k8s.io/v1."""

    metadata: Metadata = Metadata()
    spec: SnapshotSpec = SnapshotSpec()
    status: SnapshotStatus = SnapshotStatus()

    @property
    def lacks_class(self) -> bool:
        """Return True if it is of a claim and names no class: then the default class counts."""
        return bool(self.spec.source.persistent_volume_claim_name) and not self.spec.volume_snapshot_class_name

    @property
    def uid(self) -> str:
        """Return the snapshot's uid, which is its handle too."""
        return self.metadata.uid

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class ContentSource(Struct, frozen=True, rename="camel", gc=False):
    """What a VolumeSnapshotContent is of: a volume to be copied, or a snapshot that exists already."""

    volume_handle: str = ""
    snapshot_handle: str = ""


class ContentSpec(Struct, frozen=True, rename="camel", gc=False):
    """`VolumeSnapshotContentSpec`, as far as it is read."""

    driver: str = ""
    deletion_policy: str = "Retain"
    source: ContentSource = ContentSource()
    volume_snapshot_ref: ClaimRef = ClaimRef()
    volume_snapshot_class_name: str | None = None


class ContentError(Struct, frozen=True, rename="camel", gc=False):
    """`VolumeSnapshotError`."""

    message: str = ""


class ContentStatus(Struct, frozen=True, rename="camel", gc=False):
    """`VolumeSnapshotContentStatus`, as far as it is read."""

    snapshot_handle: str = ""
    ready_to_use: bool = False
    error: ContentError | None = None


class SnapshotContent(Struct, frozen=True, gc=False):
    """A VolumeSnapshotContent of snapshot.storage.k8s.io/v1."""

    metadata: Metadata = Metadata()
    spec: ContentSpec = ContentSpec()
    status: ContentStatus | None = None

    @property
    def name(self) -> str:
        """Return the content's name."""
        return self.metadata.name


class SnapshotClass(Struct, frozen=True, rename="camel", gc=False):
    """A VolumeSnapshotClass of snapshot.storage.k8s.io/v1."""

    metadata: Metadata = Metadata()
    driver: str = ""
    deletion_policy: str = "Retain"
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the class's name."""
        return self.metadata.name

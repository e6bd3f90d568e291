"""Sample objects of one small cluster for the tests of the rules: a claim, a class and a volume that match."""

from __future__ import annotations

from collections.abc import Mapping

from provisioner.core import names
from provisioner.core.claims import ClaimView
from provisioner.core.locations import Location
from provisioner.core.objects import (
    Claim,
    ClaimRef,
    ClaimSpec,
    ClaimStatus,
    CsiSource,
    Metadata,
    NfsSource,
    Resources,
    StorageClass,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from provisioner.core.records import OnDelete, Record
from provisioner.core.tenancy import Tenant

US = "example.com/nfs"
UID = "0b5f"
VOLUME = "pvc-0b5f"
DIRECTORY = "shop-data-pvc-0b5f"
EXPORT_ID = "e1"
TENANT = Tenant(uid="ns-1", created="2025-12-31T00:00:00Z")
"""The namespace of the records below."""
LATER_TENANT = Tenant(uid="ns-2", created="2026-06-01T00:00:00Z")
"""A namespace of the same name, created after the first one was deleted."""
SOURCE = NfsSource("nas", f"/exports/{DIRECTORY}")


def claim(
    *,
    name: str = "data",
    namespace: str = "shop",
    uid: str = UID,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    deleted: bool = False,
    spec: ClaimSpec | None = None,
    status: ClaimStatus | None = None,
    provisioner: str = US,
) -> Claim:
    """Return a claim for 1Gi of class `nfs` that the cluster assigned to the provisioner."""
    ours = {names.PROVISIONER_ANNOTATIONS[0]: provisioner} if provisioner else {}
    return Claim(
        metadata=Metadata(
            name=name,
            namespace=namespace,
            uid=uid,
            resource_version="7",
            labels=dict(labels or {}),
            annotations={**ours, **(annotations or {})},
            deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None,
        ),
        spec=spec or claim_spec(),
        status=status or ClaimStatus(),
    )


def claim_spec(*, size: str = "1Gi", class_name: str | None = "nfs", volume_name: str = "") -> ClaimSpec:
    """Return the spec of such a claim."""
    return ClaimSpec(
        access_modes=("ReadWriteMany",),
        storage_class_name=class_name,
        volume_name=volume_name,
        resources=Resources({"storage": size} if size else {}),
    )


def storage_class(
    parameters: Mapping[str, str] | None = None,
    *,
    provisioner: str = US,
    reclaim_policy: str = "Delete",
    binding: str = "Immediate",
    expands: bool = False,
) -> StorageClass:
    """Return the class `nfs`."""
    return StorageClass(
        metadata=Metadata(name="nfs"),
        provisioner=provisioner,
        parameters=dict(parameters or {}),
        reclaim_policy=reclaim_policy,
        mount_options=("nfsvers=4.1",),
        volume_binding_mode=binding,
        allow_volume_expansion=expands,
    )


def claim_view(**parameters: str) -> ClaimView:
    """Return the view of the sample claim in a class with these parameters."""
    return ClaimView(
        provisioner=US,
        claim=claim(),
        storage_class=storage_class(parameters),
        volume=None,
        default_export=Location("nas", "/exports"),
        holder=lambda *_: None,
        now="2026-01-01T00:00:00Z",
    )


def volume(
    *,
    name: str = VOLUME,
    phase: str = "Released",
    policy: str = "Delete",
    annotations: Mapping[str, str] | None = None,
    finalizers: tuple[str, ...] = (names.FINALIZER,),
    deleted: bool = False,
    claim_uid: str | None = UID,
    nfs: NfsSource | None = SOURCE,
    provisioner: str = US,
    capacity: str = "1Gi",
    mount_options: tuple[str, ...] = (),
) -> Volume:
    """Return the Released volume of that claim, created by the provisioner."""
    ours = {names.PROVISIONED_BY: provisioner, names.ON_DELETE: "delete", names.EXPORT_ID: EXPORT_ID}
    return Volume(
        metadata=Metadata(
            name=name,
            uid=f"uid-of-{name}",
            annotations={**ours, **(annotations or {})},
            finalizers=finalizers,
            deletion_timestamp="2026-01-01T00:00:00Z" if deleted else None,
        ),
        spec=VolumeSpec(
            capacity={"storage": capacity} if capacity else {},
            nfs=nfs,
            claim_ref=None if claim_uid is None else ClaimRef("shop", "data", claim_uid),
            mount_options=mount_options,
            persistent_volume_reclaim_policy=policy,
            storage_class_name="nfs",
        ),
        status=VolumeStatus(phase),
    )


def peers_volume(
    *,
    phase: str = "Released",
    policy: str = "Delete",
    claim_uid: str | None = UID,
    nfs: NfsSource | None = SOURCE,
    annotations: Mapping[str, str] | None = None,
    mount_options: tuple[str, ...] = (),
) -> Volume:
    """Return the volume of that claim as nfs-subdir creates it under the same provisioner name."""
    return Volume(
        metadata=Metadata(
            name=VOLUME, uid=f"uid-of-{VOLUME}", annotations={names.PROVISIONED_BY: US, **(annotations or {})}
        ),
        spec=VolumeSpec(
            capacity={"storage": "1Gi"},
            access_modes=("ReadWriteMany",),
            nfs=nfs,
            claim_ref=None if claim_uid is None else ClaimRef("shop", "data", claim_uid),
            mount_options=mount_options,
            persistent_volume_reclaim_policy=policy,
            storage_class_name="nfs",
        ),
        status=VolumeStatus(phase),
    )


def csi_volume(attributes: Mapping[str, str], *, driver: str = names.CSI_DRIVER_NFS, phase: str = "Released") -> Volume:
    """Return a volume of a CSI driver with the provisioner's name."""
    spec = VolumeSpec(csi=CsiSource(driver, dict(attributes)), persistent_volume_reclaim_policy="Delete")
    return Volume(Metadata(name="csi", annotations={names.PROVISIONED_BY: US}), spec, VolumeStatus(phase))


def record(
    directory: str = DIRECTORY,
    *,
    namespace: str = "shop",
    claim_uid: str = UID,
    on_delete: OnDelete = "delete",
    peer: bool = False,
    volume_uid: str = "",
    namespace_uid: str = "",
) -> Record:
    """Return the ledger's record of that volume."""
    return Record(
        directory=directory,
        namespace=namespace,
        claim="data",
        claim_uid=claim_uid,
        class_name="nfs",
        on_delete=on_delete,
        capacity="1Gi",
        created="2026-01-01T00:00:00Z",
        peer=peer,
        volume_uid=volume_uid,
        namespace_uid=namespace_uid,
    )

"""Machine reasons: one word per rule that can refuse work, for the log and for `nfs_provisioner_failures_total`.

Rules refuse claims, and volumes: their reclaim, their expansion and their takeover.

Events keep the reasons of sig-storage-lib (`ProvisioningFailed`, `VolumeFailedDelete`), which alerts and people know.
The tables of all reasons are in docs/reference/metrics.md. Failures of an export and of the API server have reasons
of their own: the cause of the `ExportError`, or the class of the error.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a claim, or work on a volume, is refused."""

    UNSUPPORTED_VOLUME_MODE = "UnsupportedVolumeMode"
    UNSUPPORTED_SELECTOR = "UnsupportedSelector"
    UNSUPPORTED_ATTRIBUTES_CLASS = "UnsupportedAttributesClass"
    UNSUPPORTED_DATA_SOURCE = "UnsupportedDataSource"
    CONFLICTING_DATA_SOURCES = "ConflictingDataSources"
    CLONE_SOURCE_UNUSABLE = "CloneSourceUnusable"
    EXTERNAL_POPULATOR = "ExternalPopulator"
    """Not a failure: it is in no metric, and its event is Normal."""
    INVALID_SIZE = "InvalidSize"
    # Errors of the class, by the names of their types in core.errors.
    UNKNOWN_PARAMETER = "UnknownParameter"
    INVALID_PARAMETER = "InvalidParameter"
    INVALID_MOUNT_OPTION = "InvalidMountOption"
    MISSING_EXPORT = "MissingExport"
    # Errors of the directory, by the names of their types in core.errors.
    MISSING_LABEL = "MissingLabel"
    MISSING_ANNOTATION = "MissingAnnotation"
    INVALID_PATH = "InvalidPath"
    INVALID_RECORD = "InvalidRecord"
    INVALID_ARCHIVE_NAME = "InvalidArchiveName"
    OVERLAPPING_DIRECTORY = "OverlappingDirectory"
    RETAINED_DIRECTORY = "RetainedDirectory"
    # What only the export shows.
    UNREADABLE_RECORD = "UnreadableRecord"
    DIRECTORY_EXISTS = "DirectoryExists"
    ARCHIVE_UNUSABLE = "ArchiveUnusable"
    NOT_ENOUGH_SPACE = "NotEnoughSpace"
    OVERCOMMIT_EXCEEDED = "OvercommitExceeded"
    NO_FREE_GROUP = "NoFreeGroup"
    QUOTA_NOT_IN_FORCE = "QuotaNotInForce"
    # Refusals of a volume only. Its other reasons are among those above.
    UNSUPPORTED_DRIVER = "UnsupportedDriver"
    MISSING_CLAIM_REF = "MissingClaimRef"
    UNBOUND_VOLUME = "UnboundVolume"
    INVALID_RULE = "InvalidRule"
    UNKNOWN_EXPORT = "UnknownExport"
    EXPORT_MOVED = "ExportMoved"
    EXPORT_MISMATCH = "ExportMismatch"
    MISSING_RECORD = "MissingRecord"
    RECORD_MISMATCH = "RecordMismatch"
    FOREIGN_RECORD = "ForeignRecord"
    RECREATED_VOLUME = "RecreatedVolume"


OF_THE_CLAIM = frozenset(
    {
        Reason.UNSUPPORTED_VOLUME_MODE,
        Reason.UNSUPPORTED_SELECTOR,
        Reason.UNSUPPORTED_ATTRIBUTES_CLASS,
        Reason.UNSUPPORTED_DATA_SOURCE,
        Reason.CONFLICTING_DATA_SOURCES,
        Reason.CLONE_SOURCE_UNUSABLE,
        Reason.INVALID_SIZE,
        Reason.MISSING_LABEL,
        Reason.MISSING_ANNOTATION,
        Reason.INVALID_PATH,
        Reason.INVALID_RECORD,
        Reason.INVALID_ARCHIVE_NAME,
        Reason.OVERLAPPING_DIRECTORY,
        Reason.RETAINED_DIRECTORY,
        Reason.DIRECTORY_EXISTS,
        Reason.ARCHIVE_UNUSABLE,
    }
)
"""Reasons that lie in the claim itself: its author has to change it, and the alerts tell them apart from faults."""

"""core.waiting: which claims wait for this provisioner, and why."""

from __future__ import annotations

import pytest

from provisioner.core import names, waiting
from provisioner.core.objects import Claim, ClaimSpec, ClaimStatus, Metadata, Resources, StorageClass

OURS = "example.com/nfs"
ANNOTATED = {names.PROVISIONER_ANNOTATIONS[0]: OURS}
CLASSES = {
    "nfs": StorageClass(Metadata(name="nfs"), OURS),
    "nas": StorageClass(Metadata(name="nas"), OURS, parameters={"server": "nas", "share": "/x"}),
    "late": StorageClass(Metadata(name="late"), OURS, volume_binding_mode="WaitForFirstConsumer"),
    "odd": StorageClass(Metadata(name="odd"), OURS, parameters={"onDelet": "delete"}),
    "other": StorageClass(Metadata(name="other"), "example.com/other"),
}


def claim(class_name: str, *, annotated: bool = False, phase: str = "Pending", deleted: bool = False) -> Claim:
    return Claim(
        Metadata(
            name="data",
            namespace="shop",
            uid="u",
            creation_timestamp="2026-01-01T00:00:00Z",
            deletion_timestamp="2026-01-01T00:00:01Z" if deleted else None,
            annotations=ANNOTATED if annotated else {},
        ),
        ClaimSpec(
            storage_class_name=class_name,
            access_modes=("ReadWriteMany",),
            resources=Resources({"storage": "1Gi"}),
        ),
        ClaimStatus(phase),
    )


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (claim("nfs"), True),
        (claim("gone", annotated=True), True),
        (claim("gone"), False),
        (claim("other"), False),
    ],
)
def test_served(each: Claim, expected: bool) -> None:
    """A claim is the provisioner's by its class, or by Kubernetes' annotation."""
    assert waiting.is_served(each, CLASSES, OURS) is expected


@pytest.mark.parametrize(
    ("each", "warning", "expected"),
    [
        (claim("nfs"), "ProvisioningFailed: no space", "ProvisioningFailed: no space"),
        (claim("nfs", deleted=True), "", "it is being deleted"),
        (claim("late"), "", "it waits for its first pod, as StorageClass late says"),
        (claim("nfs"), "", "Kubernetes has not assigned it to the provisioner yet"),
        (claim("gone"), "", "Kubernetes has not assigned it to the provisioner yet"),
        (claim("odd", annotated=True), "", "onDelet is unknown"),
        (claim("gone", annotated=True), "", "the claim's class does not exist"),
        (claim("nas", annotated=True), "", "nfs-provisioner check"),
    ],
)
def test_why(each: Claim, warning: str, expected: str) -> None:
    """The last warning is the reason; without one, the rules give it."""
    storage_class = CLASSES.get(each.class_name)
    assert expected in waiting.why(each, storage_class, OURS, None, warning=warning)


def test_rows() -> None:
    """Rows have the reason while a claim is Pending, and are sorted by name."""
    row = waiting.listed(claim("nfs"), "why")
    assert (row.namespace, row.claim, row.requested, row.why) == ("shop", "data", "1Gi", "why")
    bound = waiting.listed(claim("nfs", phase="Bound"), "why")
    assert (bound.phase, bound.why) == ("Bound", "")
    assert waiting.in_order([row, waiting.ClaimRow("a", "z", "", "", "", "", "", "")])[0].namespace == "a"

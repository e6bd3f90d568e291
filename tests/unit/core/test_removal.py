"""core.removal: when an admin can delete an archive, or archive an orphan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from provisioner.core import names, removal
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, ClaimStatus, Metadata, NfsSource, Volume, VolumeSpec
from provisioner.core.orphans import Orphan
from provisioner.core.records import no_owner, unowned
from provisioner.core.removal import ArchiveFacts

ARCHIVE = "archived-a-20260101T000000.000000Z"
RECORD = structs.replace(
    unowned(ARCHIVE, "2026-01-01T00:00:00Z", no_owner("a", "2026-01-01T00:00:00Z", "c")), volume="pvc-1"
)
FREE = ArchiveFacts(
    archive=ARCHIVE,
    record=RECORD,
    cluster="c",
    stopped=False,
    locations=[Location("nas", "/x")],
    folds=False,
    volumes=[Volume(Metadata(name="pvc-2"), VolumeSpec(nfs=NfsSource("nas", "/x/other")))],
    claims=[Claim(Metadata(name="data", namespace="shop"))],
)


def asking(phase: str) -> Claim:
    return Claim(
        Metadata(name="data", namespace="shop", annotations={names.RESTORE: ARCHIVE}), status=ClaimStatus(phase)
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ""),
        ({"record": None}, ""),
        ({"claims": [asking("Bound")]}, ""),
        ({"stopped": True}, "nfs-provisioner instances"),
        ({"cluster": "d"}, "another cluster"),
        (
            {"volumes": [Volume(Metadata(name="pv"), VolumeSpec(nfs=NfsSource("nas", f"/x/{ARCHIVE}")))]},
            "volume pv uses",
        ),
        ({"volumes": [Volume(Metadata(name="pvc-1"))]}, "recover --volume pvc-1"),
        ({"claims": [asking("Pending")]}, "claim shop/data asks for it"),
    ],
)
def test_deleting(changed: dict[str, Any], expected: str) -> None:
    """An archive stays while a claim, a volume, another cluster or an open decision needs it."""
    why = removal.why_not_delete(replace(FREE, **changed))
    assert expected in why
    assert bool(why) is bool(expected)


@pytest.mark.parametrize(
    ("kind", "stopped", "claim", "uid", "expected"),
    [
        ("volume-gone", False, None, "u", ""),
        ("unknown", False, None, "", ""),
        ("volume-gone", False, "other", "u", ""),
        ("volume-gone", False, "u", "u", "its claim shop/data still exists"),
        ("volume-gone", False, "u", "", "its claim shop/data still exists"),
        ("volume-gone", True, None, "u", "nfs-provisioner instances"),
        ("attempt-left", False, None, "u", "it is attempt-left: do this"),
        ("cluster-gone", False, None, "u", "it is cluster-gone: do this"),
    ],
)
def test_archiving(kind: Any, stopped: bool, claim: str | None, uid: str, expected: str) -> None:
    """Only what surely belongs to no claim of this cluster is archived."""
    orphan = Orphan(kind, "nas:/x", "a", "pvc-1", "shop/data", "", "why", "do this")
    live = Claim(Metadata(name="data", namespace="shop", uid=claim)) if claim is not None else None
    why = removal.why_not_archive(orphan, stopped=stopped, claim=live, claim_uid=uid)
    assert expected in why
    assert bool(why) is bool(expected)

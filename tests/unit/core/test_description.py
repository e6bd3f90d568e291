"""core.description: what the argument of `describe` means, and the page about it."""

from __future__ import annotations

import pytest

from provisioner.core import description
from provisioner.core.description import EventPart, Facts, OfClaim, OfDirectory, OfVolume, describe, meanings
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, ClaimRef, Metadata, Volume, VolumeSpec
from provisioner.core.pods import Pod
from provisioner.core.quota import Answer
from provisioner.core.records import Record

RECORD = Record(
    directory="shop-data",
    namespace="shop",
    claim="data",
    claim_uid="u1",
    class_name="nfs",
    on_delete="delete",
    capacity="1Gi",
    created="2026-01-01T00:00:00Z",
    volume_uid="v1",
)
CLAIM = Claim(Metadata(name="data", namespace="shop", uid="u1", deletion_timestamp="2026-01-02T00:00:00Z"))
VOLUME = Volume(Metadata(name="pvc-u1", uid="v1"), VolumeSpec(claim_ref=ClaimRef("shop", "data", "u1")))


@pytest.mark.parametrize(
    ("text", "namespace", "expected"),
    [
        ("shop/data", None, [OfClaim("shop", "data"), OfDirectory(("shop", "data"))]),
        ("a/b/c", None, [OfDirectory(("a", "b", "c"))]),
        ("/a/b", None, [OfDirectory(("a", "b"))]),
        ("data", None, [OfVolume("data"), OfDirectory(("data",))]),
        ("data", "shop", [OfClaim("shop", "data"), OfVolume("data"), OfDirectory(("data",))]),
        ("pvc/data", "shop", [OfClaim("shop", "data")]),
        ("persistentvolume/pvc-1", None, [OfVolume("pvc-1")]),
        ("nas:/x/data", None, [OfDirectory(("x", "data"), "nas")]),
    ],
)
def test_meanings(text: str, namespace: str | None, expected: list[description.Meaning]) -> None:
    """A claim comes before a volume, and both before a directory; kubectl's words leave one meaning."""
    assert meanings(text, namespace) == expected


@pytest.mark.parametrize("text", ["", "/", "a/../b", "pvc/data", "nas:/"])
def test_meaningless(text: str) -> None:
    """An argument that can name nothing is refused."""
    with pytest.raises(InvalidSettings):
        meanings(text, None)


def test_a_directory_on_an_export() -> None:
    """A directory with a server is only on the export that has it; without one, on any."""
    export = [Location("other", "/y"), Location("nas", "/x")]
    assert OfDirectory(("x", "data"), "nas").on(export) == ("data",)
    assert OfDirectory(("data",)).on(export) == ("data",)
    assert OfDirectory(("y", "data"), "nas").on(export) is None
    assert OfDirectory(("x",), "nas").on(export) is None


def test_the_page() -> None:
    """The page has each part that exists, the pods of the claim, and the events in their order."""
    late, early = (EventPart(at, "Normal", "R", "claim shop/data", "m") for at in ("2026-01-02", "2026-01-01"))
    page = describe(
        Facts(
            claim=CLAIM,
            volume=VOLUME,
            export="nas:/x",
            path=("shop-data",),
            record_of="pvc-u1",
            record=RECORD,
            contents="data",
            answer=Answer(used_bytes=5, inodes=2, whole=True, at="2026-01-01T00:00:00Z"),
            pods=[Pod("shop", "web", claims=("data",)), Pod("shop", "other"), Pod("else", "web", claims=("data",))],
            events=[late, early],
            unread={"export nas:/y": "no answer"},
        )
    )
    assert page.claim is not None
    assert (page.claim.name, page.claim.deleted) == ("data", "2026-01-02T00:00:00Z")
    assert page.volume is not None
    assert page.record is not None
    assert (page.record.state, page.record.agrees) == ("settled", True)
    assert page.directory == description.DirectoryPart("nas:/x", "shop-data", "data")
    assert page.usage is not None
    assert (page.usage.used_bytes, page.usage.files, page.usage.limit_bytes) == (5, 2, None)
    assert [pod.key for pod in page.pods] == ["shop/web"]
    assert page.events == [early, late]
    assert page.unread == ["export nas:/y: no answer"]


def test_parts_that_are_missing() -> None:
    """A part that does not exist is None; a usage that is not whole is unknown."""
    page = describe(Facts())
    assert (page.claim, page.volume, page.record, page.directory, page.usage) == (None,) * 5
    partly = describe(Facts(answer=Answer(used_bytes=5, limit_bytes=9))).usage
    assert partly is not None
    assert (partly.used_bytes, partly.files, partly.limit_bytes) == (None, None, 9)


def test_states_of_a_record() -> None:
    """A record is settled, pending or retained; without a volume, nothing agrees with it or not."""
    retained = RECORD.__class__(
        **{each: getattr(RECORD, each) for each in RECORD.__struct_fields__} | {"retained": "x"}
    )
    pages = [describe(Facts(record=retained)), describe(Facts(record=RECORD, pending=True))]
    assert [page.record and (page.record.state, page.record.agrees) for page in pages] == [
        ("retained", None),
        ("pending", None),
    ]


def test_whose_claim() -> None:
    """The claim is that of the claim, the volume or the record, whatever there is."""
    assert Facts(claim=CLAIM).claim_key == ("shop", "data")
    assert Facts(volume=VOLUME).claim_key == ("shop", "data")
    assert Facts(record=RECORD).claim_key == ("shop", "data")
    assert Facts(volume=Volume()).claim_key == ("", "")


def test_pods() -> None:
    """A pod that has ended uses nothing any more."""
    assert Pod("shop", "web", "Running").runs
    assert not Pod("shop", "web", "Succeeded").runs

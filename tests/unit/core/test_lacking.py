"""core.lacking: which volumes must have a directory and a record, and how missing ones are reported."""

from __future__ import annotations

import pytest

from provisioner.core import lacking
from provisioner.core.locations import RelPath
from provisioner.core.objects import Volume
from tests.support import samples

BOUND = samples.volume(phase="Bound")
PATH = (samples.DIRECTORY,)


@pytest.mark.parametrize(
    ("volume", "path", "is_in_use"),
    [
        (BOUND, PATH, True),
        (samples.volume(phase="Bound", deleted=True), PATH, True),
        (samples.volume(phase="Released"), PATH, False),
        (samples.volume(phase="Bound", provisioner="another"), PATH, False),
        (samples.volume(phase="Bound", nfs=None), PATH, False),
        (BOUND, (), False),
        (BOUND, ("a", "..", "b"), False),
    ],
)
def test_in_use(volume: Volume, path: RelPath, is_in_use: bool) -> None:
    """Only a volume of this provisioner that a claim has, and that is below its export, can lack something."""
    assert lacking.is_in_use(volume, path, samples.US) is is_in_use


def test_suspects() -> None:
    """A missing directory comes first: its record is restored with it."""
    volumes = {name: (name,) for name in ("whole", "no-directory", "no-record", "neither")}
    records = {name: samples.record(name) for name in ("whole", "no-directory")}
    assert lacking.suspects(volumes, records, {("no-directory",), ("neither",)}) == {
        "no-directory": "directory-missing",
        "no-record": "record-missing",
        "neither": "directory-missing",
    }


def test_words() -> None:
    """The row and the event say what is missing, where, and what to do."""
    unclaimed = samples.volume(name="b", phase="Bound", claim_uid=None)
    rows = lacking.listed("nas", [(unclaimed, ("b",), "record-missing"), (BOUND, PATH, "directory-missing")])
    assert [(row.kind, row.directory, row.claim) for row in rows] == [
        ("directory-missing", samples.DIRECTORY, "shop/data"),
        ("record-missing", "b", ""),
    ]
    message = lacking.message("nas", PATH, BOUND, "directory-missing")
    assert f"{samples.DIRECTORY!r} on export nas" in message
    assert f"recover --volume {samples.VOLUME}" in message

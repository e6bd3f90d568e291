"""core.snapshot_classes: the parameters of a VolumeSnapshotClass."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from provisioner.core import snapshot_classes
from provisioner.core.errors import InvalidParameter, UnknownParameter
from provisioner.core.locations import Location
from provisioner.core.objects import Metadata, SnapshotClass
from provisioner.core.snapshot_classes import SnapshotParameters


@pytest.mark.parametrize(
    ("parameters", "parsed"),
    [
        ({}, SnapshotParameters()),
        ({"Server": "nas", " share ": "/x"}, SnapshotParameters(export=Location("nas", "/x"))),
        ({"retention": " 30d "}, SnapshotParameters(retention="30d")),
        ({"retention": "", "csi.storage.k8s.io/snapshotter-secret-name": "s"}, SnapshotParameters()),
    ],
)
def test_parameters(parameters: Mapping[str, str], parsed: SnapshotParameters) -> None:
    """Names are case-insensitive, and empty values and those for sidecars count as unset."""
    assert snapshot_classes.parse(parameters) == parsed


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"keep": "7"}, UnknownParameter, "parameter keep is unknown: use one of server, share, retention"),
        ({"share": "/x", "Share": "/y"}, InvalidParameter, "set twice"),
        ({"server": "nas"}, InvalidParameter, "belong together"),
        ({"server": "nas", "share": "x"}, InvalidParameter, "parameters server and share: "),
        ({"retention": "long"}, InvalidParameter, "parameter retention: 'long' is not a duration"),
        ({"retention": "0"}, InvalidParameter, "keeps nothing"),
    ],
)
def test_what_cannot_be_used(parameters: Mapping[str, str], error: type[Exception], message: str) -> None:
    """Every other parameter and value is refused, with what to change."""
    with pytest.raises(error, match=message):
        snapshot_classes.parse(parameters)


def test_exports() -> None:
    """The exports of the driver's classes; a class that names none, or cannot be used, adds none."""
    parameters = [{"server": "nas", "share": "/x"}, {}, {"server": "nas"}]
    found = [SnapshotClass(Metadata(name="snaps"), "us", parameters=each) for each in parameters]
    other = SnapshotClass(Metadata(name="snaps"), "other", parameters={"server": "nas", "share": "/y"})
    assert snapshot_classes.exports_of([*found, other], "us") == [Location("nas", "/x")]

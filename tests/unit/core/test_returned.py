"""core.returned: whose data are kept, and what a volume says of it."""

from __future__ import annotations

import pytest

from provisioner.core import returned
from tests.unit.core import samples


@pytest.mark.parametrize(
    ("phase", "deleted", "keeps"),
    [
        ("Bound", False, True),
        ("Bound", True, True),
        ("Available", False, True),
        ("Released", False, True),
        ("Released", True, False),
        ("Failed", True, False),
    ],
)
def test_keeps(phase: str, deleted: bool, keeps: bool) -> None:
    """A volume keeps its data unless it is being deleted and no claim has it: such a one stays while its claim does."""
    assert returned.keeps(samples.volume(phase=phase, deleted=deleted)) is keeps


def test_being_reclaimed() -> None:
    """Released and Failed are what a volume is while its data move."""
    phases = ("Bound", "Available", "Pending", "Released", "Failed")
    assert [phase for phase in phases if returned.is_being_reclaimed(samples.volume(phase=phase))] == [
        "Released",
        "Failed",
    ]


@pytest.mark.parametrize(
    ("entry", "volume"),
    [
        ("pvc-1.20261123T161512.123456Z", "pvc-1"),
        ("a.b.20261123T161512.123456Z", "a.b"),
        ("pvc-1", "pvc-1"),
        ("a.b.c", "a.b.c"),
    ],
)
def test_volume_of(entry: str, volume: str) -> None:
    """An entry is the volume's name and a time; a name may have dots, and anything else stands for itself."""
    assert returned.volume_of(entry) == volume


def test_kept_message() -> None:
    """It says where the data are and which command brings them back."""
    message = returned.kept_message("pvc-1", "archive archived-x", "nas:/x")
    assert "archive archived-x on export nas:/x" in message
    assert "recover --volume pvc-1`" in message

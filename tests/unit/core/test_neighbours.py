"""core.neighbours: whether a volume needs a directory that is about to be moved for another volume."""

from __future__ import annotations

import pytest

from provisioner.core.locations import Location
from provisioner.core.neighbours import needs
from provisioner.core.objects import NfsSource, Volume
from tests.support import samples

DRIVEN = {"server": "nas", "share": "/exports", "subDir": "shop/data"}
NAS = Location("nas", "/exports")


def at(path: str, *, server: str = "nas", deleted: bool = False) -> Volume:
    """A volume that was created manually."""
    return samples.volume(name="static", nfs=NfsSource(server, path), provisioner="", deleted=deleted)


@pytest.mark.parametrize(
    ("volume", "answer"),
    [
        pytest.param(at("/exports/shop/data"), True, id="the same"),
        pytest.param(at("/exports/shop/data/"), True, id="the same, written otherwise"),
        pytest.param(at("/exports/shop"), True, id="above"),
        pytest.param(at("/exports/shop/data/inner"), True, id="below"),
        pytest.param(at("/exports/shop/database"), False, id="beside"),
        pytest.param(at("/exports"), False, id="the whole export"),
        pytest.param(at("/"), False, id="above the export"),
        pytest.param(at("/exports/shop/data", server="other"), False, id="another server"),
        pytest.param(at("/exports/shop/data", deleted=True), False, id="being deleted"),
        pytest.param(samples.volume(nfs=None), False, id="no NFS"),
        pytest.param(samples.csi_volume(DRIVEN), True, id="of csi-driver-nfs"),
    ],
)
def test_needs(volume: Volume, answer: bool) -> None:
    """A volume of any provisioner needs a directory that overlaps with its own, unless it is being deleted."""
    assert needs(volume, [NAS], ("shop", "data")) is answer


def test_by_another_name_of_the_export() -> None:
    """A volume can name the export by any of its locations."""
    volume = at("/srv/shop", server="10.0.0.5")
    assert not needs(volume, [NAS], ("shop", "data"))
    assert needs(volume, [NAS, Location("10.0.0.5", "/srv")], ("shop", "data"))


def test_on_a_server_that_folds_names() -> None:
    """On a server that folds names, other spellings of a directory count, too."""
    volume = at("/exports/SHOP/Data/inner")
    assert not needs(volume, [NAS], ("shop", "data"))
    assert needs(volume, [NAS], ("shop", "data"), folds=True)
    assert needs(at("/Exports/shop"), [NAS], ("shop", "data"), folds=True)

"""core.classes: parameters, export and mount options of a StorageClass."""

from __future__ import annotations

import pytest
from msgspec import structs

from provisioner.core import classes
from provisioner.core.errors import InvalidMountOption, InvalidParameter, UnknownParameter
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass
from tests.support.samples import storage_class

DEFAULT = Location("nas", "/exports")
OWN = storage_class({"server": "b", "share": "/y"})


def test_the_export() -> None:
    """A class's own export comes before the default one; without either there is none."""
    assert classes.export_of(OWN, DEFAULT) == Location("b", "/y")
    assert classes.export_of(storage_class(), DEFAULT) == DEFAULT
    assert classes.export_of(storage_class(), None) is None


def test_all_settings() -> None:
    """The settings of a class are its parameters, its export and its mount options."""
    settings = classes.settings_of(OWN, DEFAULT)
    assert settings.export == Location("b", "/y")
    assert settings.mount_options == MountOptions(version="4.1") == classes.mount_options_of(OWN)
    assert settings.parameters == classes.parameters_of(OWN)


@pytest.mark.parametrize(
    ("unusable", "error"),
    [
        (storage_class({"colour": "red"}), UnknownParameter),
        (storage_class({"mode": "x"}), InvalidParameter),
        (structs.replace(storage_class(), mount_options=("nfsvers=7",)), InvalidMountOption),
    ],
)
def test_unusable(unusable: StorageClass, error: type[Exception]) -> None:
    """A class that cannot be used raises the error for its first problem."""
    with pytest.raises(error):
        classes.settings_of(unusable, DEFAULT)


def test_equal_classes_are_parsed_once() -> None:
    """Equal parameters and mount options give the same objects; a changed class gets its own."""
    first, again = (classes.settings_of(storage_class({"mode": "0700"}), None) for _ in range(2))
    assert first.parameters is again.parameters
    assert first.mount_options is again.mount_options
    assert classes.parameters_of(storage_class({"mode": "0750"})).access.mode == 0o750

"""A StorageClass, parsed: its parameters, its export and its mount options, each read in this one place.

Each function raises InvalidSettings (UnknownParameter, InvalidParameter or InvalidMountOption) if the class cannot be
used.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core import mount_options, parameters
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass
from provisioner.core.parameters import ClassParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSettings:
    """A StorageClass, parsed."""

    parameters: ClassParameters
    mount_options: MountOptions
    export: Location | None
    """The class's own export, else the default export; None if there is neither."""


def settings_of(storage_class: StorageClass, default_export: Location | None) -> ClassSettings:
    """Parse a whole class: first its parameters, then its mount options."""
    parsed = parameters_of(storage_class)
    return ClassSettings(
        parameters=parsed,
        mount_options=mount_options_of(storage_class),
        export=parsed.export or default_export,
    )


def parameters_of(storage_class: StorageClass) -> ClassParameters:
    """Parse the parameters of a class."""
    return parameters.parse(storage_class.parameters)


def export_of(storage_class: StorageClass, default_export: Location | None) -> Location | None:
    """Return the export of a class's volumes.

    Return None if the class names none and there is no default export.
    """
    return parameters_of(storage_class).export or default_export


def mount_options_of(storage_class: StorageClass) -> MountOptions:
    """Parse the mount options of a class."""
    return mount_options.parse(storage_class.mount_options)

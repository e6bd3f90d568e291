"""A StorageClass, parsed: its parameters, its export and its mount options, each read in this one place.

Each function raises InvalidSettings (UnknownParameter, InvalidParameter or InvalidMountOption) if the class cannot be
used. Thousands of claims can name one class, so the results for equal texts are kept; errors are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from provisioner.core import mount_options, parameters
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass
from provisioner.core.parameters import ClassParameters

_KEPT = 64
"""Number of results that are kept of each kind. Only admins write classes."""


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
    return _parameters(tuple(storage_class.parameters.items()))


def export_of(storage_class: StorageClass, default_export: Location | None) -> Location | None:
    """Return the export of a class's volumes.

    Return None if the class names none and there is no default export.
    """
    return parameters_of(storage_class).export or default_export


def mount_options_of(storage_class: StorageClass) -> MountOptions:
    """Parse the mount options of a class."""
    return _mount_options(storage_class.mount_options)


@lru_cache(maxsize=_KEPT)
def _parameters(items: tuple[tuple[str, str], ...]) -> ClassParameters:
    return parameters.parse(dict(items))


@lru_cache(maxsize=_KEPT)
def _mount_options(options: tuple[str, ...]) -> MountOptions:
    return mount_options.parse(options)

"""The exports that we serve, by location."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from provisioner.core.locations import Location, Path
from provisioner.ports import Cause, Export, ExportError


class ConfiguredExports:
    """The `Exports` port over a fixed set: those of `--export` and of NFS_SERVER and NFS_PATH."""

    def __init__(self, exports: Mapping[Location, Export], default: Location | None) -> None:
        self._exports = dict(exports)
        self._default = default

    @property
    def default(self) -> Location | None:
        """The export of classes that name none."""
        return self._default

    def __iter__(self) -> Iterator[Export]:
        """All exports."""
        return iter(self._exports.values())

    def at(self, location: Location) -> Export:
        """The export at a location. Raises ExportError(NOT_CONFIGURED) with what to change."""
        try:
            return self._exports[location]
        except KeyError:
            hint = f"add --export {location}=DIRECTORY, where DIRECTORY is where it is mounted"
            raise ExportError(Cause.NOT_CONFIGURED, str(location), hint=hint) from None

    def holding(self, server: str, path: str) -> tuple[Export, Path] | None:
        """The export that an absolute path on a server lies on, the deepest one where they nest."""
        found: tuple[Export, Path] | None = None
        for location, export in self._exports.items():
            below = location.relative(server, path)
            if below is not None and (found is None or len(below) < len(found[1])):
                found = export, below
        return found

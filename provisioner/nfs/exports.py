"""The exports that we serve: those mounted for us by location, all others by location and port, as we meet them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from provisioner.core import mount_options, names
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location, Path, location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import NfsSource, Volume
from provisioner.ports import Cause, Export, ExportError

Reach = Callable[[Location, MountOptions], Export]
"""Makes the export that is reached by our own client. Raises InvalidSettings."""


class ServedExports:
    """The `Exports` port.

    One export is one object, whichever class or volume names it, so that it has one ledger in memory. Two servers that
    differ in nothing but their port are two.
    """

    def __init__(self, mounted: Mapping[Location, Export], default: Location | None, reach: Reach) -> None:
        self._mounted = dict(mounted)
        self._default = default
        self._reach = reach
        self._direct: dict[tuple[Location, int | None], Export] = {}

    @property
    def default(self) -> Location | None:
        """The export of classes that name none."""
        return self._default

    def __iter__(self) -> Iterator[Export]:
        """All exports, configured or met so far."""
        return iter([*self._mounted.values(), *self._direct.values()])

    def at(self, location: Location, options: MountOptions) -> Export:
        """The export at a location. Raises ExportError with a hint where it cannot be reached as the options say."""
        mounted = self._mounted.get(location)
        if mounted is not None:
            return mounted
        if options.kerberos:
            hint = f"we do not speak Kerberos: have it mounted for us, and give --export {location}=DIRECTORY"
            raise ExportError(Cause.KERBEROS, hint=hint)
        key = (location, options.port)
        if key not in self._direct:
            try:
                self._direct[key] = self._reach(location, options)
            except InvalidSettings as exc:
                raise ExportError(Cause.VERSION, hint=str(exc)) from exc
        return self._direct[key]

    def of(self, volume: Volume) -> tuple[Export, Path] | None:
        """The export that a volume lies on: a mounted one, or the one that is left when its directory is taken off."""
        source = volume.spec.nfs
        if source is None:
            return None
        return self._of_mounted(source) or self._of_direct(volume, source)

    def _of_mounted(self, source: NfsSource) -> tuple[Export, Path] | None:
        found: tuple[Export, Path] | None = None
        for where, export in self._mounted.items():
            below = where.relative(source.server, source.path)
            if below is not None and (found is None or len(below) < len(found[1])):
                found = export, below  # the deepest one where they nest
        return found

    def _of_direct(self, volume: Volume, source: NfsSource) -> tuple[Export, Path] | None:
        directory = volume.metadata.annotations.get(names.DIRECTORY, "")
        root = source.path.removesuffix(f"/{directory}")
        if not directory or root == source.path:
            return None
        try:
            export = self.at(location(source.server, root or "/"), mount_options.parse(volume.spec.mount_options))
        except (InvalidSettings, ExportError):
            return None
        return export, tuple(directory.split("/"))

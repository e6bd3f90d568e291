"""All exports of the process.

Mounted ones are found by location, the others by location and port, as classes and volumes name them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from provisioner.core import mount_options, names
from provisioner.core.errors import InvalidSettings
from provisioner.core.ledgers import Ledger
from provisioner.core.locations import NFS_PORT, Location, RelPath, location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import NfsSource, Volume
from provisioner.core.places import Places
from provisioner.core.recovery import Place
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError

SetRoutes = Callable[[Sequence[MountOptions]], None]
"""Sets the mount options by which a tree reaches its server, to try in turn until one set works."""
Reach = Callable[[Location, MountOptions], tuple[Export, SetRoutes]]
"""Returns an export over the project's own NFS client, and what sets its routes. Raises InvalidSettings."""


@dataclass(slots=True)
class _Direct:
    """An export that the project's own NFS client reaches."""

    export: Export
    set_routes: SetRoutes
    routes: list[MountOptions]
    """The mount options to try, in this order."""
    by_class: bool
    """Whether a class has named them. Options that only a volume names can be forged by anyone who may create one."""

    def add_mount_options(self, options: MountOptions) -> None:
        """Add mount options from a StorageClass.

        They replace options from a volume, and are tried first, until one set works. Then the set stays: another class
        that asks for what the server does not support must not break the working route.
        """
        if not self.by_class:
            routes = [options]
        elif not self.export.id and options not in self.routes:
            routes = [options, *self.routes]
        else:
            return
        self.by_class = True
        if routes != self.routes:
            self.routes = routes
            self.set_routes(routes)


class ExportRegistry:
    """All exports of the process.

    One export is one object, whichever class or volume names it, so that it has one ledger in memory. Two servers that
    differ only in their port are two exports. Two names of one export are two objects until both have been opened.
    """

    def __init__(self, mounted: Mapping[Location, Export], default: Location | None, reach: Reach) -> None:
        self._mounted = dict(mounted)
        self._default = default
        self._reach = reach
        self._direct: dict[tuple[Location, int], _Direct] = {}
        self._primary: dict[Export, Export] = {}
        self._places = Places()

    @property
    def default(self) -> Location | None:
        """The export of classes that do not name one."""
        return self._default

    def __iter__(self) -> Iterator[Export]:
        """Iterate over all exports that settings, classes and volumes have named so far."""
        met = [*self._mounted.values(), *(known.export for known in self._direct.values())]
        return iter(dict.fromkeys(map(self.primary, met)))

    @property
    def places(self) -> Places:
        """Which locations lead to the same export, as far as is known."""
        return self._places

    def primary(self, export: Export) -> Export:
        """Return the object that stands for an export.

        That is the export itself, or the one that it was united with.
        """
        return self._primary.get(export, export)

    def unite(self, alias: Export, primary: Export) -> None:
        """Note that two objects are one export: from now on `primary` stands for it."""
        self._primary[alias] = primary
        self._places.unite(primary.location, alias.location)

    def get(self, location: Location, options: MountOptions) -> Export:
        """Return the export at a location.

        One that is not mounted is reached with these mount options. Raises ExportError, with a hint, if the options ask
        for what the NFS client does not support.
        """
        return self.primary(self._at(location, options, by_class=True))

    def at(self, location: Location) -> Export:
        """Return the export at a location, reached as the StorageClasses say that name it. Raises ExportError."""
        if location not in self._mounted:
            for (where, _), known in self._direct.items():
                if where == location and known.by_class:
                    return self.primary(known.export)
        return self.get(location, MountOptions())

    def _at(self, location: Location, options: MountOptions, *, by_class: bool) -> Export:
        mounted = self._mounted.get(location)
        if mounted is not None:
            return mounted
        refusal = _unsupported(location, options)
        if refusal is not None:
            raise refusal
        key = (location, options.port or NFS_PORT)
        known = self._direct.get(key)
        if known is None:
            try:
                export, set_routes = self._reach(location, options)
            except InvalidSettings as exc:
                raise ExportError(Cause.VERSION, hint=str(exc)) from exc
            known = self._direct[key] = _Direct(export, set_routes, [options], by_class)
        if by_class:
            known.add_mount_options(options)
        return known.export

    def locate(self, volume: Volume) -> tuple[Export, RelPath] | None:
        """Return the export that a volume lies on, and its directory there, or None.

        A volume of nfs-provisioner names its directory in an annotation: the rest of the NFS path is the export.
        A volume of another provisioner does not, so it has to lie on an export that a setting or a class names.
        """
        source = volume.spec.nfs
        if source is None:
            return None
        if not volume.is_marked:
            located = _deepest([*self._mounted.items(), *self._named_at_port(volume)], source)
        else:
            located = _deepest(self._mounted.items(), source) or self._of_direct(volume, source)
            # The annotation can have been changed or removed: the ledger of the export knows the directory.
            located = located or _deepest(self._named_at_port(volume), source)
        return None if located is None else (self.primary(located[0]), located[1])

    def obstacle(self, volume: Volume) -> str:
        """Return why a volume's mount options do not lead to its server, and what to change.

        Empty if they do.
        """
        source = volume.spec.nfs
        if source is None:
            return ""
        try:
            refusal = _unsupported(location(source.server, source.path), mount_options.parse(volume.spec.mount_options))
        except InvalidSettings as exc:
            return str(exc)
        return "" if refusal is None else f"{refusal}: {refusal.advice}"

    def forget(self, export: Export) -> None:
        """Remove an export that nothing names any more.

        A mounted one, which the settings name, stays.
        """
        self._direct = {key: known for key, known in self._direct.items() if self.primary(known.export) is not export}
        self._primary = {alias: primary for alias, primary in self._primary.items() if primary is not export}
        self._places.part(export.location)

    def _named_at_port(self, volume: Volume) -> list[tuple[Location, Export]]:
        """Return the exports that classes name at the port to which a volume's nodes go."""
        try:
            options = mount_options.parse(volume.spec.mount_options)
        except InvalidSettings:
            return []
        if options.kerberos or options.encryption:
            return []  # nothing of it must pass in clear text
        port = options.port or NFS_PORT
        return [(where, known.export) for (where, at), known in self._direct.items() if known.by_class and at == port]

    def _of_direct(self, volume: Volume, source: NfsSource) -> tuple[Export, RelPath] | None:
        """Return the export that is left of a volume's NFS path without its directory."""
        directory = volume.metadata.annotations.get(names.DIRECTORY, "")
        root = source.path.removesuffix(f"/{directory}")
        if not directory or root == source.path:
            return None
        try:
            options = mount_options.parse(volume.spec.mount_options)
            export = self._at(location(source.server, root or "/"), options, by_class=False)
        except (InvalidSettings, ExportError):
            return None
        return export, tuple(directory.split("/"))


def ledger_of(export: Export, places: Places) -> Ledger:
    """Return an export's ledger as a value for core, as far as it has been read."""
    return Ledger(
        place=Place(
            name=export.name,
            location=export.location,
            id=export.id,
            locations=places.same(export.location),
            folds=export.folds,
        ),
        records=export.records,
        pending=export.pending,
        unreadable=export.unreadable,
        foreign=export.foreign,
    )


def _unsupported(location: Location, options: MountOptions) -> ExportError | None:
    """Return the error for mount options that the NFS client does not support.

    It never falls back to clear text.
    """
    way = f"mount it for the provisioner (access: mounted in the chart, or --export {location}=DIRECTORY)"
    if options.kerberos:
        return ExportError(Cause.KERBEROS, hint=f"the provisioner's own NFS client does not support Kerberos: {way}")
    if options.encryption:
        hint = f"mount option {options.encryption}: the provisioner's own NFS client does not encrypt: {way}"
        return ExportError(Cause.TRANSPORT, hint=hint)
    if options.transport:
        hint = f"mount option {options.transport}: the provisioner's own NFS client speaks TCP to the server: {way}"
        return ExportError(Cause.TRANSPORT, hint=f"{hint}, or remove that option")
    return None


def _deepest(exports: Iterable[tuple[Location, Export]], source: NfsSource) -> tuple[Export, RelPath] | None:
    """Return the innermost export that a directory is on, and its path below the root."""
    found: tuple[Export, RelPath] | None = None
    for where, export in exports:
        below = where.relative(source.server, source.path)
        if below is not None and (found is None or len(below) < len(found[1])):
            found = export, below
    return found

"""What the reflectors know of the cluster: our claims, volumes on NFS, classes, and who has which directory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

from provisioner.core import ledgers, names
from provisioner.core.locations import Location, RelPath, normal_server
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.paths import PathIndex
from provisioner.core.places import Places
from provisioner.ports.cluster import AnyItem, Kind
from provisioner.runtime.supervision import Count, Shield
from provisioner.runtime.transform import CacheTransform

Listener = Callable[[Kind, AnyItem | None, AnyItem | None], None]
"""Called after each change with the kind, what was there before and what is there now."""


class Store:
    """A cache that is read-only to all but the reflectors; a replica that waits keeps it warm.

    Of claims only those that the cluster handed to us are kept, of volumes only those of NFS and of csi-driver-nfs.
    """

    def __init__(self, provisioner: str, *, count: Count = lambda loop: None) -> None:
        """`count` is called for each unexpected error of a listener: it keeps the news from no other one."""
        self._provisioner = provisioner
        self._count = count
        self.claims: dict[str, Claim] = {}
        """By uid: a claim that is made anew under its name is another one."""
        self.volumes: dict[str, Volume] = {}
        self.classes: dict[str, StorageClass] = {}
        self._by_kind: dict[Kind, dict[str, AnyItem]] = {
            "claims": cast(dict[str, AnyItem], self.claims),
            "volumes": cast(dict[str, AnyItem], self.volumes),
            "classes": cast(dict[str, AnyItem], self.classes),
        }
        self.places = Places()
        """Which locations lead to one export: whoever has a directory by one of them has it by all."""
        self._paths: dict[str, PathIndex] = {}
        self._folded: dict[str, PathIndex] = {}
        """The same with names folded, of servers that have been asked for so."""
        self._slimmer = CacheTransform()
        self._synced: set[Kind] = set()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call the listener for each item that is there, and after each change."""
        for kind, cache in self._by_kind.items():
            for item in list(cache.values()):
                self._tell(listener, kind, None, item)
        self._listeners.append(listener)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """The same while the context is open."""
        self.listen(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @property
    def missing(self) -> list[Kind]:
        """The kinds that have not been listed yet: until there are none, nothing may be decided."""
        return [kind for kind in self._by_kind if kind not in self._synced]

    def replace(self, kind: Kind, items: Iterable[AnyItem]) -> None:
        """A list came in: what is not in it is gone."""
        listed = {self._key(kind, item): item for item in items}
        for key in self._by_kind[kind].keys() - listed.keys():
            self._put(kind, key, None)
        for key, item in listed.items():
            self._put(kind, key, item if self._wanted(item) else None)
        self._synced.add(kind)

    def apply(self, kind: Kind, item: AnyItem, *, deleted: bool) -> None:
        """One change came in."""
        self._put(kind, self._key(kind, item), item if not deleted and self._wanted(item) else None)

    def holder(
        self, export: Location, path: RelPath, *, other_than: str = "", passed: Collection[str] = ()
    ) -> Volume | None:
        """A volume that has a directory of an export, or one above or below it, and is none of those given.

        It may have it by any name of the export. Volumes of the whole export, as admins make them to look around in it,
        do not count.
        """
        folds = self.places.folds(export)
        for each in self.places.same(export):
            index = self._fold(each.server) if folds else self._paths.get(each.server)
            root = each.components
            skipped = (other_than, *passed)
            name = index.touching((*root, *path), other_than=skipped, below=len(root)) if index else None
            if name is not None:
                return self.volumes[name]
        return None

    def anywhere(self, export: Location, path: RelPath) -> Iterator[Volume]:
        """The volumes, on whatever server, of the absolute path of a directory, or one above or below it."""
        for each in self.places.same(export):
            absolute = (*each.components, *path)
            for server, written in list(self._paths.items()):
                index = self._fold(server) if self.places.folds(export) else written
                for name in index.all_touching(absolute):
                    yield self.volumes[name]

    def _fold(self, server: str) -> PathIndex:
        index = self._folded.get(server)
        if index is None:
            index = self._folded[server] = PathIndex(folds=True)
            for volume in self.volumes.values():
                source = volume.source
                if source is not None and normal_server(source.server) == server:
                    index.add(_components(source.path), volume.name)
        return index

    def has_volumes(self, export: Location) -> bool:
        """Whether the directory of any volume, ours or not, lies below an export's root."""
        places = [(self._paths.get(each.server), each.components) for each in self.places.same(export)]
        return any(index is not None and index.leads_on(components) for index, components in places)

    def on_export(self, export: Location) -> Iterator[Volume]:
        """The volumes whose directories lie below an export's root, by any name of the export."""
        places = self.places.same(export)
        for volume in self.volumes.values():
            source = volume.source
            if source is not None and any(each.relative(source.server, source.path) for each in places):
                yield volume

    def marked(self, export: Location) -> Iterator[Volume]:
        """The volumes of ours that are bound, lie on an export, as they say themselves, and carry an export id.

        One that is not bound, a forged one for instance, or one from a backup, must not keep an export from being used.
        """
        places = self.places.same(export)
        for volume in self.volumes.values():
            if volume.status.phase == "Bound" and ledgers.is_marked_on(volume, places, self._provisioner):
                yield volume

    def _key(self, kind: Kind, item: AnyItem) -> str:
        return item.metadata.uid if kind == "claims" else item.metadata.name

    def _wanted(self, item: AnyItem) -> bool:
        if isinstance(item, Claim):
            return item.is_for(self._provisioner) or _was_matched(item)
        return not isinstance(item, Volume) or item.source is not None

    def _put(self, kind: Kind, key: str, item: AnyItem | None) -> None:
        cache: dict[str, AnyItem] = self._by_kind[kind]
        before = cache.get(key)
        if isinstance(item, Claim):
            item = self._slimmer.claim(item)
        elif isinstance(item, Volume):
            item = self._slimmer.volume(item)
        if item is None:
            cache.pop(key, None)
        else:
            cache[key] = item
        if before is None and item is None:
            return
        if kind == "volumes":
            self._index(cast(Volume | None, before), cast(Volume | None, item))
        for listener in list(self._listeners):
            self._tell(listener, kind, before, item)

    def _tell(self, listener: Listener, kind: Kind, before: AnyItem | None, after: AnyItem | None) -> None:
        item = after or before
        with Shield("listener", self._count, kind=kind, name=item.metadata.name if item is not None else None):
            listener(kind, before, after)

    def _index(self, before: Volume | None, after: Volume | None) -> None:
        # A volume's source never changes, but a volume of one name may follow another one.
        if before is not None and after is not None and before.source == after.source:
            return
        for volume, enter in ((before, False), (after, True)):
            source = volume.source if volume is not None else None
            if volume is None or source is None:
                continue
            server = normal_server(source.server)
            index = self._paths.setdefault(server, PathIndex())
            for each in (index, self._folded.get(server)):
                if each is not None:
                    change = each.add if enter else each.remove
                    change(_components(source.path), volume.name)
            if not index:
                del self._paths[server]
                self._folded.pop(server, None)


def _was_matched(claim: Claim) -> bool:
    """Whether no provisioner was asked: its volume was there, as one that was recovered is, and may be of ours."""
    asked = any(key in claim.metadata.annotations for key in names.PROVISIONER_ANNOTATIONS)
    return bool(claim.spec.volume_name) and not asked


def _components(path: str) -> RelPath:
    return tuple(part for part in path.split("/") if part)

"""The cluster as the daemon knows it.

Its claims, volumes on NFS, classes, and which volume uses which directory.

The informers hold the objects. On top of them, an index of directories by server answers which volumes use a directory,
or one above or below it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from provisioner.core import ledgers, names
from provisioner.core.locations import Location, RelPath, normal_server
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.paths import PathIndex
from provisioner.core.places import Places
from provisioner.ports.cluster import Kind
from provisioner.runtime.informer import Informer
from provisioner.runtime.supervision import Count
from provisioner.runtime.transform import CacheTransform


class ClusterCache:
    """Informers of all kinds, and the index of directories over the volumes.

    Of claims only those are cached that the cluster assigned to this provisioner, of volumes only those of NFS and of
    csi-driver-nfs.
    """

    def __init__(self, provisioner: str, *, places: Places | None = None, count: Count = lambda loop: None) -> None:
        """`places` are those of the registry: a volume is found by all locations of its export.

        `count` is called for each unexpected error of a subscriber.
        """
        self._provisioner = provisioner
        transform = CacheTransform()
        self.claims = Informer[Claim](
            "claims",
            # By uid: a claim that is deleted and created again under its name is another one.
            key=lambda claim: claim.uid,
            is_wanted=self._is_wanted_claim,
            transform=transform.claim,
            count=count,
        )
        self.volumes = Informer[Volume](
            "volumes",
            key=lambda volume: volume.name,
            is_wanted=lambda volume: volume.source is not None,
            transform=transform.volume,
            index=self._index,
            count=count,
        )
        self.classes = Informer[StorageClass]("classes", key=lambda storage_class: storage_class.name, count=count)
        self.informers = (self.claims, self.volumes, self.classes)
        self.places = Places() if places is None else places
        self._paths: dict[str, PathIndex] = {}
        """Directories by server, then the names of the volumes that use them."""
        self._folded: dict[str, PathIndex] = {}
        """The same with names folded, for servers that have been asked for in this way."""

    @property
    def missing(self) -> list[Kind]:
        """The kinds that have not been listed yet: while there are any, nothing may be decided."""
        return [informer.kind for informer in self.informers if not informer.synced]

    # ------------------------------------------------------------------------------------------- who uses a directory

    def holder(
        self, export: Location, path: RelPath, *, other_than: str = "", passed: Collection[str] = ()
    ) -> Volume | None:
        """A volume that uses a directory of an export, or one above or below it.

        Returns None if there is none. `other_than` and `passed` are the names of volumes that do not count. The volume
        may use the directory by any name of the export. Volumes of the whole export, which admins create to look around
        in it, do not count.
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
        """The volumes on any server with a directory's absolute path, or one above or below it."""
        for each in self.places.same(export):
            absolute = (*each.components, *path)
            for server, written in list(self._paths.items()):
                index = self._fold(server) if self.places.folds(export) else written
                for name in index.all_touching(absolute):
                    yield self.volumes[name]

    def has_volumes(self, export: Location) -> bool:
        """Whether the directory of any volume, of any provisioner, lies below an export's root."""
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
        """The Bound volumes of this provisioner on an export that carry an export id.

        All of this is judged by their annotations. A volume that is not Bound, such as a forged one or one from a
        backup, must not keep an export from being used.
        """
        places = self.places.same(export)
        for volume in self.volumes.values():
            if volume.status.phase == "Bound" and ledgers.is_marked_on(volume, places, self._provisioner):
                yield volume

    # ------------------------------------------------------------------------------------------- keeping the index

    def _is_wanted_claim(self, claim: Claim) -> bool:
        return claim.is_for(self._provisioner) or _was_matched(claim)

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

    def _fold(self, server: str) -> PathIndex:
        """The index of a server with names folded.

        Built when first asked for, kept up to date from then on.
        """
        index = self._folded.get(server)
        if index is None:
            index = self._folded[server] = PathIndex(folds=True)
            for volume in self.volumes.values():
                source = volume.source
                if source is not None and normal_server(source.server) == server:
                    index.add(_components(source.path), volume.name)
        return index


def _was_matched(claim: Claim) -> bool:
    """Whether the cluster bound a claim to an existing volume without asking any provisioner.

    Recovered volumes are bound in this way.
    """
    asked = any(key in claim.metadata.annotations for key in names.PROVISIONER_ANNOTATIONS)
    return bool(claim.spec.volume_name) and not asked


def _components(path: str) -> RelPath:
    return tuple(part for part in path.split("/") if part)

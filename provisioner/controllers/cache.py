"""The daemon's view of the cluster: claims, NFS volumes, classes, and which volume uses which directory.

The informers hold the objects. On top of them, an index of directories by server answers which volumes use a directory,
or one above or below it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from provisioner.core import ledgers, names
from provisioner.core.directories import DirectoryIndex
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, Snapshot, SnapshotClass, SnapshotContent, StorageClass, Volume
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

    def __init__(
        self,
        provisioner: str,
        *,
        places: Places | None = None,
        count: Count = lambda loop: None,
        with_snapshots: bool = False,
    ) -> None:
        """Keep VolumeSnapshots up to date only `with_snapshots`.

        `places` are those of the registry: a volume is found by all locations of its export.

        `count` is called for each unexpected error of a subscriber.
        """
        self._provisioner = provisioner
        # Lists of claims and volumes come side by side: also those that are still on their way share their texts.
        transform = CacheTransform(
            claim=lambda uid: self.claims.newest(uid), volume=lambda name: self.volumes.newest(name)
        )
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
        self.snapshots = Informer[Snapshot]("snapshots", key=lambda snapshot: snapshot.uid, count=count)
        self.snapshot_contents = Informer[SnapshotContent](
            "snapshot_contents",
            key=lambda content: content.name,
            is_wanted=lambda content: content.spec.driver == provisioner,
            count=count,
        )
        self.snapshot_classes = Informer[SnapshotClass](
            "snapshot_classes", key=lambda snapshot_class: snapshot_class.name, count=count
        )
        self.with_snapshots = with_snapshots
        of_snapshots = (self.snapshots, self.snapshot_contents, self.snapshot_classes)
        self.informers: tuple[Informer[Any], ...] = (
            self.claims,
            self.volumes,
            self.classes,
            *(of_snapshots if with_snapshots else ()),
        )
        self.places = Places() if places is None else places
        """Which locations lead to one export: a volume that uses a directory by one of them uses it by all."""
        self._directories = DirectoryIndex()
        """The directories of the volumes, each with the name of the volume that uses it."""

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
        name = self._directories.holder(
            self.places.same(export), path, folds=self.places.folds(export), other_than=(other_than, *passed)
        )
        return self.volumes[name] if name is not None else None

    def anywhere(self, export: Location, path: RelPath) -> Iterator[Volume]:
        """Volumes on any server whose absolute path is this directory, or one above or below it."""
        found = self._directories.anywhere(self.places.same(export), path, folds=self.places.folds(export))
        return (self.volumes[name] for name in found)

    def has_volumes(self, export: Location) -> bool:
        """Whether the directory of any volume, of any provisioner, lies below an export's root."""
        return self._directories.has_below(self.places.same(export))

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
        for volume, change in ((before, self._directories.remove), (after, self._directories.add)):
            if volume is not None and volume.source is not None:
                change(volume.source.server, volume.source.path, volume.name)


def _was_matched(claim: Claim) -> bool:
    """Whether the cluster bound a claim to an existing volume without asking any provisioner.

    Recovered volumes are bound in this way.
    """
    asked = any(key in claim.metadata.annotations for key in names.PROVISIONER_ANNOTATIONS)
    return bool(claim.spec.volume_name) and not asked

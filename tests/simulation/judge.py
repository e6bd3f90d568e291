"""The invariants: those that hold after every single call, and those that hold once everything is at rest."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from provisioner.core import names
from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidRecord
from provisioner.core.groups import gid_in, gid_of
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim, Volume
from provisioner.core.parameters import parse
from provisioner.core.paths import LEDGER
from provisioner.core.records import OnDelete, Record, decode, milder
from provisioner.core.returned import volume_of
from provisioner.core.volumes import cloned_message
from provisioner.ledger import layout
from provisioner.ledger.groups import volume_in
from provisioner.ledger.layout import BEGUN
from provisioner.ports.cluster import AnyItem, Kind
from tests.simulation.process import PROVISIONER
from tests.simulation.versions import Versions
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import Directory, MemoryTree, Node, Symlink

ARCHIVED = "archived-"
TRASH = (LEDGER, "trash")


@dataclass(slots=True, eq=False)
class Home:
    """The directory of one volume, identified as an object: after a rename it is still the same."""

    volume: str
    namespace: str
    claim_uid: str
    cluster: MemoryCluster
    location: Location
    path: RelPath
    directory: Directory
    rule: OnDelete
    keep_s: float = math.inf
    """How long its archive is kept."""
    archived_s: float | None = None
    """When it became an archive."""
    kept: dict[str, Node] = field(default_factory=dict)
    """The entries that its tenants have written, and those of the source that it is a clone of."""
    versions: Versions = field(default_factory=Versions)
    """All of that over time."""
    used: bool = False
    """Whether its claim was bound while it was not being deleted."""
    claim_gone: bool = False
    namespace_uid: str = ""
    followed: bool = False
    """Whether a later volume has taken the directory over, as it may."""
    gid: int = 0
    """The group that the volume names; 0 if it names none."""
    away: RelPath | None = None
    """Where the directory had been moved when etcd went back in time: it stays there, or comes back."""

    def __str__(self) -> str:
        return f"volume {self.volume} ({self.rule}, {'/'.join(self.path)} on {self.location})"


class Judge:
    """Watches clusters and trees, and collects violations of the invariants."""

    def __init__(self, trees: dict[Location, MemoryTree], *, is_parent: Callable[[RelPath], bool]) -> None:
        """`is_parent` returns True for directories on the way to volumes, which may stay when empty."""
        self._is_parent = is_parent
        self.violations: list[str] = []
        self.homes: list[Home] = []
        self.reported: set[str] = set()
        """Volumes that were reported as orphans."""
        self.forced: set[str] = set()
        """Volumes that were removed by force, including their finalizers."""
        self.copies: set[str] = set()
        """The uids of volumes that were applied from a backup, under a name that existed before."""
        self.by_hand: set[str] = set()
        """The names of manually created volumes: their directories are no homes."""
        self.rivalry = False
        """Whether two processes can have wanted one directory at the same time.

        Then an empty directory without a record may stay, since neither process may remove a directory of the other.
        """
        self._trees = trees
        self._clusters: list[MemoryCluster] = []
        self._seen: set[tuple[int, str, str]] = set()
        """Clusters, namespaces, and the volumes that claims there have had, perhaps from a backup."""
        self._claims: dict[str, Claim] = {}
        self._strangers: list[tuple[Location, RelPath, Directory, dict[str, Node]]] = []
        self._places: dict[Location, dict[int, RelPath]] = {location: {} for location in trees}
        self._displaced: tuple[Location, RelPath, str] | None = None
        self._copies: dict[tuple[Location, str], tuple[float, Directory]] = {}
        """When each copy was begun, with its directory, by its name in `copies`."""
        self.checks: list[Callable[[], None]] = []
        """Further invariants that hold at any time."""
        self.rests: list[Callable[[], Iterator[str]]] = []
        """Further ones that hold at rest."""
        self.restored: Callable[[str, Directory], Iterator[str]] = lambda *_: iter(())
        """Yields what is wrong with a directory that was restored from a snapshot."""

    def watch(self, cluster: MemoryCluster) -> None:
        """Watch a cluster from now on."""
        self._clusters.append(cluster)
        cluster.listeners.append(lambda kind, before, after: self._changed(cluster, kind, before, after))

    def stranger(self, location: Location, path: RelPath) -> None:
        """From now on this directory and its entries must not change."""
        directory = self._trees[location].look(path)
        assert isinstance(directory, Directory)
        self._strangers.append((location, path, directory, dict(directory.entries)))

    def displace(self, location: Location, path: RelPath, aside: str) -> None:
        """A tenant moves a directory to the root under the name `aside`; for the judge it stays where it was."""
        self._displaced = (location, path, aside)
        self.find_homes()
        self._note_displaced(location, path, there=False)

    def replaced(self) -> None:
        """The displaced directory is back."""
        assert self._displaced is not None
        location, path, _ = self._displaced
        self._displaced = None
        self.find_homes()
        self._note_displaced(location, path, there=True)

    def _note_displaced(self, location: Location, path: RelPath, *, there: bool) -> None:
        """A copy that reads by paths finds nothing in a directory that is displaced."""
        for home in self.homes:
            if home.location == location and home.path[: len(path)] == path:
                for name, node in home.directory.entries.items():
                    home.versions.replace(asyncio.get_running_loop().time(), name, node if there else None)

    def at(self, location: Location, path: RelPath) -> Node | None:
        """The node at a path, as if nothing were displaced."""
        if self._displaced is not None:
            where, prefix, aside = self._displaced
            if where == location and path[: len(prefix)] == prefix:
                path = (aside, *path[len(prefix) :])
        return self._trees[location].look(path)

    def _as_placed(self, location: Location, path: RelPath) -> RelPath:
        if self._displaced is not None:
            where, prefix, aside = self._displaced
            if where == location and path[:1] == (aside,):
                return (*prefix, *path[1:])
        return path

    def blame(self, what: str) -> None:
        """Record a violation."""
        self.violations.append(what)

    def home_of(self, claim: Claim) -> Home | None:
        """The directory of a claim."""
        return next((home for home in self.homes if home.claim_uid == claim.uid), None)

    def rebound(self, volume: str, claim: Claim) -> None:
        """An admin binds a volume to another claim, which owns the directory from now on."""
        for home in self.homes:
            if home.volume == volume:
                home.claim_uid, home.namespace, home.claim_gone = claim.uid, claim.metadata.namespace, False
                home.namespace_uid = _namespace_uid(home.cluster, home.namespace)
        self.check()

    def went_back(self, cluster: MemoryCluster) -> None:
        """The etcd of a cluster was restored from a backup, without any event about the changes."""
        self._claims = {claim.uid: claim for each in self._clusters for claim in each.claims()}
        for home in self.homes:
            if home.cluster is not cluster:
                continue
            home.claim_gone = home.claim_uid not in self._claims
            where = self.where(home)
            if cluster.volume(home.volume) is None:
                self.forced.add(home.volume)
            elif where is None or not _whole(home):
                home.followed = True  # it was destroyed before, as intended
            else:
                home.away = where if where != home.path else None
        self.check()

    def where(self, home: Home) -> RelPath | None:
        """The present path of a volume's directory; None if it is gone."""
        return self._places[home.location].get(id(home.directory)) or self._now(home)

    def put(self, home: Home, name: str, node: Node) -> None:
        """A tenant writes an entry into the directory of a volume."""
        home.directory.entries[name] = node
        home.kept[name] = node
        self.note(home, name)

    def drop(self, home: Home, name: str) -> None:
        """A tenant removes an entry, with all that is in it."""
        del home.directory.entries[name], home.kept[name]
        self.note(home, name)

    def note(self, home: Home, name: str) -> None:
        """A tenant has changed an entry, or what is in it."""
        node, now_s = home.directory.entries.get(name), asyncio.get_running_loop().time()
        home.versions.replace(now_s, name, node)

    # ------------------------------------------------------------------------------------------- what changed

    def _changed(self, cluster: MemoryCluster, kind: Kind, before: AnyItem | None, after: AnyItem | None) -> None:
        if kind == "claims":
            claim = after or before
            assert isinstance(claim, Claim)
            if after is None:
                del self._claims[claim.uid]
            else:
                self._claims[claim.uid] = claim
            for home in self.homes:
                if home.claim_uid == claim.uid:
                    home.claim_gone = after is None
                    home.used |= claim.status.phase == "Bound" and not claim.metadata.deletion_timestamp
        elif before is None and isinstance(after, Volume) and after.is_by(PROVISIONER):
            if after.spec.claim_ref is not None:
                self._seen.add((id(cluster), after.spec.claim_ref.namespace, after.name))
            self._made(cluster, after)

    def _made(self, cluster: MemoryCluster, volume: Volume) -> None:
        """A volume was created: its directory is a home from now on."""
        located, reference = self._locate(volume), volume.spec.claim_ref
        if located is None or reference is None:
            return
        location, path = located
        known = any((home.volume, home.claim_uid) == (volume.name, reference.uid) for home in self.homes)
        if known or volume.name in self.by_hand:
            self.copies.add(volume.metadata.uid)
            return
        directory = self.at(location, path)
        storage_class = cluster.storage_class(volume.spec.storage_class_name)
        if not isinstance(directory, Directory) or storage_class is None:
            if reference.uid in self._claims:
                self.blame(f"volume {volume.name} was created without a directory: {'/'.join(path)}")
            return
        keeps = volume.spec.persistent_volume_reclaim_policy != "Delete"
        parameters = parse(storage_class.parameters)
        rule: OnDelete = "retain" if keeps else parameters.on_delete
        home = Home(volume.name, reference.namespace, reference.uid, cluster, location, path, directory, rule)
        home.claim_gone = reference.uid not in self._claims
        home.namespace_uid = _namespace_uid(cluster, reference.namespace)
        home.keep_s = parse_s(parameters.retention) if parameters.retention else math.inf
        home.gid = gid_of(volume.metadata.annotations)
        self._check_group(home, is_asked=parameters.groups is not None)
        if any(directory is strange for _, _, strange, _ in self._strangers):
            self.blame(f"a stranger's directory was handed out: {home}")
        for other in self.homes:
            if other.directory is directory and other.volume != home.volume:
                self._follow(home, other)
            elif self._is_live(other) and self._is_live(home) and _touch(home, other):
                self.blame(f"two live claims share a directory: {home} and {other}")
        self.homes.append(home)
        self._check_clone(home)
        self.check()

    def _check_clone(self, home: Home) -> None:
        """A volume of a claim that asks for a clone has what the source had during the copy, file by file.

        From then on the clone's tenant has these entries.
        """
        claim = self._claims.get(home.claim_uid)
        source = claim.data_source if claim is not None else None
        if source is None or not (source.is_claim or source.is_snapshot):
            return
        location = self._first_name(home.location)
        record = _record_at(self._trees[location], (LEDGER, "pending", home.volume))
        if source.is_snapshot and record is not None:
            for wrong in self.restored(record.clone_of, home.directory):
                self.blame(f"a restored volume is wrong: {home}: {wrong}")
            self._keep_copied(home)
            return
        origin = next((each for each in self.homes if record is not None and each.volume == record.clone_of), None)
        begun = self._copies.get((location, f"{home.volume}.{record.copied}")) if record is not None else None
        if origin is None or begun is None:
            self.blame(f"a clone is no copy of its source: {home}, {record}")
            return
        for wrong in origin.versions.wrong(origin.directory, home.directory, begun[0]):
            self.blame(f"a clone is not as its source was: {home}: {wrong}")
        self._keep_copied(home)

    def _keep_copied(self, home: Home) -> None:
        for name, node in home.directory.entries.items():
            home.kept[name] = node
            self.note(home, name)

    def begun_s(self, data: Directory) -> float | None:
        """Return when the copy was begun that has become this directory; None if there was none."""
        return next((at_s for at_s, copy in self._copies.values() if copy.entries.get("tree") is data), None)

    def _check_sources(self) -> None:
        """The source of a copy that is not complete stays where it is.

        Of two leaders one can move it away while the other one begins the copy, which fails then.
        """
        if self.rivalry:
            return
        for location, tree in self._trees.items():
            for name, node in _entries(tree, (LEDGER, "pending")).items():
                record = _decoded(node.target)
                if record is None or not record.clone_of or record.copied:
                    continue
                origin = next((each for each in self.homes if each.volume == record.clone_of), None)
                if origin is not None and self._places[location].get(id(origin.directory), origin.path) != origin.path:
                    self.blame(f"the source of {name} was moved away during the copy: {origin}")

    def _check_group(self, home: Home, *, is_asked: bool) -> None:
        """No two directories of an export have one group, as long as both exist, and none lacks the one it names."""
        if home.gid and home.directory.gid != home.gid:
            self.blame(f"the directory has group {home.directory.gid}, and not {home.gid}: {home}")
        if not home.gid and is_asked and not home.directory.entries:
            self.blame(f"the volume has no group of its own: {home}")
        for other in self.homes if home.gid else ():
            same_export = self._trees[other.location] is self._trees[home.location]
            if same_export and other.gid == home.gid and other.directory is not home.directory and self.where(other):
                self.blame(f"two directories have group {home.gid}: {home} and {other}, {_text(self.where(other))}")

    def _first_name(self, location: Location) -> Location:
        """The first of the locations that lead to the same tree."""
        return next(first for first, tree in self._trees.items() if tree is self._trees[location])

    def _follow(self, home: Home, other: Home) -> None:
        """A directory is handed out again, by `existing: adopt` or by restoring an archive."""
        volume = other.cluster.volume(other.volume)
        if volume is not None and volume.metadata.uid in self.copies:
            volume = None  # another object
        reclaimed = volume is None or names.FINALIZER not in volume.metadata.finalizers
        if not other.claim_gone:
            self.blame(f"the directory of a live claim was handed out again: {other} to {home}")
        elif (other.cluster, other.namespace_uid) != (home.cluster, home.namespace_uid):
            self.blame(f"a directory was handed out to another namespace: {other} to {home}")
        elif not reclaimed or (volume is not None and not volume.metadata.deletion_timestamp):
            self.blame(f"the directory of an existing volume was handed out again: {other} to {home}")
        if other.rule == "archive":
            home.rule, home.keep_s = milder(home.rule, "archive"), max(home.keep_s, other.keep_s)
        other.followed = True
        home.kept |= other.kept
        home.versions.extend(other.versions)

    def _locate(self, volume: Volume) -> tuple[Location, RelPath] | None:
        nfs = volume.spec.nfs
        found: list[tuple[Location, RelPath]] = []
        for location in self._trees:
            path = location.relative(nfs.server, nfs.path) if nfs is not None else None
            if path:
                found.append((self._first_name(location), path))
        return min(found, key=lambda each: len(each[1]), default=None)

    # ------------------------------------------------------------------------------------------- after each call

    def find_homes(self) -> None:
        """Find the present paths of all directories: a tree may have changed."""
        for location, tree in self._trees.items():
            self._places[location] = {
                id(directory): self._as_placed(location, path) for path, directory in _walk((), tree.root)
            }
            copies = tree.look(layout.COPIES)
            for name, copy in copies.entries.items() if isinstance(copies, Directory) else ():
                if isinstance(copy, Directory):
                    self._copies.setdefault((location, name), (asyncio.get_running_loop().time(), copy))
        self.check()

    def check(self) -> None:
        """Check the invariants that hold at any time."""
        self._check_homes()
        self._check_sources()
        for check in self.checks:
            check()
        for location, path, directory, entries in self._strangers:
            if self.at(location, path) is not directory or directory.entries != entries:
                self.blame(f"{'/'.join(path)} on {location} is a stranger's, and was changed")

    def _check_homes(self) -> None:
        for home in self.homes:
            if home.followed:
                continue
            if self._is_live(home):
                where = self.where(home)
                if where == home.path:
                    home.away = None
                if where not in (home.path, home.away) or where is None:
                    self.blame(f"the directory of a live claim went to {_text(where)}: {home}")
                elif not _whole(home):
                    self.blame(f"bytes of a live claim are lost: {home}")
            elif home.kept and not (home.rule == "delete" and home.claim_gone):
                self._check_kept(home)

    def _now(self, home: Home) -> RelPath | None:
        """The path of a home that the last search has not seen yet."""
        return home.path if self.at(home.location, home.path) is home.directory else None

    def _check_kept(self, home: Home) -> None:
        """Check the data of a volume that was archived or retained, or whose claim still exists."""
        where = self._places[home.location].get(id(home.directory)) or self._now(home)
        archived = where is not None and len(where) == 1 and where[0].startswith(ARCHIVED)
        now_s = asyncio.get_running_loop().time()
        if archived and home.archived_s is None:
            home.archived_s = now_s
        lawful = where == home.path or (archived and home.rule == "archive" and home.claim_gone)
        if home.archived_s is not None and now_s >= home.archived_s + home.keep_s:
            return  # its retention is over: it may be gone
        if not lawful and not self._is_restored(home, where):
            self.blame(f"data that was to be kept went to {_text(where)}: {home}")
        elif not _whole(home):
            self.blame(f"bytes that were to be kept are lost: {home}")

    def _is_restored(self, home: Home, where: RelPath | None) -> bool:
        """Whether an archive lies where a record of the same namespace restores it for a claim."""
        for state in ("pending", "volumes"):
            for node in _entries(self._trees[home.location], (LEDGER, state)).values():
                record = _decoded(node.target)
                if record is not None and record.archive and (record.path, record.namespace) == (where, home.namespace):
                    return True
        return False

    def _is_live(self, home: Home) -> bool:
        """Whether a claim owns the directory: it exists, and was bound or will be."""
        claim = self._claims.get(home.claim_uid)
        if claim is None:
            return False
        return home.used or bool(home.kept) or not claim.metadata.deletion_timestamp

    # ------------------------------------------------------------------------------------------- at rest

    def unrest(self) -> list[str]:
        """The violations of the invariants that hold once everything is at rest."""
        return [*self._of_claims(), *self._of_volumes(), *self._of_homes(), *self._of_trees(), *self._of_events(),
                *(what for rest in self.rests for what in rest())]  # fmt: skip

    def _of_events(self) -> Iterator[str]:
        """No event on a claim may name a volume that its namespace never had in its cluster."""
        for cluster in self._clusters:
            for each in list(cluster.events.values()):
                about, message = each.event.about, each.event.message
                for home in self.homes:
                    own = (id(cluster), about.namespace, home.volume) in self._seen
                    # A claim may ask for an archive by its name, which can contain the volume's.
                    if about.namespace and not own and home.volume in message and ARCHIVED not in message:
                        yield f"an event on {about.namespace}/{about.name} reveals {home}: {message}"

    def _of_claims(self) -> Iterator[str]:
        for cluster in self._clusters:
            for claim in cluster.claims():
                if claim.metadata.deletion_timestamp:
                    yield f"claim {claim.key} is still being deleted"
                elif claim.status.phase == "Pending" and not _is_refused(cluster, claim):
                    yield f"claim {claim.key} ({claim.uid}) is pending, and no event says why"

    def _of_volumes(self) -> Iterator[str]:
        for cluster in self._clusters:
            for volume in cluster.volumes():
                located = self._locate(volume)
                if located is None or not volume.is_by(PROVISIONER) or self._is_held_up(cluster, volume):
                    continue
                kind = self._of_copy if volume.metadata.uid in self.copies else self._of_volume
                yield from kind(cluster, volume, *located)

    def _of_copy(self, cluster: MemoryCluster, volume: Volume, _location: Location, _path: RelPath) -> Iterator[str]:
        deletes = volume.spec.persistent_volume_reclaim_policy == "Delete"
        asks = volume.status.phase == "Released" and deletes and not self._has_claim(volume)
        if asks and not _warnings(cluster, volume):
            yield f"volume {volume.name} comes from a backup, and no event says why it stays"

    def _of_volume(self, cluster: MemoryCluster, volume: Volume, location: Location, path: RelPath) -> Iterator[str]:
        away = any(home.away and home.volume == volume.name for home in self.homes)
        if away and not any(f"recover --volume {volume.name}" in warning for warning in _warnings(cluster, volume)):
            yield f"no event of volume {volume.name} says how to restore its data"
        if not away and not isinstance(self._trees[location].look(path), Directory):
            yield f"volume {volume.name} has no directory {'/'.join(path)}"
        deletes = volume.spec.persistent_volume_reclaim_policy == "Delete"
        if volume.metadata.deletion_timestamp and not self._has_claim(volume):
            yield f"volume {volume.name} is still being deleted"
        elif volume.status.phase == "Released" and deletes and not self._has_claim(volume):
            yield f"volume {volume.name} is not reclaimed"
        elif deletes and volume.status.phase == "Bound" and names.FINALIZER not in volume.metadata.finalizers:
            yield f"volume {volume.name} has no finalizer of the provisioner"

    def _is_held_up(self, cluster: MemoryCluster, volume: Volume) -> bool:
        """Whether a volume waits, and an event says why.

        One from a backup uses its directory, or a claim that is still pending is to be cloned from it.
        """
        copies = [each.name for each in cluster.volumes() if each.metadata.uid in self.copies]
        events = [each.event for each in cluster.events.values() if each.event.about.uid == volume.metadata.uid]
        cloning = [claim.key for claim in cluster.claims() if claim.status.phase == "Pending" and claim.data_source]
        waits = any(each.message == cloned_message(key) for each in events for key in cloning)
        return waits or any(name in message for message in _warnings(cluster, volume) for name in copies)

    def _has_claim(self, volume: Volume) -> bool:
        """Whether the claim of a volume exists, though it may be bound to another volume."""
        return volume.spec.claim_ref is not None and volume.spec.claim_ref.uid in self._claims

    def _of_homes(self) -> Iterator[str]:
        for home in self.homes:
            volume = home.cluster.volume(home.volume)
            where = self._places[home.location].get(id(home.directory))
            if home.followed or not home.claim_gone or volume is not None or home.volume in self.forced:
                continue
            if home.rule == "delete" and where is not None:
                yield f"the directory is still there, at {_text(where)}: {home}"
            if home.rule == "archive" and where == home.path:
                yield f"the directory was not archived: {home}"

    def _of_trees(self) -> Iterator[str]:
        for location, tree in self._trees.items():
            if location != self._first_name(location):
                continue
            for path, _ in _walk((), tree.root):
                in_trash = path[: len(TRASH)] == TRASH and len(path) > len(TRASH)
                if path[: len(layout.COPIES)] == layout.COPIES and len(path) > len(layout.COPIES):
                    yield f"{location} has a copy that nothing needs: {path[-1]}"
                if in_trash and not self._is_kept(path[len(TRASH)]):
                    yield f"the trash of {location} is not empty: {path[-1]}"
            yield from self._of_records(location, tree)
            yield from self._of_groups(location, tree)
            known = self._known(location, tree)
            for path, directory in _walk((), tree.root):
                reserved = not path or path[0] == LEDGER or path[0].startswith(ARCHIVED)
                excused = reserved or (_is_bare(directory) and (self.rivalry or self._is_parent(path)))
                if not excused and _is_unknown(path, known):
                    yield f"directory {'/'.join(path)} of {location} has no owner"

    def _is_kept(self, entry: str) -> bool:
        """Whether the volume of an entry in the trash exists again, and an event says so."""
        name = volume_of(entry.removesuffix(BEGUN))
        volumes = ((cluster, cluster.volume(name)) for cluster in self._clusters)
        warnings = [each for cluster, volume in volumes if volume is not None for each in _warnings(cluster, volume)]
        return any(f"recover --volume {name}" in each for each in warnings)

    def _of_records(self, location: Location, tree: MemoryTree) -> Iterator[str]:
        volumes = {volume.name for cluster in self._clusters for volume in cluster.volumes()}
        for name in _entries(tree, (LEDGER, "pending")):
            if name not in self.reported and names.claim_uid(name) not in self._claims:
                yield f"{location} has a pending record of {name}, and its claim is gone"
            elif name in volumes:
                yield f"{location} has a pending record of {name}, which exists"
        for name in _entries(tree, (LEDGER, "volumes")):
            home = next((home for home in self.homes if home.volume == name), None)
            excused = name in self.reported or home is None or home.rule == "retain"
            if name not in volumes and not excused:
                yield f"{location} has a record of volume {name}, which is gone"

    def _of_groups(self, location: Location, tree: MemoryTree) -> Iterator[str]:
        """Each group of a settled record or an archive has its entry, and each entry is needed."""
        pending, volumes, archives = (
            {gid_in(node.target) or 0 for node in _entries(tree, (LEDGER, kind)).values()}
            for kind in ("pending", "volumes", "archives")
        )
        held = {int(gid): node.target for gid, node in _entries(tree, layout.GROUPS).items()}
        trash = tree.look(TRASH)
        purged = {volume_of(name.removesuffix(BEGUN)) for name in trash.entries} if isinstance(trash, Directory) else ()
        for gid in sorted(held.keys() - pending - volumes - archives):
            exists = any(cluster.volume(volume_in(held[gid])) for cluster in self._clusters)
            if not exists and volume_in(held[gid]) not in purged:
                yield f"group {gid} of {location} is still taken by {held[gid]}, and nothing has it"
        for gid in sorted((volumes | archives) - held.keys() - {0}):
            yield f"group {gid} of {location} has no entry, and a record names it"

    def _known(self, location: Location, tree: MemoryTree) -> list[RelPath]:
        """The directories of volumes, records and strangers."""
        known = [path for where, path, _, _ in self._strangers if where == location]
        for state in ("pending", "volumes"):
            records = (_decoded(node.target) for node in _entries(tree, (LEDGER, state)).values())
            known += [record.path for record in records if record is not None]
        for cluster in self._clusters:
            located = (self._locate(volume) for volume in cluster.volumes())
            known += [path for where, path in filter(None, located) if where == location]
        return known


def _namespace_uid(cluster: MemoryCluster, name: str) -> str:
    namespace = cluster.namespaces.get(name)
    return namespace.metadata.uid if namespace is not None else ""


def _walk(path: RelPath, directory: Directory) -> Iterator[tuple[RelPath, Directory]]:
    yield path, directory
    for name, node in directory.entries.items():
        if isinstance(node, Directory):
            yield from _walk((*path, name), node)


def _entries(tree: MemoryTree, path: RelPath) -> dict[str, Symlink]:
    directory = tree.look(path)
    entries = directory.entries if isinstance(directory, Directory) else {}
    return {name: node for name, node in entries.items() if isinstance(node, Symlink)}


def _record_at(tree: MemoryTree, path: RelPath) -> Record | None:
    node = tree.look(path)
    return _decoded(node.target) if isinstance(node, Symlink) else None


def _decoded(target: str) -> Record | None:
    """A record; None if it is damaged."""
    try:
        return decode(target)
    except InvalidRecord:
        return None


def _whole(home: Home) -> bool:
    return all(home.directory.entries.get(name) is node for name, node in home.kept.items())


def _is_bare(directory: Directory) -> bool:
    """Whether a directory contains nothing but directories."""
    return all(isinstance(node, Directory) and _is_bare(node) for node in directory.entries.values())


def _touch(one: Home, other: Home) -> bool:
    depth = min(len(one.path), len(other.path))
    return one.location == other.location and one.path[:depth] == other.path[:depth]


def _is_unknown(path: RelPath, known: list[RelPath]) -> bool:
    """Whether a path is no known one, and lies neither above nor below one."""
    return not any(path[: len(each)] == each or each[: len(path)] == path for each in known)


def _is_refused(cluster: MemoryCluster, claim: Claim) -> bool:
    events = [each.event for each in cluster.events.values() if each.event.about.uid == claim.uid]
    words = ["directory", "archive"]
    source = claim.data_source
    if source is not None:
        words.append("no ledger has a record")
        origin = cluster.claim(f"{claim.metadata.namespace}/{source.name}")
        if source.is_snapshot or origin is None or origin.status.phase != "Bound":
            words += ["source claim", "snapshot"]
    return any(
        (event.type == "Warning" or source is not None) and any(word in event.message for word in words)
        for event in events
    )


def _warnings(cluster: MemoryCluster, volume: Volume) -> list[str]:
    events = (each.event for each in cluster.events.values() if each.event.about.uid == volume.metadata.uid)
    return [event.message for event in events if event.type == "Warning"]


def _text(where: RelPath | None) -> str:
    return "nowhere" if where is None else "/".join(where)

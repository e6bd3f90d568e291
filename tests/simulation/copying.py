"""Copies in the random crowd: servers that fail in the middle of one, and people who clone, change and delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import replace

from provisioner.core import names
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim
from provisioner.ports.cluster import NotFound
from provisioner.ports.files import NO_DATA
from provisioner.ports.tree import Cause, ExportError
from tests.simulation.judge import Home
from tests.simulation.process import PROVISIONER, running
from tests.simulation.scripts import Crowd
from tests.simulation.snapshotting import Album, StockController, hide_kinds
from tests.simulation.world import Script, Site, World
from tests.support.fakes.tree import Directory, File, Symlink

CLASSES = ("delete-named", "archive-named", "retain-named", "delete-unique", "elsewhere", "kept-by-policy")
KEYS = ("shop/data", "shop/more", "lab/data")
CLONES = ("shop/copy", "shop/second", "lab/copy")
SNAPSHOTS = ("first", "last")
NAMES = ("one", "two", "three", "four", "five", "six")

_FILES = frozenset(
    ("look", "page", "read_link", "make", "link", "read", "write", "flush", "clone", "copy_range", "keep")
)
"""Calls of copies only."""
_DATA = frozenset(("write", "flush", "copy_range", "copy_whole"))
_GROWS = _DATA | {"make", "make_directory", "make_symlink"}
"""Calls that need space: for data, and for anything."""
_LATE = frozenset(("rename", "make", "write", "copy_range", "copy_whole", "clone", "keep"))
"""Calls that can take effect after the end of the process that sent them."""


class Server:
    """The server of an export: it is away, full, slow or restarts; people meddle in the middle of a copy."""

    def __init__(self, world: World, location: Location, meddle: Callable[[], None]) -> None:
        self._world, self._tree = world, world.trees[location]
        self._others, self._tree.before = self._tree.before, self._before
        self._slow = world.chance.choice((0.0, 0.05, 0.2))
        self._meddle = meddle
        self.meddling = world.chance.choice((0.0, 0.03, 0.1))
        """How often a call of a copy is met by a deed."""
        self._boots = 0
        self.away = False
        self.refused: Set[str] = frozenset()
        """The calls for which there is no space."""
        files = self._tree.files
        for ability in ("clones", "copies", "seeks", "wholes", "by_handle"):
            setattr(files, ability, world.chance.random() < 0.5)

    def restart(self) -> None:
        """Lose all that is not on stable storage."""
        self._boots += 1
        self._tree.files.restart(NO_DATA[:-1] + bytes([self._boots % 256]))

    def fill(self, refused: Set[str] = frozenset()) -> None:
        """Other clients fill the export, so that these calls fail, or free it."""
        self.refused = refused
        self._tree.statfs = replace(self._tree.statfs, free_bytes=0 if refused else 1 << 39)

    async def _before(self, call: str, path: RelPath) -> None:
        await self._others(call, path)
        if running.get() is None:
            return
        if call in _FILES and self._world.chance.random() < self._slow:
            await asyncio.sleep(self._world.chance.uniform(0.1, 3.0))
        if call in _FILES and self._world.chance.random() < self.meddling:
            self._meddle()
        if self.away:
            raise ExportError(Cause.UNREACHABLE)
        if call in self.refused:
            raise ExportError(Cause.NO_SPACE)


class CopyingCrowd(Crowd):
    """Random deeds around clones and snapshots."""

    def __init__(self, world: World, *, leaders: int = 1) -> None:
        super().__init__(world, leaders=leaders)
        self._classes = self._chance.sample(CLASSES, self._chance.randint(1, 3))
        world.pauses = 5  # a claim that was refused before can be cloned after its source has come
        trees = {id(tree): location for location, tree in world.trees.items()}
        self._servers = [Server(world, location, self._meddle) for location in trees.values()]
        for location in trees.values():
            world.trees[location].late = _LATE
        self._deeds = {
            self._claim: 4, self._clone: 6, self._delete: 3, self._delete_source: 2, self._write: 4, self._change: 6,
            self._remove: 1, self._remove_source: 1, self._mishap: 2, self._lead: 1, self._swap: 1,
            self._lose: 1, self._fill: 1, self._restart: 1, self._namespace: 1,
            self._snapshot: 7, self._restore: 3, self._delete_snapshot: 2, self._delete_content: 1, self._forge: 1,
            self._stop_controller: 1,
        }  # fmt: skip
        self._stock = StockController(world, world.site)
        Album(world, world.site)
        self._bring_kinds = hide_kinds(world, world.site)

    async def _begin(self) -> None:
        """See `Crowd`; in most cases two claims are bound, and have data, before there is any deed."""
        await super()._begin()
        for policy in ("Delete", "Retain"):
            body = {"metadata": {"name": policy.lower()}, "driver": PROVISIONER, "deletionPolicy": policy}
            self._world.site.cluster.create("snapshot_classes", body)
        self._world.later(self._stock.run())
        if self._chance.random() < 0.8:
            self._bring_kinds()
        else:
            asyncio.get_running_loop().call_later(self._chance.uniform(0.0, 60.0), self._bring_kinds)
        for key in self._chance.sample(KEYS, 2):
            self._world.claim(key, self._chance.choice(self._classes))
        bound = self._world.judge.homes
        await self._world.until(lambda: sum(home.used for home in bound) > 1, limit_s=20.0)
        for _ in range(3):
            self._write(self._world.site)

    def _mend(self) -> None:
        for server in self._servers:
            server.meddling, server.away = 0.0, False
            server.fill()
        self._stock.is_up = True
        self._bring_kinds()

    def _meddle(self) -> None:
        """Do a deed in the middle of a copy."""
        deeds = {
            self._change: 8, self._lose: 2, self._fill: 2, self._restart: 3, self._mishap: 1, self._delete_source: 1,
            self._remove_source: 1, self._delete_clone: 1, self._delete_snapshot: 1, self._stop_controller: 1,
        }  # fmt: skip
        self._chance.choices(list(deeds), list(deeds.values()))[0](self._world.site)

    # ------------------------------------------------------------------------------------------- people

    def _claim(self, site: Site) -> None:
        key = self._chance.choice(KEYS)
        if site.cluster.claim(key) is None:
            self._world.claim(key, self._chance.choice(self._classes), site=site)

    def _clone(self, site: Site) -> None:
        """A tenant clones a claim of the namespace, which may not exist, or not yet."""
        key = self._chance.choice(CLONES)
        if site.cluster.claim(key) is not None:
            return
        namespace = key.split("/")[0]
        there = [claim for claim in site.cluster.claims() if claim.metadata.namespace == namespace]
        bound = [claim.metadata.name for claim in there if claim.status.phase == "Bound"]
        name = self._chance.choice(bound) if bound and self._chance.random() < 0.9 else "data"
        source = {"kind": "PersistentVolumeClaim", "name": name}
        field = self._chance.choice(("dataSource", "dataSourceRef"))
        self._world.claim(key, self._chance.choice(self._classes), site=site, **{field: source})

    def _sources(self, site: Site) -> list[Claim]:
        """Claims that a pending claim names."""
        wanted = {
            f"{claim.metadata.namespace}/{claim.data_source.name}"
            for claim in site.cluster.claims()
            if claim.data_source is not None and claim.status.phase == "Pending"
        }
        return [claim for claim in site.cluster.claims() if claim.key in wanted]

    def _delete_source(self, site: Site) -> None:
        sources = self._sources(site)
        if sources:
            self._world.delete_claim(self._chance.choice(sources).key, site=site)

    def _delete_clone(self, site: Site) -> None:
        claims = [claim for claim in site.cluster.claims() if claim.data_source and claim.status.phase == "Pending"]
        if claims:
            self._world.delete_claim(self._chance.choice(claims).key, site=site)

    def _remove_source(self, site: Site) -> None:
        """An admin deletes the volume of a source, and perhaps a tenant its claim."""
        for claim in self._sources(site)[:1]:
            self._world.note(f"admin deletes volume {claim.spec.volume_name}")
            with suppress(NotFound):
                site.cluster.delete("volumes", claim.spec.volume_name)
            if self._chance.random() < 0.5:
                self._world.delete_claim(claim.key, site=site)

    # ------------------------------------------------------------------------------------------- snapshots

    def _snapshot(self, site: Site) -> None:
        """A tenant takes a snapshot of a claim."""
        claims = [claim for claim in site.cluster.claims() if claim.status.phase == "Bound"]
        if not claims:
            return
        claim, name = self._chance.choice(claims), self._chance.choice(SNAPSHOTS)
        namespace = claim.metadata.namespace
        if site.cluster.snapshot(f"{namespace}/{name}") is None:
            self._world.note(f"tenant takes snapshot {namespace}/{name} of {claim.key}")
            spec = {
                "source": {"persistentVolumeClaimName": claim.metadata.name},
                "volumeSnapshotClassName": self._chance.choice(("delete", "retain")),
            }
            site.cluster.create("snapshots", {"metadata": {"name": name, "namespace": namespace}, "spec": spec})

    def _restore(self, site: Site) -> None:
        """A tenant restores a snapshot into a new claim, of another namespace at times."""
        there, key = site.cluster.snapshots(), self._chance.choice(CLONES)
        if not there or site.cluster.claim(key) is not None:
            return
        ready = [snapshot for snapshot in there if snapshot.status.ready_to_use] or there
        name = self._chance.choice(ready).metadata.name
        source = {"apiGroup": names.SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": name}
        self._world.claim(key, self._chance.choice(self._classes), site=site, dataSource=source)

    def _delete_snapshot(self, site: Site) -> None:
        there = [each for each in site.cluster.snapshots() if not each.metadata.deletion_timestamp]
        if there:
            key = self._chance.choice(there).key
            self._world.note(f"tenant deletes snapshot {key}")
            site.cluster.delete("snapshots", key)

    def _delete_content(self, site: Site) -> None:
        """An admin deletes a content by hand, under its snapshot or not."""
        there = [each for each in site.cluster.snapshot_contents() if not each.metadata.deletion_timestamp]
        if there:
            name = self._chance.choice(there).name
            self._world.note(f"admin deletes content {name}")
            site.cluster.delete("snapshot_contents", name)

    def _forge(self, site: Site) -> None:
        """An admin writes a content of a snapshot that no ledger has, or another handle into a content's status."""
        there = site.cluster.snapshot_contents()
        if there and self._chance.random() < 0.5:
            name, handle = self._chance.choice(there).name, self._chance.choice(there).spec.volume_snapshot_ref.uid
            self._world.note(f"admin writes handle {handle} into the status of {name}")
            site.cluster.change(
                "snapshot_contents", name, lambda body: body.setdefault("status", {}).update(snapshotHandle=handle)
            )
        elif site.cluster.snapshot_content("forged") is None:
            self._world.note("admin forges a content")
            reference = {"namespace": "shop", "name": "forged"}
            spec = {"driver": PROVISIONER, "deletionPolicy": "Retain", "source": {"snapshotHandle": "unknown"}}
            body = {"metadata": {"name": "forged"}, "spec": {**spec, "volumeSnapshotRef": reference}}
            site.cluster.create("snapshot_contents", body)

    def _stop_controller(self, _site: Site) -> None:
        """The snapshot-controller is stopped, or runs again."""
        self._stock.is_up = not self._stock.is_up

    # ------------------------------------------------------------------------------------------- tenants' files

    def _home(self, site: Site) -> Home | None:
        """The directory of a bound claim, preferably of one that is being cloned."""
        claims = [claim for claim in self._sources(site) or site.cluster.claims() if claim.status.phase == "Bound"]
        home = self._world.judge.home_of(self._chance.choice(claims)) if claims else None
        return home if home is not None and not home.followed else None

    def _text(self) -> bytes:
        """Content that no other file has, which takes up to five chunks, perhaps with a hole."""
        self._files += 1
        text = f"<{self._files}>".encode() * self._chance.randint(1, 20)
        return text[:24] + bytes(16) + text[24:] if self._chance.random() < 0.2 else text

    def _write(self, site: Site) -> None:
        """A tenant creates entries."""
        home, judge = self._home(site), self._world.judge
        if home is None:
            return
        self._world.note(f"tenant writes into {home.volume}")
        for name in self._chance.sample(NAMES, self._chance.randint(1, 4)):
            if name not in home.directory.entries:
                judge.put(home, name, File(self._text()))
        name = f"more-{self._files}"
        drawn = self._chance.random()
        files = [each for each in NAMES if isinstance(home.directory.entries.get(each), File)]
        if drawn < 0.3:
            judge.put(home, name, Symlink("../../stranger"))
        elif drawn < 0.7:
            below = {each: File(self._text()) for each in NAMES[: self._chance.randint(0, 4)]}
            judge.put(home, name, Directory(entries={"empty": Directory(), **below}))
        elif files:
            judge.put(home, name, home.directory.entries[self._chance.choice(files)])

    def _change(self, site: Site) -> None:
        """A tenant replaces files by a rename, writes in place, or removes some."""
        home, judge = self._home(site), self._world.judge
        if home is None or not home.kept:
            return
        self._world.note(f"tenant changes {home.volume}")
        for name in self._chance.sample(sorted(home.kept), min(len(home.kept), self._chance.randint(1, 3))):
            node, drawn = home.directory.entries[name], self._chance.random()
            if isinstance(node, Directory) and drawn < 0.8:
                node.entries[self._chance.choice(NAMES)] = File(self._text())
                judge.note(home, name)
            elif isinstance(node, File) and drawn < 0.4:
                node.content = self._text()
                for each in sorted(home.kept):  # all names of this file
                    judge.note(home, each)
            elif isinstance(node, File) and drawn < 0.8:
                judge.put(home, name, File(self._text()))
            elif drawn > 0.9:
                judge.drop(home, name)

    # ------------------------------------------------------------------------------------------- servers

    def _lose(self, _site: Site) -> None:
        """The connection to a server is lost for a while."""
        server, now = self._chance.choice(self._servers), asyncio.get_running_loop()
        self._world.note("a server is away")
        server.away = True
        now.call_later(self._chance.uniform(1.0, 60.0), setattr, server, "away", False)

    def _fill(self, _site: Site) -> None:
        server = self._chance.choice(self._servers)
        self._world.note("an export is full")
        server.fill(self._chance.choice((_DATA, _GROWS)))
        asyncio.get_running_loop().call_later(self._chance.uniform(1.0, 60.0), server.fill)

    def _restart(self, _site: Site) -> None:
        self._world.note("a server restarts")
        self._chance.choice(self._servers).restart()


def crowd(leaders: int = 1) -> Script:
    """Random deeds around copies."""

    async def script(world: World) -> None:
        await CopyingCrowd(world, leaders=leaders).act()

    return script

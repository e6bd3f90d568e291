"""Tenants at work: claims come, are written to, go and come again by the same names; and what must hold meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from provisioner.ports.tree import ExportError
from testbed.api import ApiError, Object
from tests.contract.trees_direct import Tenant
from tests.integration.daemon.direct.exported import HOST, DirectExport
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, Storage

AT_ONCE = 60
"""Claims that are looked at in a round."""
HANDS = 4
WRITE_S = 5.0
WATCH_EVERY_S = 0.2
LEAVES_UNBOUND = 0.03
LEAVES = 0.25
"""How likely it is that a claim goes when it is looked at, before and after its volume was written to."""


@dataclass(frozen=True)
class Kind:
    """A class of volumes. `lasting`: a claim made anew by the same name gets the same directory, with its data."""

    rule: str
    export: DirectExport
    class_name: str
    lasting: bool


@dataclass
class Life:
    """One claim, from its creation until its directory went the way of its rule."""

    kind: Kind
    name: str
    uid: str
    path: str = ""
    """Its directory below the export; empty until it is Bound."""
    written: bool = False
    """Whether the server has confirmed its file."""
    leaving: bool = False
    """Whether its deletion has been asked for: from then on, and not before, the rule may act."""

    @property
    def file(self) -> str:
        """The name of its file, whose content is its uid."""
        return f"owner-{self.uid}"

    @property
    def directory(self) -> Path:
        """Where its directory is on this machine."""
        return self.kind.export.root / self.path


@dataclass
class Chronicle:
    """All claims that ever were, and what was seen to be wrong; for several threads."""

    lives: dict[str, Life] = field(default_factory=dict)
    """By uid."""
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def born(self, life: Life) -> Life:
        """The life of that uid, entered when it is new."""
        with self.lock:
            return self.lives.setdefault(life.uid, life)

    def housed(self, life: Life, path: str) -> None:
        """A claim has got its directory: nobody else who lives may have it, or one above or below."""
        with self.lock:
            for other in self.lives.values():
                near = other.kind.export is life.kind.export and not other.leaving and other is not life
                if near and other.path and _touch(path, other.path):
                    self.problems.append(f"{path} is given to {life.uid}, and {other.uid} has {other.path}")
            life.path = path

    def housed_lives(self) -> list[Life]:
        """Those who have a directory and were not asked to go."""
        with self.lock:
            return [life for life in self.lives.values() if life.path and not life.leaving]


def _touch(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


# ------------------------------------------------------------------------------------------- writing


class Desk:
    """Writes files as tenants do: over NFS, each into the directory that its volume names."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tenants: dict[DirectExport, Tenant] = {}
        self._thread.start()

    def write(self, life: Life) -> bool:
        """Write a claim's file; False when the outcome is unknown or the server refuses."""
        future = asyncio.run_coroutine_threadsafe(self._write(life), self._loop)
        return future.result(timeout=2 * WRITE_S)

    def close(self) -> None:
        """Let go of the connections."""
        for tenant in self._tenants.values():
            self._loop.call_soon_threadsafe(tenant.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _write(self, life: Life) -> bool:
        try:
            async with asyncio.timeout(WRITE_S):
                tenant = await self._tenant(life.kind.export)
                await tenant.write_file((*life.path.split("/"), life.file), life.uid)
        except (ExportError, OSError, TimeoutError, AssertionError):  # the last is how the tenant reports a status
            return False
        return True

    async def _tenant(self, export: DirectExport) -> Tenant:
        if export not in self._tenants:
            tenant = Tenant(export.server.port, export.server.mount_port)
            await tenant.open(tuple(export.path.strip("/").split("/")))
            self._tenants[export] = tenant
        return self._tenants[export]


@contextmanager
def desk() -> Iterator[Desk]:
    """A desk for as long as the context lasts."""
    opened = Desk()
    try:
        yield opened
    finally:
        opened.close()


# ------------------------------------------------------------------------------------------- coming and going


class Tenants(threading.Thread):
    """Makes claims, writes to them and deletes them, in rounds, until told to end. An API server away is waited for."""

    def __init__(
        self, storage: Storage, kinds: Mapping[str, Kind], chronicle: Chronicle, desk: Desk, chance: random.Random
    ) -> None:
        """`kinds` has the class of each claim, by its name."""
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.rounds = 0
        self._storage = storage
        self._kinds = kinds
        self._chronicle = chronicle
        self._desk = desk
        self._chance = chance

    def run(self) -> None:
        """Round after round."""
        with ThreadPoolExecutor(HANDS) as pool:
            while not self.ending.is_set():
                try:
                    self._round(pool)
                    self.rounds += 1
                except (ApiError, OSError):
                    time.sleep(0.3)

    def _round(self, pool: ThreadPoolExecutor) -> None:
        there = {claim["metadata"]["name"]: claim for claim in self._storage.api.list(self._storage.claims)}
        missing = [name for name in self._kinds if name not in there]
        names = {*self._chance.sample(sorted(self._kinds), AT_ONCE), *missing[:AT_ONCE]}
        list(pool.map(lambda name: self._step(name, there.get(name)), sorted(names)))

    def _step(self, name: str, claim: Object | None) -> None:
        """What this tenant does next. Raises ApiError and OSError; whatever was done then is seen in a later round."""
        kind = self._kinds[name]
        if claim is None:
            claim = self._storage.claim(kind.class_name, name)
        life = self._chronicle.born(Life(kind, name, claim["metadata"]["uid"]))
        if claim["metadata"].get("deletionTimestamp"):
            return
        if claim["status"].get("phase") != "Bound":
            self._leave(life, LEAVES_UNBOUND)
            return
        if not life.path:
            volume = self._storage.get_volume(claim["spec"]["volumeName"])
            if volume["spec"]["claimRef"]["uid"] != life.uid:
                self._chronicle.problems.append(f"{name} is bound to the volume of {volume['spec']['claimRef']}")
            self._chronicle.housed(life, volume["spec"]["nfs"]["path"].removeprefix(f"{kind.export.path}/"))
        if not life.written and not life.leaving:
            life.written = self._desk.write(life)
        self._leave(life, LEAVES)

    def _leave(self, life: Life, probability: float) -> None:
        """Perhaps delete the claim; one whose deletion was asked for and did not arrive is deleted in any case."""
        if not life.leaving and self._chance.random() >= probability:
            return
        life.leaving = True
        try:
            self._storage.api.delete(f"{self._storage.claims}/{life.name}", {"preconditions": {"uid": life.uid}})
        except ApiError as exc:
            if exc.status not in (404, 409):
                raise


class Watcher(threading.Thread):
    """Looks again and again, on the server's own disk, whether each claim that lives has its directory and its file."""

    def __init__(self, chronicle: Chronicle) -> None:
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.looks = 0
        self._chronicle = chronicle

    def run(self) -> None:
        """Look at all of them in turn."""
        while not self.ending.wait(WATCH_EVERY_S):
            for life in self._chronicle.housed_lives():
                written = life.written
                wrong = amiss(life, written=written)
                # Only now: what was found amiss before anybody asked it to leave must not be.
                if wrong and not life.leaving:
                    self._chronicle.problems.append(wrong)
                self.looks += 1


def amiss(life: Life, *, written: bool) -> str:
    """What is wrong with the directory of a claim that lives, in words; empty when nothing is."""
    try:
        names = {entry.name for entry in life.directory.iterdir()}
        text = (life.directory / life.file).read_text() if written else ""
    except OSError as exc:
        return f"{life.name}, {life.kind.rule}: {exc}"
    if written and text != life.uid:
        return f"{life.name}: its file says {text!r}, not {life.uid}"
    if not life.kind.lasting and names - {life.file}:
        return f"{life.name}: in {life.path} there is what somebody else wrote: {names - {life.file}}"
    return ""


@contextmanager
def at_work(threads: Sequence[Tenants | Watcher]) -> Iterator[None]:
    """Let them work for as long as the context lasts."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.ending.set()
        for thread in threads:
            thread.join()


# ------------------------------------------------------------------------------------------- when all is quiet


def unquiet(storage: Storage, chronicle: Chronicle, kinds: Iterable[Kind]) -> list[str]:
    """What is not as it must be once nobody makes or deletes claims any more. Raises ApiError, OSError."""
    kinds = list(kinds)
    classes = {kind.class_name for kind in kinds}
    volumes = [v for v in storage.api.list(VOLUMES) if v["spec"]["storageClassName"] in classes]
    claims = {claim["metadata"]["uid"]: claim for claim in storage.api.list(storage.claims)}
    housed = {volume["spec"]["claimRef"]["uid"]: volume for volume in volumes}
    found = [f"claim {uid} is not Bound" for uid, c in claims.items() if c["status"]["phase"] != "Bound"]
    found += [f"claim {uid} is Bound to no volume" for uid in claims.keys() - housed.keys()]
    found += [f"volume of {uid}, which is gone" for uid in housed.keys() - claims.keys()]
    for export in {kind.export for kind in kinds}:
        mine = {kind.class_name for kind in kinds if kind.export is export}
        found += ledger_problems(export, [v for v in volumes if v["spec"]["storageClassName"] in mine], storage)
        found += file_problems(export, chronicle, set(claims))
    return found


def ledger_problems(export: DirectExport, volumes: list[Object], storage: Storage) -> list[str]:
    """How volumes, records and directories of an export differ, and what is left in its ledger."""
    ledger = Exported(HOST, export.path, export.root)
    named = {v["metadata"]["name"]: v["spec"]["nfs"]["path"].removeprefix(f"{export.path}/") for v in volumes}
    records = {name: record["dir"] for name, record in ledger.records.items()}
    retained = {name for name, record in ledger.records.items() if "kept" in record}
    there = places(export, storage.namespace)
    moved = {name for name in named.keys() & records.keys() if named[name] != records[name]}
    return [
        *(f"volume {name} has no record" for name in named.keys() - records.keys()),
        *(f"record {name} has no volume" for name in records.keys() - named.keys() - retained),
        *(f"record {name} says {records[name]}, the volume {named[name]}" for name in moved),
        *(f"record {name} has no directory" for name, path in records.items() if path not in there),
        *(f"directory {path} has no record" for path in there - set(records.values())),
        *(f"pending: {name}" for name in ledger.pending),
        *(f"trash: {name}" for name in ledger.trash),
        *(f"archive and record differ: {name}" for name in _archives(export) ^ _archive_records(export)),
    ]


def places(export: DirectExport, namespace: str) -> set[str]:
    """The directories of volumes, by their patterns: at the root, or two below the namespace's."""
    top = {entry.name for entry in export.root.iterdir() if not entry.name.startswith((LEDGER, "archived-"))}
    nested = {path.relative_to(export.root).as_posix() for path in export.root.glob(f"{namespace}/*/*")}
    return nested | (top - {namespace})


def _archives(export: DirectExport) -> set[str]:
    return {path.name for path in export.root.glob("archived-*")}


def _archive_records(export: DirectExport) -> set[str]:
    return {path.name for path in (export.root / LEDGER / "archives").iterdir()}


def file_problems(export: DirectExport, chronicle: Chronicle, living: set[str]) -> list[str]:
    """Whose file is not exactly where its rule wants it."""
    found: dict[str, list[str]] = {}
    for path in export.root.glob("[!.]*/**/owner-*"):
        found.setdefault(path.name, []).append(path.parent.relative_to(export.root).as_posix())
    problems = []
    for life in chronicle.lives.values():
        if life.kind.export is export:
            where = found.get(life.file, [])
            wrong = (amiss(life, written=life.written) if life.path else "") if life.uid in living else ""
            if wrong or not _as_ruled(life, where, lives=life.uid in living):
                problems.append(f"{life.kind.rule} {life.name}, file of {life.uid} is in {where}; {wrong}")
    return problems


def _as_ruled(life: Life, where: list[str], *, lives: bool) -> bool:
    if not where:
        return not life.written or (not lives and life.kind.rule == "delete")
    if len(where) > 1:
        return False
    if lives or life.kind.rule == "retain":
        return where == [life.path]
    return life.kind.rule == "archive" and where[0].startswith("archived-")

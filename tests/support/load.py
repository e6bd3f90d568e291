"""A load of claims that are created, written to, deleted and created again, and the checks of what must hold."""

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
from tests.support.direct_export import HOST, DirectExport
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, Storage

CLAIMS_PER_ROUND = 60
THREADS = 4
WRITE_S = 5.0
WATCH_EVERY_S = 0.2
DELETED_UNBOUND = 0.03
DELETED_BOUND = 0.25
"""The probability per round that a claim is deleted, before and after its volume was written to."""


@dataclass(frozen=True)
class Kind:
    """A class of volumes. If `lasting`, a claim created again by the same name gets the same directory and data."""

    rule: str
    export: DirectExport
    class_name: str
    lasting: bool


@dataclass
class TrackedClaim:
    """One claim, from its creation until its directory is reclaimed by its rule."""

    kind: Kind
    name: str
    uid: str
    path: str = ""
    """Its directory below the export; empty until the claim is Bound."""
    written: bool = False
    """Whether the server has confirmed its file."""
    deleting: bool = False
    """Whether its deletion was requested: only from then on may the daemon reclaim the directory."""

    @property
    def file(self) -> str:
        """The name of its file; the content is the claim's uid."""
        return f"owner-{self.uid}"

    @property
    def directory(self) -> Path:
        """The path of its directory on this machine."""
        return self.kind.export.root / self.path


@dataclass
class ClaimLog:
    """All claims so far, and the problems seen; safe for several threads."""

    claims_by_uid: dict[str, TrackedClaim] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def track(self, tracked: TrackedClaim) -> TrackedClaim:
        """Return the entry of that uid, added if it is new."""
        with self.lock:
            return self.claims_by_uid.setdefault(tracked.uid, tracked)

    def place(self, tracked: TrackedClaim, path: str) -> None:
        """Note the directory of a claim; an overlap with another live claim's directory is a problem."""
        with self.lock:
            for other in self.claims_by_uid.values():
                near = other.kind.export is tracked.kind.export and not other.deleting and other is not tracked
                if near and other.path and _touch(path, other.path):
                    self.problems.append(f"{path} is given to {tracked.uid}, and {other.uid} has {other.path}")
            tracked.path = path

    def placed(self) -> list[TrackedClaim]:
        """Return the claims that have a directory and are not being deleted."""
        with self.lock:
            return [tracked for tracked in self.claims_by_uid.values() if tracked.path and not tracked.deleting]


def _touch(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


# ------------------------------------------------------------------------------------------- writing


class TenantWriter:
    """Writes files as tenants do: over NFS, each into the directory of its volume."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tenants: dict[DirectExport, Tenant] = {}
        self._thread.start()

    def write(self, tracked: TrackedClaim) -> bool:
        """Write a claim's file; return False if the outcome is unknown or the server refuses."""
        future = asyncio.run_coroutine_threadsafe(self._write(tracked), self._loop)
        return future.result(timeout=2 * WRITE_S)

    def close(self) -> None:
        """Close the connections."""
        for tenant in self._tenants.values():
            self._loop.call_soon_threadsafe(tenant.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _write(self, tracked: TrackedClaim) -> bool:
        try:
            async with asyncio.timeout(WRITE_S):
                tenant = await self._tenant(tracked.kind.export)
                await tenant.write_file((*tracked.path.split("/"), tracked.file), tracked.uid)
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
def tenant_writer() -> Iterator[TenantWriter]:
    """Open a writer while the context is open."""
    opened = TenantWriter()
    try:
        yield opened
    finally:
        opened.close()


# ------------------------------------------------------------------------------------------- claims


class Tenants(threading.Thread):
    """Creates claims, writes to them and deletes them, in rounds, until `ending` is set; waits for the API server."""

    def __init__(
        self,
        storage: Storage,
        kinds: Mapping[str, Kind],
        claim_log: ClaimLog,
        writer: TenantWriter,
        chance: random.Random,
    ) -> None:
        """`kinds` maps each claim's name to its class."""
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.rounds = 0
        self._storage = storage
        self._kinds = kinds
        self._claim_log = claim_log
        self._writer = writer
        self._chance = chance

    def run(self) -> None:
        """Work in rounds."""
        with ThreadPoolExecutor(THREADS) as pool:
            while not self.ending.is_set():
                try:
                    self._round(pool)
                    self.rounds += 1
                except (ApiError, OSError):
                    time.sleep(0.3)

    def _round(self, pool: ThreadPoolExecutor) -> None:
        there = {claim["metadata"]["name"]: claim for claim in self._storage.api.list(self._storage.claims)}
        missing = [name for name in self._kinds if name not in there]
        names = {*self._chance.sample(sorted(self._kinds), CLAIMS_PER_ROUND), *missing[:CLAIMS_PER_ROUND]}
        list(pool.map(lambda name: self._step(name, there.get(name)), sorted(names)))

    def _step(self, name: str, claim: Object | None) -> None:
        """Do the next step for a claim. Raises ApiError and OSError; a later round sees what was done."""
        kind = self._kinds[name]
        if claim is None:
            claim = self._storage.claim(kind.class_name, name)
        tracked = self._claim_log.track(TrackedClaim(kind, name, claim["metadata"]["uid"]))
        if claim["metadata"].get("deletionTimestamp"):
            return
        if claim["status"].get("phase") != "Bound":
            self._maybe_delete(tracked, DELETED_UNBOUND)
            return
        if not tracked.path:
            volume = self._storage.get_volume(claim["spec"]["volumeName"])
            if volume["spec"]["claimRef"]["uid"] != tracked.uid:
                self._claim_log.problems.append(f"{name} is bound to the volume of {volume['spec']['claimRef']}")
            self._claim_log.place(tracked, volume["spec"]["nfs"]["path"].removeprefix(f"{kind.export.path}/"))
        if not tracked.written and not tracked.deleting:
            tracked.written = self._writer.write(tracked)
        self._maybe_delete(tracked, DELETED_BOUND)

    def _maybe_delete(self, tracked: TrackedClaim, probability: float) -> None:
        """Delete the claim with this probability; repeat a deletion that did not arrive."""
        if not tracked.deleting and self._chance.random() >= probability:
            return
        tracked.deleting = True
        try:
            self._storage.api.delete(f"{self._storage.claims}/{tracked.name}", {"preconditions": {"uid": tracked.uid}})
        except ApiError as exc:
            if exc.status not in (404, 409):
                raise


class Watcher(threading.Thread):
    """Checks on the server's disk, repeatedly, that each live claim has its directory and its file."""

    def __init__(self, claim_log: ClaimLog) -> None:
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.checks = 0
        self._claim_log = claim_log

    def run(self) -> None:
        """Check all of them in turn."""
        while not self.ending.wait(WATCH_EVERY_S):
            for tracked in self._claim_log.placed():
                written = tracked.written
                wrong = problem_of(tracked, written=written)
                # Checked last: only what is wrong before the deletion was requested is a problem.
                if wrong and not tracked.deleting:
                    self._claim_log.problems.append(wrong)
                self.checks += 1


def problem_of(tracked: TrackedClaim, *, written: bool) -> str:
    """Describe what is wrong with a live claim's directory; empty if nothing is."""
    try:
        names = {entry.name for entry in tracked.directory.iterdir()}
        text = (tracked.directory / tracked.file).read_text() if written else ""
    except OSError as exc:
        return f"{tracked.name}, {tracked.kind.rule}: {exc}"
    if written and text != tracked.uid:
        return f"{tracked.name}: its file says {text!r}, not {tracked.uid}"
    if not tracked.kind.lasting and names - {tracked.file}:
        return f"{tracked.name}: in {tracked.path} another claim wrote {names - {tracked.file}}"
    return ""


@contextmanager
def running(threads: Sequence[Tenants | Watcher]) -> Iterator[None]:
    """Run threads while the context is open."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.ending.set()
        for thread in threads:
            thread.join()


# ------------------------------------------------------------------------------------------- the final state


def remaining_problems(storage: Storage, claim_log: ClaimLog, kinds: Iterable[Kind]) -> list[str]:
    """Describe what is wrong once no claim is created or deleted. Raises ApiError, OSError."""
    kinds = list(kinds)
    classes = {kind.class_name for kind in kinds}
    volumes = [v for v in storage.api.list(VOLUMES) if v["spec"]["storageClassName"] in classes]
    claims = {claim["metadata"]["uid"]: claim for claim in storage.api.list(storage.claims)}
    by_claim_uid = {volume["spec"]["claimRef"]["uid"]: volume for volume in volumes}
    found = [f"claim {uid} is not Bound" for uid, c in claims.items() if c["status"]["phase"] != "Bound"]
    found += [f"claim {uid} is Bound to no volume" for uid in claims.keys() - by_claim_uid.keys()]
    found += [f"volume of {uid}, which is gone" for uid in by_claim_uid.keys() - claims.keys()]
    for export in {kind.export for kind in kinds}:
        mine = {kind.class_name for kind in kinds if kind.export is export}
        found += ledger_problems(export, [v for v in volumes if v["spec"]["storageClassName"] in mine], storage)
        found += file_problems(export, claim_log, set(claims))
    return found


def ledger_problems(export: DirectExport, volumes: list[Object], storage: Storage) -> list[str]:
    """Describe how an export's volumes, records and directories differ, and leftovers in its ledger."""
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
    """Return the directories of volumes, which by their patterns are at the root or two levels below the namespace."""
    top = {entry.name for entry in export.root.iterdir() if not entry.name.startswith((LEDGER, "archived-"))}
    nested = {path.relative_to(export.root).as_posix() for path in export.root.glob(f"{namespace}/*/*")}
    return nested | (top - {namespace})


def _archives(export: DirectExport) -> set[str]:
    return {path.name for path in export.root.glob("archived-*")}


def _archive_records(export: DirectExport) -> set[str]:
    return {path.name for path in (export.root / LEDGER / "archives").iterdir()}


def file_problems(export: DirectExport, claim_log: ClaimLog, live_uids: set[str]) -> list[str]:
    """Describe each claim whose file is not exactly where its rule puts it."""
    found: dict[str, list[str]] = {}
    for path in export.root.glob("[!.]*/**/owner-*"):
        found.setdefault(path.name, []).append(path.parent.relative_to(export.root).as_posix())
    problems = []
    for tracked in claim_log.claims_by_uid.values():
        if tracked.kind.export is export:
            where = found.get(tracked.file, [])
            wrong = (
                (problem_of(tracked, written=tracked.written) if tracked.path else "")
                if tracked.uid in live_uids
                else ""
            )
            if wrong or not _as_ruled(tracked, where, live=tracked.uid in live_uids):
                problems.append(f"{tracked.kind.rule} {tracked.name}, file of {tracked.uid} is in {where}; {wrong}")
    return problems


def _as_ruled(tracked: TrackedClaim, where: list[str], *, live: bool) -> bool:
    if not where:
        return not tracked.written or (not live and tracked.kind.rule == "delete")
    if len(where) > 1:
        return False
    if live or tracked.kind.rule == "retain":
        return where == [tracked.path]
    return tracked.kind.rule == "archive" and where[0].startswith("archived-")

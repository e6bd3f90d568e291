"""A simulated world: clusters, exports, processes of the provisioner, and tenants with their data."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, MutableMapping, Set
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar
from unittest.mock import patch

import structlog

from provisioner.commands.adopt import Adoption
from provisioner.commands.session import Session
from provisioner.controllers.cache import ClusterCache
from provisioner.core import instances
from provisioner.core.adoption import Wish
from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import Claim
from provisioner.core.paths import LEDGER
from provisioner.core.scope import Scope, Seen
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.cluster import ApiUnavailable, Expired, NotFound
from provisioner.runtime.leadership import Alone, Leadership
from provisioner.telemetry.metrics import Metrics
from tests.simulation import loop
from tests.simulation.faults import Fault, Nothing, Plan, Port, Unexpected
from tests.simulation.judge import Home, Judge
from tests.simulation.process import PROVISIONER, Clock, Died, Elected, Parts, Process, nowhere, running
from tests.support.fakes.cluster import Body, MemoryCluster
from tests.support.fakes.controllers import Controllers
from tests.support.fakes.tree import Directory, File, MemoryTree, Node, Symlink

NAS = Location("nas", "/exports")
INNER = Location("nas", "/exports/team")
"""An export within the first one."""
OTHER_NAS = Location("other", "/")
UNIQUE = "${.PVC.namespace}-${.PVC.name}-${.PV.name}"
NAMED = "${.PVC.namespace}/${.PVC.name}"
NAMESPACES = ("shop", "lab")
DEEP = "deep"
"""A directory below which volumes lie three levels deep."""
_ASIDE = "aside"
"""Where a tenant keeps a directory that is replaced by a symlink."""
_CHANGING = frozenset(
    ("make_directory", "rename", "remove_directory", "remove_tree", "make_symlink", "move_symlink", "remove_symlink")
)

_Result = TypeVar("_Result")

_due: ContextVar[Fault | None] = ContextVar("_due", default=None)
"""The fault of the call that this task is in."""


class RemoteTree(MemoryTree):
    """A tree on a server: a call that was sent can take effect after the end of the process that sent it."""

    late: Set[str] = frozenset(("rename",))
    """The calls that can."""

    async def _call(self, name: str, path: RelPath, job: Callable[[], _Result]) -> _Result:
        call = partial(super()._call, name, path, job)
        if name not in self.late:
            return await call()
        sent = asyncio.create_task(call())
        sent.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(sent)


class Site:
    """One cluster with its controllers and its processes of the provisioner."""

    def __init__(self, world: World, name: str, *, identity: str = "") -> None:
        self.name = name
        self.cluster = MemoryCluster(
            identity=identity or name, uids=name, watch_s=50.0, before=world.cluster_before, after=world.cluster_after
        )
        self.cluster.namespaces |= set(NAMESPACES)
        self.controllers = Controllers(self.cluster, pause=lambda: world.plan.pause())
        self.locations = tuple(world.trees)
        """The exports in its settings."""
        self.processes: list[Process] = []
        self.started = 0
        self.elects = True
        """Whether its processes hold a Lease."""
        self.first_term = 0
        """How many times its Lease had changed hands before."""
        self.is_up = True
        """Whether its provisioner runs."""
        self.overlapped = False
        """Whether two processes have ever led at the same time."""


class World:
    """Everything in a simulation. One seed, one plan and one script give one history, call for call."""

    def __init__(
        self,
        chance: random.Random,
        *,
        plan: Plan | None = None,
        parts: Parts | None = None,
        locations: tuple[Location, ...] = (NAS,),
        clusters: int = 1,
        named_twice: bool = False,
        cloned: bool = False,
    ) -> None:
        """With `named_twice` the locations are names of one export; with `cloned` clone() starts a second cluster."""
        self.chance = chance
        self.plan: Plan = plan or Nothing()
        self.parts = parts or Parts()
        self.calls = 0
        self.parallel: list[asyncio.Task[None]] = []
        self.rests_from = 0
        """The length of the trace when people had finished."""
        self.rested_from = 0
        """The number of calls when everything had come to rest."""
        self.calls_made: list[tuple[int, str]] = []
        self.trace: list[str] = []
        self.met: Callable[[Fault], None] = lambda fault: None
        """Called when a fault occurs, before it has any effect."""
        self.trees: dict[Location, RemoteTree] = {
            location: RemoteTree(root_id=str(location), before=self.tree_before, after=self.tree_after)
            for location in locations
        }
        if named_twice:
            self.trees = dict.fromkeys(locations, self.trees[locations[0]])
        self.judge = Judge({**self.trees}, is_parent=_is_parent)
        self.sites = [Site(self, name) for name in ("red", "blue")[:clusters]]
        for site in self.sites:
            self.judge.watch(site.cluster)
        self.cloned = cloned
        if cloned:
            # The judge does not watch the copy: its deeds are judged by the original's data.
            self.sites.append(Site(self, "green", identity=self.site.name))
            self.sites[-1].is_up = False
        self.judge.rivalry = clusters > 1
        self.grouped = chance.random() < 0.5
        """Whether the volumes of its classes have groups of their own: the ledger goes other ways without them."""
        self.with_snapshots = False
        """Whether processes that are started serve VolumeSnapshots."""
        self.pauses = 0
        """How many times everything can look as if it were at rest, and still goes on."""
        self.metrics = Metrics()
        self._context = copy_context()
        self._swapped: tuple[Location, RelPath, Symlink] | None = None
        self.clock_error_s = 0.0
        """The error of the wall clocks."""

    @property
    def site(self) -> Site:
        """The first cluster."""
        return self.sites[0]

    # ------------------------------------------------------------------------------------------- processes

    def start(self, site: Site | None = None) -> Process:
        """Start another process of the provisioner, with an empty memory."""
        site = site or self.site
        site.started += 1
        process = Process(
            f"{site.name}/{site.started}",
            cluster=site.cluster,
            trees={location: self.trees[location] for location in site.locations},
            clock=Clock(self.chance, lambda: self.clock_error_s),
            metrics=self.metrics,
            parts=self.parts,
            leadership=self._leadership(site),
            ended=self._ended,
            with_snapshots=self.with_snapshots,
        )
        site.overlapped |= any(not other.dead for other in site.processes)
        self.judge.rivalry |= site.overlapped
        site.processes.append(process)
        process.start()
        return process

    def _leadership(self, site: Site) -> Leadership:
        name = f"{site.name}/{site.started}"
        if not site.elects:
            return Alone(name)
        return Elected(name, site.first_term + site.started, lambda: site.first_term + site.started)

    def _ended(self, process: Process, end: BaseException | None) -> None:
        for site in self.sites:
            if process in site.processes:
                site.processes.remove(process)
        if not process.dead and not process.stopping.is_set():
            self.judge.blame(f"process {process.name} ended by itself: {end!r}")

    async def keep(self, site: Site) -> None:
        """Keep at least one process running: start another one a second after the last has died."""
        while True:
            if site.is_up and all(process.dead for process in site.processes):
                self.start(site)
            await asyncio.sleep(1.0)

    # ------------------------------------------------------------------------------------------- port calls

    async def tree_before(self, call: str, path: RelPath) -> None:
        """A call on an export begins."""
        await self._before("tree", call, "/".join(path))

    async def tree_after(self, call: str, path: RelPath) -> None:
        """A call on an export has taken effect."""
        if call in _CHANGING:
            self.judge.find_homes()
        await self._after("tree", call)

    async def cluster_before(self, call: str, about: str) -> None:
        """A call on an API server begins."""
        await self._before("cluster", call, about)

    async def cluster_after(self, call: str, about: str) -> None:
        """A call on an API server has taken effect."""
        self.judge.check()
        await self._after("cluster", call)

    async def _before(self, port: Port, call: str, about: str) -> None:
        process = running.get()
        if process is None:
            return
        if process.dead:
            raise Died
        self.calls += 1
        number = self.calls
        self.calls_made.append((number, call))
        fault = self.plan.fault(self.calls)
        suffix = f" {fault.value}" if fault else ""
        now_s = asyncio.get_running_loop().time()
        self.trace.append(f"{now_s:.3f} {self.calls} {process.name} {call} {about}{suffix}")
        plan = self.plan
        await plan.pause(call)
        if process.dead:
            late_s = plan.late_s()
            if late_s is None or port != "tree" or call not in self.trees[NAS].late:
                raise Died
            await asyncio.sleep(late_s)
            self.note(f"call {number} takes effect after the end of {process.name}")
        _due.set(fault if fault and not fault.before else None)
        if fault and fault.before:
            self._meet(process, fault, port, call)

    async def _after(self, port: Port, call: str) -> None:
        process, fault = running.get(), _due.get()
        if process is None:
            return
        if fault is not None:
            self._meet(process, fault, port, call)
        await self.plan.pause()
        if process.dead:
            raise Died

    def _meet(self, process: Process, fault: Fault, port: Port, call: str) -> None:
        self.met(fault)
        if fault.crash:
            process.die()
            raise Died
        raise fault.error(port, call)

    # ------------------------------------------------------------------------------------------- people

    def add_class(self, name: str, *, policy: str = "Delete", **parameters: str) -> None:
        """An admin creates a class in each cluster; in half of the worlds, each volume has a group of its own."""
        if self.grouped:
            parameters = {"gid": "auto", **parameters}
        for site in self.sites:
            body = {"metadata": {"name": name}, "provisioner": PROVISIONER, "parameters": parameters}
            site.cluster.create("classes", {**body, "reclaimPolicy": policy})

    def clone(self) -> Site:
        """An admin starts a copy of the first cluster from a backup of its etcd, as it is now."""
        self.note("an admin starts a copy of the cluster")
        original, copy = self.site, self.sites[-1]
        copy.cluster.restore(original.cluster.saved())
        copy.first_term, copy.elects = original.first_term + original.started, original.elects
        copy.is_up = True
        return copy

    def decide(self) -> None:
        """An admin decides that this cluster goes on, as `instances --this-cluster-goes-on` does."""
        self.note("an admin decides that this cluster goes on")
        signs = self.trees[NAS].look((LEDGER, "clusters"))
        assert isinstance(signs, Directory)
        signs.entries[instances.name(self.site.name, PROVISIONER)] = Symlink(str(instances.decided("now", "admin")))

    def tree_at(self, home: Home) -> Node | None:
        """The node at the path of a volume's directory."""
        return self.trees[home.location].look(home.path)

    def take_down(self, site: Site) -> None:
        """An admin stops the provisioner of a cluster permanently."""
        self.note(f"an admin stops the provisioner of {site.name}")
        site.is_up = False
        for process in site.processes:
            process.die()

    def claim(
        self, key: str, class_name: str, *, site: Site | None = None, annotations: Any = None, **wanted: Any
    ) -> None:
        """A tenant creates a claim; `wanted` goes into its spec."""
        namespace, name = key.split("/")
        spec = {
            "storageClassName": class_name,
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeMode": "Filesystem",
            **wanted,
        }
        metadata = {"name": name, "namespace": namespace, "annotations": dict(annotations or {})}
        self.note(f"tenant creates claim {key} of class {class_name}")
        (site or self.site).cluster.create("claims", {"metadata": metadata, "spec": spec})

    def delete_claim(self, key: str, *, site: Site | None = None) -> None:
        """A tenant deletes a claim, if it still exists."""
        self.note(f"tenant deletes claim {key}")
        with suppress(NotFound):
            (site or self.site).cluster.delete("claims", key)

    def write(self, claim: Claim, name: str) -> bool:
        """A tenant of a bound claim writes a file and a symlink; return whether that was possible."""
        home = self.judge.home_of(claim)
        if home is None or home.followed or claim.status.phase != "Bound":
            return False
        self.note(f"tenant writes {name} for {claim.key}")
        self.judge.put(home, name, File(f"{claim.uid} {name}".encode()))
        self.judge.put(home, f"{name}.link", Symlink("../../stranger"))
        return True

    def plant(self, path: RelPath, location: Location = NAS) -> None:
        """A stranger has data on an export."""
        parent: Directory = self.trees[location].root
        for name in path:
            below = parent.entries.setdefault(name, Directory())
            assert isinstance(below, Directory)
            parent = below
        parent.entries["precious"] = File(b"data")
        self.judge.stranger(location, path)

    def swap(self, location: Location, path: RelPath) -> None:
        """A tenant replaces a directory by a symlink to a stranger's data, until swap_back()."""
        tree = self.trees[location]
        parent, directory = tree.look(path[:-1]), tree.look(path)
        if self._swapped is not None or not isinstance(parent, Directory) or not isinstance(directory, Directory):
            return
        self.note(f"tenant swaps {'/'.join(path)} for a symlink")
        link = Symlink("../" * (len(path) - 1) + "stranger")
        tree.root.entries[_ASIDE], parent.entries[path[-1]] = directory, link
        self._swapped = (location, path, link)
        self.judge.displace(location, path, _ASIDE)

    def swap_back(self) -> None:
        """The tenant puts the directory back."""
        if self._swapped is None:
            return
        location, path, link = self._swapped
        tree = self.trees[location]
        parent = tree.look(path[:-1])
        if not isinstance(parent, Directory) or parent.entries.get(path[-1]) is not link:
            self.judge.blame(f"a tenant's symlink at {'/'.join(path)} is gone")
            return
        self.note(f"tenant puts {'/'.join(path)} back")
        parent.entries[path[-1]] = tree.root.entries.pop(_ASIDE)
        self._swapped = None
        self.judge.replaced()

    def create_namespace_again(self, name: str, *, site: Site | None = None) -> None:
        """A namespace without claims is deleted, and another team creates one of that name."""
        self.note(f"namespace {name} is deleted and created again")
        namespaces = (site or self.site).cluster.namespaces
        namespaces.discard(name)
        namespaces.add(name)

    async def adopt(self, path: RelPath, key: str) -> bool:
        """An admin runs `nfs-provisioner adopt` to give a directory to a claim; return whether it succeeded."""
        self.note(f"admin adopts {'/'.join(path)} for {key}")
        cluster = self.parts.cluster(self.site.cluster, ClusterCache(PROVISIONER))
        export = await self.parts.export(NAS, self.trees[NAS]).open(create=False)
        session = Session(
            cluster=cluster,
            cluster_id=self.site.name,
            classes=[each for each in self.site.cluster.classes() if each.provisioner == PROVISIONER],
            exports=[export],
            bare=[],
            scope=Scope(provisioner=PROVISIONER, exports=[Seen(export=export.name)]),
            registry=ExportRegistry({NAS: export}, NAS, nowhere),
        )
        namespace, claim = key.split("/")
        run = Adoption(session, Wish(path=path, namespace=namespace, claim=claim), set())
        try:
            await run.apply(await run.look(PROVISIONER))
        except ProvisionerError as exc:
            self.note(f"not adopted: {exc}")
            return False
        return True

    def unrecord(self, volume_name: str, location: Location = NAS) -> bool:
        """An admin removes a settled record from an export; return whether there was one."""
        records = self.trees[location].look((LEDGER, "volumes"))
        assert isinstance(records, Directory)
        return records.entries.pop(volume_name, None) is not None

    def go_back(self, site: Site, saved: Body) -> None:
        """An admin restores etcd from a backup; watches get no event about it."""
        self.note("etcd is restored")
        site.cluster.restore(saved)
        self.judge.went_back(site.cluster)
        site.controllers.release("")

    def hold(self, tree: MemoryTree, call: str, path: RelPath, held_s: float) -> asyncio.Event:
        """Hold up the next such call, at or below a path, for this time; the event is set when it is held up."""
        held, others = asyncio.Event(), tree.before

        async def before(name: str, at: RelPath) -> None:
            met = name == call and at[: len(path)] == path and not held.is_set()
            if met and (process := running.get()) is not None:
                self.note(f"{process.name} is held up at {call} {'/'.join(at)}")
                held.set()
                await asyncio.sleep(held_s)
                self.note(f"{process.name} goes on")
            await others(name, at)

        tree.before = before
        return held

    def note(self, what: str) -> None:
        """Write a line into the trace."""
        self.trace.append(f"{asyncio.get_running_loop().time():.3f} {what}")

    def later(self, what: Coroutine[Any, Any, None]) -> None:
        """Run something in parallel to the script, outside of the process whose call this may be in."""
        self.parallel.append(asyncio.get_running_loop().create_task(what, context=self._context.copy()))

    def mend(self) -> None:
        """End all faults, and all leaders but one in each cluster.

        If two processes have overlapped, all are ended: the next start finds what one did behind the other's back.
        """
        self.note("all faults end")
        self.swap_back()
        self.plan = Nothing(call_s=0.001)
        disturb_watches(self, rate=0.0)
        for site in self.sites:
            if site.overlapped:
                for process in site.processes:
                    process.die()

    # ------------------------------------------------------------------------------------------- waiting

    async def until(self, condition: Callable[[], bool], *, limit_s: float = 600.0) -> bool:
        """Wait until a condition holds; return whether it did in time."""
        clock = asyncio.get_running_loop()
        end_s = clock.time() + limit_s
        while not condition():
            if clock.time() > end_s:
                return False
            await asyncio.sleep(0.25)
        return True

    async def rest(self, *, limit_s: float = 1800.0) -> None:
        """Wait until everything is at rest, and stays at rest; else that is a violation."""
        clock = asyncio.get_running_loop()
        end_s = clock.time() + limit_s
        self.rests_from = len(self.trace)
        step_s = 1.0
        for _ in range(1 + self.pauses):
            while (wrong := self.judge.unrest()) and clock.time() < end_s and not self.judge.violations:
                await asyncio.sleep(step_s)
                step_s = min(step_s * 1.5, 30.0)
            self.rested_from = self.calls
            if wrong:
                break
            await asyncio.sleep(70.0)
            wrong = self.judge.unrest()
            if not wrong:
                break
        for what in wrong:
            self.judge.blame(f"at rest: {what}")


def _is_parent(path: RelPath) -> bool:
    """Whether a directory is on the way to volumes by the patterns of the classes, and may stay when empty."""
    return path in {(namespace,) for namespace in NAMESPACES} or (path[0] == DEEP and len(path) < 4)


Script = Callable[[World], Coroutine[Any, Any, None]]


async def _played(world: World, script: Script) -> None:
    """Run a script and the controllers, to the end of the script or to the first violation."""
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(site.controllers.run()) for site in world.sites]
    tasks += [asyncio.create_task(world.keep(site)) for site in world.sites]
    tasks.append(asyncio.create_task(script(world)))
    try:
        while not any(task.done() for task in tasks) and not world.judge.violations:
            await asyncio.wait({tasks[-1]}, timeout=1.0)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for site in world.sites:
            for process in site.processes:
                process.die()
        tasks += world.parallel
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def play(make: Callable[[random.Random], World], script: Script, seed: int) -> World:
    """Run a script in a new world, with one seed for all randomness; return the world as it is at the end."""
    chance = random.Random(seed)
    worlds: list[World] = []

    async def main() -> None:
        world = make(chance)
        worlds.append(world)
        structlog.configure(processors=[_listener(world)], cache_logger_on_first_use=False)
        try:
            with patch("secrets.token_hex", lambda size: f"{chance.getrandbits(8 * size):0{2 * size}x}"):
                await _played(world, script)
        finally:
            structlog.reset_defaults()

    loop.run(main(), chance)
    return worlds[0]


def _listener(world: World) -> Callable[[Any, str, MutableMapping[str, Any]], str]:
    """A log processor that notes what is reported, and blames what must never be logged."""

    def listen(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        process = running.get()
        if process is not None and not process.dead:
            if event["event"] == "orphans":
                world.judge.reported |= set(event["volumes"]) | set(event["unreadable"])
            elif event["event"] == "attempt_left":
                world.judge.reported.add(event["volume"])
            elif event["event"] == "second_cluster" and not world.cloned:
                world.judge.blame(f"one cluster is mistaken for two: {event['sign']}")
            elif event["event"] == "unexpected_error" and not _is_planned(event["exc_info"]):
                world.judge.blame(f"an unexpected error of {event['loop']}: {event['exc_info']!r}")
        raise structlog.DropEvent

    return listen


def _is_planned(exc: BaseException) -> bool:
    """Whether an unexpected error comes from the plan."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_planned, exc.exceptions))
    return isinstance(exc, Unexpected)


def disturb_watches(world: World, *, rate: float) -> None:
    """Make watches late, break, expire and repeat events at random from now on; a rate of 0 ends that."""
    chance = world.chance

    async def deliver(_call: str, kind: str) -> None:
        drawn = chance.random()
        if drawn < rate / 4:
            raise ApiUnavailable(f"watch {kind}: broken off")
        if drawn < rate / 2:
            raise Expired(f"watch {kind}: gone")
        if drawn < 2 * rate:
            await asyncio.sleep(chance.uniform(0.0, 5.0))

    for site in world.sites:
        site.cluster.delivering = deliver
        site.cluster.again = lambda: chance.randrange(4) if chance.random() < rate else 0

"""runtime.reflector, in simulated time: what is cached after anything that can happen to a list or a watch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from provisioner.core.objects import Claim, SnapshotClass, StorageClass, Volume
from provisioner.ports.cluster import ApiUnavailable, ClusterError, Forbidden, KindMissing
from provisioner.runtime.informer import Informer
from provisioner.runtime.reflector import Reflector, relist
from tests.support import samples
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster

Result = TypeVar("Result")


class Scene:
    """A cluster, and the informers and reflectors of its objects."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.classes = Informer[StorageClass]("classes", key=lambda each: each.name)
        claims = Informer[Claim]("claims", key=lambda claim: claim.uid)
        volumes = Informer[Volume]("volumes", key=lambda volume: volume.name)
        self.calls: Counter[str] = Counter()
        self.error: ClusterError | None = None
        self.failing: tuple[str, ...] = ()
        self.cluster.before = self._before
        clock = LoopClock()
        self.reflectors = [
            Reflector(each, cluster=self.cluster, clock=clock, restarted=lambda _kind: None)
            for each in (claims, volumes, self.classes)
        ]

    async def _before(self, call: str, about: str) -> None:
        self.calls[f"{call} {about}"] += 1
        if self.error is not None and call in self.failing:
            raise self.error

    def fail(self, error: ClusterError | None, *calls: str) -> None:
        """Let these calls fail from now on."""
        self.error, self.failing = error, calls

    def make(self, name: str) -> None:
        """Create a class."""
        self.cluster.create("classes", {"metadata": {"name": name}, "provisioner": samples.US})

    @property
    def known(self) -> set[str]:
        """The names of the cached classes."""
        return set(self.classes)

    @property
    def trouble(self) -> set[str]:
        """The troubles that the reflectors report."""
        return {each.trouble for each in self.reflectors} - {""}


@asynccontextmanager
async def reflecting() -> AsyncIterator[Scene]:
    """A scene whose reflectors have listed all kinds."""
    scene = Scene()
    scene.make("first")
    tasks = [asyncio.create_task(each.run()) for each in scene.reflectors]
    await asyncio.sleep(0.1)
    assert scene.known == {"first"}
    yield scene
    for task in tasks:
        task.cancel()


def played(script: Callable[[Scene], Awaitable[Result]]) -> Result:
    """Run a script in simulated time."""

    async def run() -> Result:
        async with reflecting() as scene:
            return await script(scene)

    return simulate(run())


def test_changes_arrive() -> None:
    """A created object is cached immediately, a deleted one is gone, and watches resume without a list."""

    async def script(scene: Scene) -> None:
        for number in range(20):
            scene.make(f"class-{number}")
            await asyncio.sleep(30.0)
            assert f"class-{number}" in scene.known
        scene.cluster.delete("classes", "first")
        await asyncio.sleep(1.0)
        assert "first" not in scene.known
        assert scene.calls["list classes"] == 1

    played(script)


def test_a_restore_of_etcd_is_noticed_when_the_watch_resumes() -> None:
    """After a restore of etcd and broken watches, restored, lost and new objects are known correctly."""

    async def script(scene: Scene) -> None:
        scene.make("came-back")
        saved = scene.cluster.saved()
        scene.cluster.delete("classes", "came-back")
        scene.make("went")
        for number in range(50):
            scene.make(f"more-{number}")
        await asyncio.sleep(1.0)
        assert "came-back" not in scene.known
        assert "went" in scene.known
        scene.cluster.restore(saved)
        await asyncio.sleep(51.0)
        scene.make("right-after")
        await asyncio.sleep(1.0)
        assert scene.known == {"first", "came-back", "right-after"}

    played(script)


def test_a_restore_behind_an_outage_is_noticed_whatever_the_versions() -> None:
    """After an outage everything is listed again: the restored cluster may have passed the last known version."""

    async def script(scene: Scene) -> None:
        scene.make("came-back")
        saved = scene.cluster.saved()
        scene.cluster.delete("classes", "came-back")
        await asyncio.sleep(1.0)
        scene.cluster.restore(saved)
        for number in range(50):
            scene.make(f"more-{number}")
        scene.fail(ApiUnavailable("down"), "list", "watch", "version")
        await asyncio.sleep(100.0)
        scene.fail(None)
        await asyncio.sleep(16.0)
        assert "came-back" in scene.known

    played(script)


def test_a_watch_with_an_older_version_is_not_followed() -> None:
    """An event with a version below the last one is not applied, and causes a list."""

    async def script(scene: Scene) -> None:
        scene.cluster.again = lambda: 2
        before = scene.calls["list classes"]
        for name in ("second", "third", "fourth"):
            scene.make(name)
            await asyncio.sleep(1.0)
        assert scene.calls["list classes"] == before + 1
        assert scene.known == {"first", "second", "third", "fourth"}

    played(script)


def test_a_version_that_is_forgotten_lists_again() -> None:
    """A compacted etcd costs one list, and nothing is missed."""

    async def script(scene: Scene) -> None:
        scene.make("second")
        scene.cluster.expire()
        await asyncio.sleep(60.0)
        assert scene.known == {"first", "second"}
        assert scene.calls["list classes"] == 2

    played(script)


def test_relist() -> None:
    """relist() returns after lists that began after the call, also during a silent watch or an outage."""

    async def script(scene: Scene) -> None:
        await relist(scene.reflectors)
        assert scene.calls["list classes"] == 2
        scene.fail(ApiUnavailable("down"), "list", "watch", "version")
        asked = asyncio.create_task(relist(scene.reflectors))
        await asyncio.sleep(60.0)
        assert not asked.done()
        scene.fail(None)
        more = asyncio.create_task(relist(scene.reflectors))
        await asyncio.sleep(0.0)
        await asyncio.wait_for(asyncio.gather(asked, more), 16.0)

    played(script)


def test_a_demanded_list_survives_an_unexpected_error() -> None:
    """If a reflector crashes just when a list is demanded, it lists after its restart."""

    async def script(scene: Scene) -> None:
        reflector = Reflector(scene.classes, cluster=scene.cluster, clock=LoopClock(), restarted=lambda _kind: None)
        asked: list[asyncio.Event] = []

        async def before(call: str, _about: str) -> None:
            if call == "watch" and not asked:
                asked.append(reflector.relist())
                raise RuntimeError("planted")

        scene.cluster.before = before
        with pytest.raises(RuntimeError, match="planted"):
            await reflector.run()
        again = asyncio.create_task(reflector.run())
        async with asyncio.timeout(60.0):
            await asked[0].wait()
        again.cancel()

    played(script)


def test_lists_are_repeated_in_time() -> None:
    """A change that no watch delivered is known after some hours."""

    async def script(scene: Scene) -> None:
        scene.classes.replace([])
        assert scene.known == set()
        await asyncio.sleep(4 * 3600.0)
        assert scene.known == {"first"}
        assert scene.calls["list classes"] == 2

    played(script)


@pytest.mark.parametrize("calls", [("list", "version"), ("watch",)])
def test_a_missing_right_is_trouble_until_it_is_granted(calls: tuple[str, ...]) -> None:
    """A missing right to list or watch is reported from the first refusal until it is granted."""

    async def script(scene: Scene) -> None:
        assert scene.trouble == set()
        scene.fail(Forbidden("list /x: 403 it is forbidden"), *calls)
        await asyncio.sleep(51.0)
        assert {"403" in text and "grant list and watch" in text for text in scene.trouble} == {True}
        scene.fail(None)
        await asyncio.sleep(20.0)
        assert scene.trouble == set()

    played(script)


def test_a_kind_that_the_cluster_lacks() -> None:
    """A kind without a CRD is empty and no trouble, and its objects appear once the CRD does."""

    async def script() -> None:
        cluster, lacking = MemoryCluster(), True
        cluster.create("snapshot_classes", {"metadata": {"name": "snaps"}, "driver": samples.US})

        async def before(_call: str, about: str) -> None:
            if lacking and about == "snapshot_classes":
                raise KindMissing("list /x: 404 page not found")

        cluster.before = before
        classes = Informer[SnapshotClass]("snapshot_classes", key=lambda each: each.name)
        reflector = Reflector(classes, cluster=cluster, clock=LoopClock(), restarted=lambda _kind: None)
        task = asyncio.create_task(reflector.run())
        await asyncio.sleep(1.0)
        assert (classes.synced, set(classes), reflector.trouble) == (True, set(), "")
        async with asyncio.timeout(1.0):
            await reflector.relist().wait()
        lacking = False
        await asyncio.sleep(20.0)
        assert set(classes) == {"snaps"}
        lacking = True
        await asyncio.sleep(120.0)
        assert set(classes) == set()
        task.cancel()

    simulate(script())


def test_a_kind_that_every_cluster_has() -> None:
    """A 404 for a kind that every cluster has comes from elsewhere: the cache keeps what it has."""

    async def script(scene: Scene) -> None:
        scene.fail(KindMissing("list /x: 404 page not found"), "list", "version", "watch")
        await asyncio.sleep(120.0)
        assert scene.known == {"first"}
        assert scene.trouble != set()

    played(script)


def test_a_hiccup_is_no_trouble() -> None:
    """A single failure is not reported, an outage is."""

    async def script(scene: Scene) -> None:
        scene.fail(ApiUnavailable("down"), "version", "list")
        await asyncio.sleep(48.2)
        assert scene.calls["version classes"] > 0
        assert scene.trouble == set()
        await asyncio.sleep(30.0)
        assert scene.trouble == {"down"}

    played(script)

"""controllers.export_health and unused_exports, in simulated time: each export is probed and forgotten alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.export_health import ExportHealth
from provisioner.controllers.unused_exports import UnusedExports
from provisioner.core import names
from provisioner.core.locations import Location, RelPath
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import NfsSource, Volume
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError
from provisioner.telemetry.metrics import Metrics
from tests.support import samples
from tests.support.context import controller_context
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree

MINUTE_S = 60.0
NAS, OTHER = Location("nas", "/exports"), Location("other", "/")


class OddTree(MemoryTree):
    """A tree that counts its calls, and raises unexpected errors on demand."""

    def __init__(self) -> None:
        super().__init__(before=self._before_call)
        self.odd: BaseException | None = None
        self.calls = 0
        self.closed = False

    async def _before_call(self, _call: str, _path: RelPath) -> None:
        self.calls += 1
        if self.odd is not None:
            raise self.odd

    async def close(self) -> None:
        """See `Tree`."""
        self.closed = True


class Site:
    """A leader with one mounted export, and others that classes and volumes name."""

    def __init__(self, *, trusts_ledgers: bool = True) -> None:
        """With `trusts_ledgers` a ledger is accepted whatever the volumes on its export carry."""
        self.metrics, clock, cluster = Metrics(), LoopClock(), MemoryCluster()
        self.trees: dict[Location, OddTree] = {NAS: OddTree()}
        self.exports = ExportRegistry({NAS: Export(NAS, self.trees[NAS])}, NAS, self._reach)
        self.cache = ClusterCache(samples.US)
        marked = (lambda where: ()) if trusts_ledgers else self.cache.marked
        self.health = ExportHealth(self.exports, clock, self.metrics, marked=marked)
        for informer in self.cache.informers:
            informer.replace([])
        self.ctx = controller_context(
            cluster=cluster,
            cache=self.cache,
            exports=self.exports,
            health=self.health,
            metrics=self.metrics,
            clock=clock,
        )

    def _reach(self, where: Location, options: MountOptions) -> tuple[Export, SetRoutes]:
        pool = ConnectionPool(Credentials(uid=0, gid=0), timeout_s=1.0)
        direct = DirectTree(where, pool, version=None, port=None, mount_port=None, observe=lambda *_: None)
        self.trees[where] = OddTree()
        name = str(where) if options.port is None else f"{where} port {options.port}"
        return Export(where, self.trees[where], name=name), direct.set_routes

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Check exports, and forget unused ones, while the context is open."""
        tasks = [asyncio.create_task(each) for each in (self.health.run(), UnusedExports(self.ctx).run())]
        await self.health.lead()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended)

    def add_class(self, where: Location = OTHER) -> Export:
        """Create a class that names an export, and notify its controller."""
        parameters = {"server": where.server, "share": where.path}
        self.cache.classes.apply(samples.storage_class(parameters), deleted=False)
        export = self.exports.get(where, MountOptions())
        self.health.add(export, named=True)
        return export

    def delete_class(self) -> None:
        self.cache.classes.apply(samples.storage_class(), deleted=True)

    def add_volume(
        self, name: str, where: Location, directory: str = "a", phase: str = "Released"
    ) -> tuple[Volume, Export]:
        """Create a volume with the annotations of this provisioner, and notify its controller."""
        source = NfsSource(where.server, where.below((directory,)))
        volume = samples.volume(name=name, phase=phase, nfs=source, annotations={names.DIRECTORY: directory})
        self.cache.volumes.apply(volume, deleted=False)
        located = self.exports.locate(volume)
        assert located is not None
        self.health.add(located[0], named=False)
        return volume, located[0]

    def series(self, export: Export) -> list[str]:
        """The names of an export's metrics."""
        return [
            sample.name
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.labels.get("export") == export.name
        ]


def played(scene: Coroutine[Any, Any, None]) -> None:
    simulate(scene)


@pytest.mark.parametrize("odd", [RuntimeError("odd"), UnicodeError("label too long"), RecursionError()], ids=repr)
def test_an_unexpected_error_of_one_export(odd: Exception) -> None:
    """The export is unusable, with a message, until the error has passed; all others are checked as before."""

    async def scene() -> None:
        site = Site()
        export, heard = site.add_class(), list[str]()
        good = next(iter(site.exports))
        site.trees[OTHER].odd = odd
        async with site.at_work():
            with site.health.listening(lambda each: heard.append(each.name)):
                await asyncio.sleep(10 * MINUTE_S)
                assert heard == [good.name]
                await site.health.require_ready(good)
                with pytest.raises(ExportError) as caught:
                    await site.health.require_ready(export)
                assert caught.value.cause is Cause.UNEXPECTED
                assert site.trees[NAS].calls > 2 * site.trees[OTHER].calls
                site.trees[OTHER].odd = None
                await asyncio.sleep(1.5 * MINUTE_S)
                assert heard == [good.name, export.name]
                await site.health.require_ready(export)

    played(scene())


def test_an_export_that_does_not_answer() -> None:
    """An export that does not respond is unusable after some seconds, with the hint for its kind of access."""

    async def hang(_call: str, _path: RelPath) -> None:
        await asyncio.Event().wait()

    async def scene() -> None:
        site = Site()
        export = next(iter(site.exports))
        async with site.at_work():
            await site.health.require_ready(export)
            site.trees[NAS].before = hang
            await asyncio.sleep(MINUTE_S)
            with pytest.raises(ExportError, match="no answer within 4 s") as caught:
                await site.health.require_ready(export)
            assert caught.value.cause is Cause.UNREACHABLE
            assert caught.value.advice == site.trees[NAS].unreachable_hint == "see that the memory answers"

    played(scene())


def test_a_listener_that_fails() -> None:
    """A listener that raises keeps the news from no other one, and the export is checked as before."""

    async def scene() -> None:
        site, heard = Site(), list[str]()

        def fails(_: Export) -> None:
            raise RuntimeError("odd")

        async with site.at_work():
            with site.health.listening(fails), site.health.listening(lambda each: heard.append(each.name)):
                export = site.add_class()
                await asyncio.sleep(MINUTE_S)
                await site.health.require_ready(export)
        assert heard == ["nas:/exports", export.name]

    played(scene())


def test_an_export_that_nothing_names_any_more() -> None:
    """It is forgotten with its probes, series and connections, and checked again once it is named again."""

    async def scene() -> None:
        site = Site()
        export, forgotten = site.add_class(), list[Export]()
        volume, _ = site.add_volume("v1", OTHER)
        with capture_logs() as logs:
            async with site.at_work():
                with site.health.listening(lambda _: None, forgotten=forgotten.append):
                    await asyncio.sleep(10 * MINUTE_S)
                    site.delete_class()
                    await asyncio.sleep(10 * MINUTE_S)
                    assert export in site.exports, "a volume names it"
                    site.cache.volumes.apply(volume, deleted=True)
                    site.health.touch(export)
                    await asyncio.sleep(4 * MINUTE_S)
                    assert export in site.exports, "it is in use"
                    assert site.series(export)
                    await asyncio.sleep(3 * MINUTE_S)
                    assert forgotten == [export]
                    assert [each.location for each in site.exports] == [NAS]
                    calls, old = site.trees[OTHER].calls, site.trees[OTHER]
                    assert old.closed
                    await asyncio.sleep(10 * MINUTE_S)
                    assert old.calls == calls
                    assert not site.series(export)
                    with pytest.raises(ExportError):
                        await site.health.require_ready(export)
                    again = site.add_class()
                    assert again is not export
                    await site.health.require_ready(again)
                    assert site.series(again)
        assert [line["export"] for line in logs if line["event"] == "export_forgotten"] == [export.name]

    played(scene())


def test_exports_that_only_volumes_name() -> None:
    """Forged volumes create no series, and their exports are forgotten with them."""

    async def scene() -> None:
        site = Site()
        async with site.at_work():
            made = [site.add_volume(f"v{number}", Location(f"nas{number}", "/x")) for number in range(20)]
            await asyncio.sleep(MINUTE_S)
            assert not [name for _, export in made for name in site.series(export)]
            for volume, _ in made:
                site.cache.volumes.apply(volume, deleted=True)
            await asyncio.sleep(7 * MINUTE_S)
            assert len(list(site.exports)) == 1
            assert all(tree.closed for where, tree in site.trees.items() if where != NAS)

    played(scene())


def test_an_export_that_was_only_met_is_not_named() -> None:
    """An export that a forged volume names, and that is not checked, does not count as named."""

    async def scene() -> None:
        site = Site()
        async with site.at_work():
            source = NfsSource(OTHER.server, OTHER.below(("a",)))
            located = site.exports.locate(samples.volume(nfs=source, annotations={names.DIRECTORY: "a"}))
            assert located is not None
            assert located[0] in list(site.exports)
            assert not site.health.is_named(located[0])

    played(scene())


def test_a_class_of_another_way() -> None:
    """If a class names an export at its own port only, a volume with another port gets no ledger created there."""

    async def scene() -> None:
        site = Site()
        site.add_class()
        source = NfsSource(OTHER.server, OTHER.below(("a",)))
        volume = samples.volume(nfs=source, annotations={names.DIRECTORY: "a"})
        forged = structs.replace(volume, spec=structs.replace(volume.spec, mount_options=("port=9999",)))
        async with site.at_work():
            site.cache.volumes.apply(forged, deleted=False)
            located = site.exports.locate(forged)
            assert located is not None
            site.health.add(located[0], named=False)
            await asyncio.sleep(5 * MINUTE_S)
            with pytest.raises(ExportError) as caught:
                await site.health.require_ready(located[0])
            assert caught.value.cause is Cause.NO_LEDGER

    played(scene())


def test_a_ledger_that_volumes_do_not_know() -> None:
    """An export gets no ledger, and is not used, while its volumes carry another export's id; the error says so."""

    async def scene() -> None:
        site = Site(trusts_ledgers=False)
        export = next(iter(site.exports))
        volume, _ = site.add_volume("v1", NAS, phase="Bound")
        site.cache.volumes.apply(samples.volume(name="elsewhere", annotations={}), deleted=False)
        async with site.at_work():
            await asyncio.sleep(MINUTE_S)
            with pytest.raises(ExportError) as caught:
                await site.health.require_ready(export)
            assert caught.value.cause is Cause.CHANGED
            assert "recover --ledger" in caught.value.advice
            assert list(site.health.failing()) == ["nas:/exports"]
            assert not site.trees[NAS].root.entries
            site.cache.volumes.apply(volume, deleted=True)
            await asyncio.sleep(MINUTE_S)
            await site.health.require_ready(export)
            assert not site.health.failing()

    played(scene())


def test_a_volume_that_no_claim_has() -> None:
    """A volume that is not Bound, such as a forged one, does not keep an export from getting its ledger."""

    async def scene() -> None:
        site = Site(trusts_ledgers=False)
        export = site.add_class()
        site.add_volume("forged", NAS)
        async with site.at_work():
            await asyncio.sleep(MINUTE_S)
            await site.health.require_ready(export)

    played(scene())


def test_volumes_at_another_port() -> None:
    """Volumes on the same path at another port do not affect this export."""

    async def scene() -> None:
        site = Site(trusts_ledgers=False)
        export = site.add_class()
        source = NfsSource(OTHER.server, OTHER.below(("a",)))
        volume = samples.volume(
            name="v1",
            phase="Bound",
            nfs=source,
            annotations={names.DIRECTORY: "a"},
            mount_options=("port=12049",),
        )
        site.cache.volumes.apply(volume, deleted=False)
        async with site.at_work():
            await asyncio.sleep(MINUTE_S)
            await site.health.require_ready(export)

    played(scene())

"""controllers.schedules: periodic snapshots, also after an outage, and what is never deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import structs

from provisioner.controllers.schedules import AGAIN_S, EVERY_S, Schedules
from provisioner.core import names
from provisioner.core.objects import Claim
from provisioner.ports.cluster import Forbidden, KindMissing
from tests.support import samples
from tests.support.fakes.clock import simulate
from tests.unit.controllers.test_snapshots import SnapshotSite

HOUR_S = 3600.0


class ScheduleSite(SnapshotSite):
    """A leader with a bound claim whose class makes a snapshot per hour and keeps two."""

    def __init__(self) -> None:
        super().__init__()
        self.set_class(schedule="0 * * * *", keep="2")
        self.schedules = Schedules(self.ctx)

    def set_class(self, **parameters: str) -> None:
        """Replace the parameters of the StorageClass."""
        self.cache.classes.apply(samples.storage_class(parameters=parameters), deleted=False)

    async def look(self) -> None:
        """Let the cache see everything, and look."""
        await self.see()
        await self.schedules.look()

    async def see(self) -> None:
        """Let the cache see everything."""
        self.cache.snapshots.replace((await self.cluster.list("snapshots")).items)  # type: ignore[arg-type]
        self.cache.snapshot_classes.replace((await self.cluster.list("snapshot_classes")).items)  # type: ignore[arg-type]

    def names(self) -> list[str]:
        """The names of all snapshots."""
        return [snapshot.key for snapshot in self.cluster.snapshots()]

    def finish(self) -> None:
        """Let all snapshots become ready."""
        for name in self.names():
            self.cluster.change("snapshots", name, lambda body: body.update(status={"readyToUse": True}))


def played(script: Callable[[ScheduleSite, Claim], Awaitable[None]]) -> None:
    """Run a script in simulated time, which begins at midnight, on a site with a bound claim."""

    async def scene() -> None:
        site = ScheduleSite()
        async with site.led():
            claim = await site.bound()
            site.snapshot_class()
            await script(site, claim)

    simulate(scene())


def test_every_hour() -> None:
    """A snapshot is created per hour, with the class of the driver; the oldest go once the newest is ready."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await site.look()
        assert site.names() == []
        for _ in range(4):
            await asyncio.sleep(HOUR_S)
            await site.look()
            await site.look()
            site.finish()
        assert site.names() == [f"shop/data-20260101{hour:02}00" for hour in (2, 3, 4)]
        await site.look()
        assert site.names() == ["shop/data-202601010300", "shop/data-202601010400"]
        body = site.cluster.body("snapshots", "shop/data-202601010400")
        assert body is not None
        assert body["spec"]["volumeSnapshotClassName"] == "snaps"
        assert body["metadata"]["labels"] == {names.SCHEDULED: claim.uid}

    played(script)


def test_an_outage() -> None:
    """What was due during an outage is made once, also by a replica that never led before."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await asyncio.sleep(5.5 * HOUR_S)
        await site.look()
        site.finish()
        assert site.names() == ["shop/data-202601010500"]
        await site.see()
        await Schedules(site.ctx).look()
        assert site.names() == ["shop/data-202601010500"]

    played(script)


def test_the_loop() -> None:
    """It looks periodically, and creates nothing twice although its cache is behind."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await site.see()
        running = asyncio.create_task(site.schedules.run())
        await asyncio.sleep(HOUR_S + 3 * EVERY_S)
        assert site.names() == ["shop/data-202601010100"]
        await Schedules(site.ctx).look()
        assert site.names() == ["shop/data-202601010100"]
        running.cancel()

    played(script)


def test_a_snapshot_that_a_user_deletes() -> None:
    """A scheduled snapshot that was deleted is not made again."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await asyncio.sleep(HOUR_S)
        await site.look()
        site.cluster.delete("snapshots", "shop/data-202601010100")
        await site.look()
        assert site.names() == []

    played(script)


def test_a_snapshot_that_a_user_keeps() -> None:
    """A snapshot whose label was removed in between stays."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        for _ in range(3):
            await asyncio.sleep(HOUR_S)
            await site.look()
            site.finish()
        await site.see()
        oldest = "shop/data-202601010100"
        site.cluster.change("snapshots", oldest, lambda body: body["metadata"].update(labels={}))
        await site.schedules.look()
        assert oldest in site.names()

    played(script)


def test_whose_volumes() -> None:
    """Only bound claims with a volume of this provisioner get snapshots, and only by a class that can be used."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await asyncio.sleep(HOUR_S)
        (volume,) = site.cache.volumes.values()
        foreign = structs.replace(volume, metadata=structs.replace(volume.metadata, annotations={}))
        site.cache.volumes.apply(foreign, deleted=False)
        await site.look()
        site.cache.volumes.apply(volume, deleted=False)
        pending = structs.replace(claim, status=structs.replace(claim.status, phase="Pending"))
        site.cache.claims.apply(pending, deleted=False)
        await site.look()
        site.seen("data")
        site.set_class(schedule="hourly")
        await site.look()
        site.set_class()
        await site.look()
        assert site.names() == []
        site.set_class(schedule="0 * * * *")
        await site.look()
        assert site.names() == ["shop/data-202601010100"]
        site.cache.claims.apply(site.seen("data"), deleted=True)
        await site.look()

    played(script)


@pytest.mark.parametrize("what", ["disabled", "no CRDs", "no class"])
def test_what_is_missing(what: str) -> None:
    """An event on the claim says what is missing, and the snapshot is made once it is there."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await asyncio.sleep(HOUR_S)
        site.cluster.delete("snapshot_classes", "snaps")
        site.cache.with_snapshots = what != "disabled"

        async def lacking(call: str, _about: str) -> None:
            if call == "version" and what == "no CRDs":
                raise KindMissing("no")

        site.cluster.before = lacking
        for _ in range(3):
            await site.look()
        message = (await site.messages("data"))[-1]
        assert {"disabled": "not enabled", "no CRDs": "lacks the CRDs", "no class": "no VolumeSnapshotClass"}[
            what
        ] in message
        site.snapshot_class()
        site.cache.with_snapshots = True
        await asyncio.sleep(AGAIN_S)
        await site.look()
        assert site.names() == ["shop/data-202601010100"]

    played(script)


def test_an_api_server_that_refuses() -> None:
    """A refusal is an event on the claim, and the snapshot is tried again after a while."""

    async def script(site: ScheduleSite, claim: Claim) -> None:
        await asyncio.sleep(HOUR_S)
        asked: list[str] = []

        async def refuse(call: str, about: str) -> None:
            if call == "create_snapshot":
                asked.append(about)
                raise Forbidden("exceeded quota")

        site.cluster.before = refuse
        for _ in range(3):
            await site.look()
        assert asked == ["shop/data-202601010100"]
        assert any("exceeded quota" in each for each in await site.messages("data"))

        async def fine(_call: str, _about: str) -> None:
            """No fault."""

        site.cluster.before = fine
        await asyncio.sleep(AGAIN_S)
        await site.look()
        assert site.names() == ["shop/data-202601010100"]

    played(script)

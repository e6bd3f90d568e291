"""runtime.events, in simulated time: which events are written, under which names, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import pytest

from provisioner.core.events import MESSAGE_LIMIT
from provisioner.ports.cluster import ApiUnavailable, Cluster, Event
from provisioner.runtime.events import EventRecorder
from tests.support import samples
from tests.support.fakes.clock import LoopClock, simulate


@dataclass
class Written:
    """One write of an event."""

    event: Event
    count: int
    name: str
    first_seen: datetime
    seen: datetime


class Events:
    """The part of a cluster that a recorder uses."""

    def __init__(self) -> None:
        self.written: list[Written] = []
        self.failing = False
        self.odd: BaseException | None = None

    async def record_event(self, event: Event, **how: Any) -> None:
        """See `Cluster`."""
        await asyncio.sleep(0.01)
        if self.odd is not None:
            raise self.odd
        if self.failing:
            raise ApiUnavailable("no")
        self.written.append(Written(event, **how))


def written(scene: Callable[[EventRecorder, Events], Awaitable[None]]) -> list[Written]:
    """All events that a scene has written by its end."""

    async def run() -> list[Written]:
        events = Events()
        recorder = EventRecorder(cast(Cluster, events), LoopClock())
        task = asyncio.create_task(recorder.run())
        await scene(recorder, events)
        await recorder.drain()
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return events.written

    return simulate(run())


def test_what_is_written() -> None:
    """An event refers to its claim or volume by name, uid and version."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        recorder.claim(samples.claim(), "Warning", "ProvisioningFailed", "no")
        recorder.volume(samples.volume(), "Normal", "Done", "yes")

    claim, volume = sorted(written(scene), key=lambda each: each.event.reason, reverse=True)
    about = claim.event.about
    assert (about.kind, about.namespace, about.name, about.uid, about.resource_version) == (
        "PersistentVolumeClaim", "shop", "data", samples.UID, "7",
    )  # fmt: skip
    assert (claim.event.type, claim.event.reason, claim.event.message) == ("Warning", "ProvisioningFailed", "no")
    assert (volume.event.about.kind, volume.event.about.namespace) == ("PersistentVolume", "")
    assert (claim.count, claim.first_seen) == (1, claim.first_seen)


def test_repetitions_are_counted() -> None:
    """An event that is repeated every second is written rarely, under one name, with its count and first time."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        for _ in range(200):
            recorder.claim(samples.claim(), "Warning", "ProvisioningFailed", "no")
            await asyncio.sleep(1)

    said = written(scene)
    assert [each.count for each in said] == [1, 2, 3]
    assert len({each.name for each in said}) == 1
    assert len({each.first_seen for each in said}) == 1
    assert [round((each.seen - each.first_seen).total_seconds()) for each in said] == [0, 30, 90]


@pytest.mark.parametrize(
    ("uid", "kind", "reason", "message"),
    [
        ("other", "Warning", "Failed", "no"),
        (samples.UID, "Normal", "Failed", "no"),
        (samples.UID, "Warning", "Other", "no"),
        (samples.UID, "Warning", "Failed", "other"),
    ],
)
def test_different_things_have_different_names(uid: str, kind: str, reason: str, message: str) -> None:
    """Different messages are different events, also if only the claim's uid differs; neither holds back the other."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        recorder.claim(samples.claim(), "Warning", "Failed", "no")
        recorder.claim(samples.claim(uid=uid), "Warning" if kind == "Warning" else "Normal", reason, message)

    said = written(scene)
    assert [each.count for each in said] == [1, 1]
    assert len({each.name for each in said}) == 2


def test_names_are_stable_and_legal() -> None:
    """The name of an event is the same after a restart, and is valid for every name of a claim."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        recorder.claim(samples.claim(name="a" * 199 + "-.b" + "c" * 51), "Warning", "Failed", "no\udcff")

    (first,), (second,) = written(scene), written(scene)
    assert first.name == second.name
    assert len(first.name) <= 253
    stem, _, digest = first.name.rpartition(".")
    assert stem == "a" * 199
    assert digest.isalnum()


def test_long_messages_are_clipped() -> None:
    """A message is never longer than the API server accepts."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        recorder.claim(samples.claim(), "Warning", "Failed", "x" * 5000)

    (said,) = written(scene)
    assert len(said.event.message) == MESSAGE_LIMIT


def test_an_outage_loses_news_only() -> None:
    """An event that cannot be written is dropped, and the next ones are written."""

    async def scene(recorder: EventRecorder, events: Events) -> None:
        events.failing = True
        recorder.claim(samples.claim(), "Warning", "Failed", "no")
        await asyncio.sleep(1)
        events.failing = False
        recorder.claim(samples.claim(), "Normal", "Succeeded", "yes")

    (said,) = written(scene)
    assert said.event.reason == "Succeeded"


def test_a_flood() -> None:
    """The backlog has a limit, and keeps the latest events."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        for number in range(20_500):
            recorder.claim(samples.claim(uid=str(number)), "Warning", "Failed", "no")

    said = written(scene)
    assert len(said) == 20_000
    assert {each.event.about.uid for each in said} == {str(number) for number in range(500, 20_500)}


@pytest.mark.parametrize("odd", [RuntimeError("odd"), asyncio.CancelledError(), RecursionError()], ids=repr)
def test_an_unexpected_error_loses_one_event(odd: BaseException) -> None:
    """An unexpected error in a write loses that event; the same number of senders writes the later ones."""

    async def scene(recorder: EventRecorder, events: Events) -> None:
        events.odd = odd
        for number in range(20):
            recorder.claim(samples.claim(uid=str(number)), "Warning", "Failed", "no")
        await asyncio.sleep(1)
        events.odd = None
        for number in range(20, 24):
            recorder.claim(samples.claim(uid=str(number)), "Normal", "Succeeded", "yes")
        await asyncio.sleep(0.015)
        assert len(events.written) == 4, "all four senders are there"

    assert len(written(scene)) == 4


def test_a_burst_of_work() -> None:
    """While claims wait for a worker, Normal events wait too, for ten seconds; Warning events do not."""

    async def scene(recorder: EventRecorder, events: Events) -> None:
        recorder.give_way_while(lambda: True)
        recorder.claim(samples.claim(), "Normal", "Provisioning", "soon")
        recorder.claim(samples.claim(), "Warning", "Failed", "no")
        await asyncio.sleep(9)
        assert [each.event.type for each in events.written] == ["Warning"]
        await asyncio.sleep(2)
        assert [each.event.type for each in events.written] == ["Warning", "Normal"]
        recorder.claim(samples.claim(), "Normal", "Succeeded", "yes")
        await asyncio.sleep(1)
        recorder.give_way_while(lambda: False)
        await asyncio.sleep(0.2)
        assert len(events.written) == 3, "written when the burst ends"

    written(scene)


def test_a_long_burst_of_work() -> None:
    """Events do not wait once ten thousand do, so that none is dropped."""

    async def scene(recorder: EventRecorder, events: Events) -> None:
        recorder.give_way_while(lambda: True)
        for number in range(10_100):
            recorder.claim(samples.claim(uid=str(number)), "Normal", "Provisioning", "soon")
        await asyncio.sleep(1)
        assert 100 <= len(events.written) <= 104

    assert len(written(scene)) == 10_100


def test_an_event_that_its_successor_replaces() -> None:
    """A passing event is not written if the next event on its object is recorded before; another object's is."""

    async def scene(recorder: EventRecorder, events: Events) -> None:
        recorder.give_way_while(lambda: True)
        for uid in ("a", "b"):
            recorder.claim(samples.claim(uid=uid), "Normal", "Provisioning", "soon", passing=True)
        recorder.claim(samples.claim(uid="a"), "Normal", "Succeeded", "yes")
        await asyncio.sleep(11)
        assert [(each.event.about.uid, each.event.reason) for each in events.written] == [
            ("b", "Provisioning"), ("a", "Succeeded"),
        ]  # fmt: skip
        recorder.claim(samples.claim(uid="b"), "Normal", "Succeeded", "yes")
        recorder.claim(samples.claim(uid="a"), "Normal", "Provisioning", "soon", passing=True)

    assert [(each.event.reason, each.count) for each in written(scene)[2:]] == [("Succeeded", 1), ("Provisioning", 1)]


def test_an_event_with_news_of_its_own() -> None:
    """An event that is not passing is written, whatever follows it."""

    async def scene(recorder: EventRecorder, _events: Events) -> None:
        recorder.give_way_while(lambda: True)
        recorder.claim(samples.claim(), "Normal", "Provisioning", "soon; ignored annotations: x")
        recorder.claim(samples.claim(), "Normal", "Succeeded", "yes")

    assert len(written(scene)) == 2

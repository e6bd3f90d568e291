"""What the API server reports about claims, volumes and events, with timestamps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from demo.objects import Object, Objects
from demo.scenario import Scenario
from provisioner.ports.cluster import ClusterError

VOLUMES = "/api/v1/persistentvolumes"


class StoryFailed(Exception):
    """Something did not happen in time; the text says what."""


@dataclass(slots=True)
class Sight:
    """What was seen of one claim and its volume, with times of time.monotonic(), or None.

    `claimed_s` and `deleted_s` are the times of the demonstration's requests. For a claim that a controller creates,
    `claimed_s` is the time of the first watch event.
    """

    claim: Object = field(default_factory=dict)
    volume: Object = field(default_factory=dict)
    claim_gone: bool = False
    warnings: list[str] = field(default_factory=list)
    claimed_s: float | None = None
    made_s: float | None = None
    bound_s: float | None = None
    deleted_s: float | None = None
    volume_gone_s: float | None = None

    @property
    def phase(self) -> str:
        """The phase of the claim in the API, "" before its creation, or "deleted"."""
        if not self.claim:
            return ""
        return "deleted" if self.claim_gone else str(self.claim.get("status", {}).get("phase", "Pending"))

    @property
    def volume_phase(self) -> str:
        """The last phase of the volume, "" if there is none."""
        return "" if self.volume_gone_s else str(self.volume.get("status", {}).get("phase", ""))

    @property
    def to_volume_s(self) -> float | None:
        """Seconds from the claim to the first event of its volume."""
        return None if self.claimed_s is None or self.made_s is None else self.made_s - self.claimed_s

    @property
    def to_bound_s(self) -> float | None:
        """Seconds from the claim to the event that it is Bound."""
        return None if self.claimed_s is None or self.bound_s is None else self.bound_s - self.claimed_s

    @property
    def to_reclaimed_s(self) -> float | None:
        """Seconds from the deletion of the claim to the event that its volume is deleted."""
        if self.deleted_s is None or self.volume_gone_s is None:
            return None
        return self.volume_gone_s - self.deleted_s


class Observer:
    """Watches the namespace of a scenario.

    It calls `changed` with the name of the claim at each event.
    """

    def __init__(self, objects: Objects, scenario: Scenario, changed: Callable[[str], None]) -> None:
        self.sights = {claim.name: Sight() for claim in scenario.claims()}
        self._objects = objects
        self._namespace = scenario.namespace
        self._changed = changed
        self._failure = ""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch for the length of the context."""
        inside = f"/api/v1/namespaces/{self._namespace}"
        watches = {
            f"{inside}/persistentvolumeclaims": self._claim,
            VOLUMES: self._volume,
            f"{inside}/events": self._event,
        }
        tasks = [asyncio.create_task(self._follow(path, see)) for path, see in watches.items()]
        try:
            # Every watch must run before the first claim: otherwise the times would be those of the start of the watch.
            await self.until(
                lambda: watches.keys() <= self._objects.watches_answered,
                "the API server answers the watches",
                timeout_s=30.0,
            )
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def until(self, condition: Callable[[], bool], what: str, *, timeout_s: float) -> None:
        """Return once the condition holds.

        Raises StoryFailed at the time limit, or if a watch fails.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if self._failure:
                raise StoryFailed(self._failure)
            if time.monotonic() > deadline_s:
                raise StoryFailed(f"not within {timeout_s:.0f} s: {what}")
            await asyncio.sleep(0.02)

    async def _follow(self, path: str, see: Callable[[str, Object], None]) -> None:
        try:
            async for change, seen in self._objects.watch(path):
                see(change, seen)
            self._failure = f"the API server ended the watch of {path}"
        except ClusterError as exc:
            self._failure = str(exc)

    def _claim(self, change: str, claim: Object) -> None:
        sight, now_s = self.sights.get(claim["metadata"]["name"]), time.monotonic()
        if sight is None:
            return
        sight.claim = claim
        sight.claimed_s = sight.claimed_s or now_s
        if claim.get("status", {}).get("phase") == "Bound":
            sight.bound_s = sight.bound_s or now_s
        if change == "DELETED":
            sight.claim_gone = True
        self._changed(claim["metadata"]["name"])

    def _volume(self, change: str, volume: Object) -> None:
        reference, now_s = volume.get("spec", {}).get("claimRef", {}), time.monotonic()
        sight = self.sights.get(reference.get("name", ""))
        if sight is None or reference.get("namespace") != self._namespace:
            return
        sight.volume = volume
        sight.made_s = sight.made_s or now_s
        if change == "DELETED":
            sight.volume_gone_s = now_s
        self._changed(reference["name"])

    def _event(self, _: str, event: Object) -> None:
        sight = self.sights.get(event.get("involvedObject", {}).get("name", ""))
        if sight is not None and event.get("type") == "Warning":
            sight.warnings.append(f"{event['reason']}: {event['message']}")
            self._changed(event["involvedObject"]["name"])

"""The story, played on a cluster and an export; every outcome that was promised is looked at, and not believed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from demo.objects import Object, Objects
from demo.observer import VOLUMES, Observer, Sight
from demo.scenario import REPLICAS, SHORT_MODES, STATEFUL_SET, PlannedClaim, Scenario, claim_spec
from demo.screen import Row, Screen, duration, in_trash
from demo.servers import Grounds
from provisioner.core.quantities import parse_bytes

_SOON_S = 60.0
_PACE_S = 0.25
"""Between two claims, so that eyes can follow and each is measured alone; no measure includes it."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that was promised, and whether it came so; else `seen` says what came instead."""

    text: str
    kept: bool
    seen: str = ""


class Story:
    """One performance. `promises` grows as it goes."""

    def __init__(self, objects: Objects, scenario: Scenario, grounds: Grounds, screen: Screen) -> None:
        self.promises: list[Promise] = []
        self.observer = Observer(objects, scenario, lambda name: self._news(name))
        self._objects = objects
        self._scenario = scenario
        self._grounds = grounds
        self._screen = screen
        self._claims = scenario.claims()
        self._news: Callable[[str], None] = lambda name: None

    async def play(self) -> None:
        """All of it. Raises StoryFailed when something does not come about in time, ClusterError."""
        async with self.observer.watching():
            self._screen.title("Claims are made")
            self._show_tree("the export before")
            with self._screen.table(self._rows) as self._news:
                await self._claim()
            self._look_at_claims()
            self._screen.title("Applications write, and three claims are deleted")
            self._write()
            self._show_tree("the export, in use")
            with self._screen.table(self._rows) as self._news:
                await self._delete()
            self._show_tree("the export after")
            self._look_at_fates()

    # --------------------------------------------------------------------------------------------- making

    async def _claim(self) -> None:
        namespace = f"/namespaces/{self._scenario.namespace}"
        for claim in self._claims:
            if not claim.by_controller:
                body = {"metadata": {"name": claim.name, "annotations": claim.annotations}, "spec": claim_spec(claim)}
                self.observer.sights[claim.name].claimed_s = time.monotonic()
                await self._objects.create(f"/api/v1{namespace}/persistentvolumeclaims", body)
            elif claim.name.endswith("-0"):
                await self._objects.create(f"/apis/apps/v1{namespace}/statefulsets", self._scenario.stateful_set())
            await self._pause()
        for claim in self._claims:
            sight = self.observer.sights[claim.name]
            if claim.fate == "refused":
                await self._until(partial(_is_refused, sight), f"{claim.name} is refused with an event")
            else:
                await self._until(partial(_is_bound, sight), f"{claim.name} is Bound")

    def _look_at_claims(self) -> None:
        for claim in self._claims:
            sight = self.observer.sights[claim.name]
            if claim.fate == "refused":
                self._look_at_refusal(claim, sight)
            else:
                directory = self._scenario.directory(claim.name)
                mode = SHORT_MODES[claim.access_mode]
                text = f"{claim.name}: {claim.size}, {mode}, in {directory} of its own"
                self._promise(text, list(self._amiss(claim, sight, directory)))
        if self._grounds.nfs_port is not None:
            self._screen.say("  (made over NFS by the daemon itself: it knows no directory, and nothing is mounted)")

    def _amiss(self, claim: PlannedClaim, sight: Sight, directory: str) -> Iterator[str]:
        """What is not as promised with a bound claim's volume."""
        spec = sight.volume["spec"]
        if parse_bytes(spec["capacity"]["storage"]) != parse_bytes(claim.size):
            yield f"the volume has {spec['capacity']['storage']}"
        if spec["accessModes"] != [claim.access_mode]:
            yield f"the volume's access modes are {spec['accessModes']}"
        if spec["persistentVolumeReclaimPolicy"] != ("Retain" if claim.fate == "retained" else "Delete"):
            yield f"its reclaim policy is {spec['persistentVolumeReclaimPolicy']}"
        if spec["nfs"] != {"server": self._scenario.server, "path": f"{self._scenario.path}/{directory}"}:
            yield f"the volume is at {spec['nfs']}"
        if not self._local(directory).is_dir():
            yield f"there is no directory {directory}"

    def _look_at_refusal(self, claim: PlannedClaim, sight: Sight) -> None:
        event = next((text for text in sight.warnings if text.startswith("ProvisioningFailed")), "")
        amiss = []
        if ".." not in event:
            amiss.append(f"the events are {sight.warnings}")
        if sight.volume:
            amiss.append(f"it got the volume {sight.volume['metadata']['name']}")
        annotations = json.dumps(claim.annotations)
        self._promise(f"{claim.name}: refused for its annotations {annotations}, with an event that says why", amiss)
        self._screen.say(f"    {event}")

    # --------------------------------------------------------------------------------------------- using

    def _write(self) -> None:
        """Leave a file in each directory, as its pods would: what becomes of them is the point of the rest."""
        for claim in self._claims:
            if claim.fate == "refused":
                continue
            directory = self._local(self._scenario.directory(claim.name))
            if claim.name == "wordpress":
                for replica in range(REPLICAS):
                    (directory / f"upload-{replica}.jpg").write_bytes(bytes(100 + replica))
            else:
                (directory / "data").write_text(f"what {claim.name} must not lose\n")

    async def _delete(self) -> None:
        going = [claim for claim in self._claims if claim.fate in ("deleted", "archived", "retained")]
        for claim in going:
            await self._pause()
            inside = f"/api/v1/namespaces/{self._scenario.namespace}/persistentvolumeclaims"
            self.observer.sights[claim.name].deleted_s = time.monotonic()
            await self._objects.delete(f"{inside}/{claim.name}")
        for claim in going:
            await self._until(
                partial(_is_over, self.observer.sights[claim.name]), f"the volume of {claim.name} is {claim.fate}"
            )
        ledger = self._local(".provisioner")
        await self._until(lambda: not in_trash(ledger), "the trash is purged")

    def _look_at_fates(self) -> None:
        root, names = self._grounds.export_directory, self._scenario
        for claim in self._claims:
            words = f"what {claim.name} must not lose\n"
            there = _text(root / names.directory(claim.name) / "data")
            archived = [_text(path / "data") for path in root.glob(f"archived-{claim.name}-*")]
            match claim.fate:
                case "deleted":
                    self._promise(f"{claim.name}: its volume and its directory are gone", _unless(there is None))
                case "archived":
                    kept = there is None and archived == [words]
                    self._promise(f"{claim.name}: its volume is gone, its data are in one archive", _unless(kept))
                case "retained":
                    text = f"{claim.name}: its volume is Released, its data where they were"
                    self._promise(text, _unless(there == words))
        others = [claim.name for claim in self._claims if claim.fate == "stays"]
        self._promise(f"{', '.join(others)}: as they were", list(self._changed(others)))

    def _changed(self, names: list[str]) -> Iterator[str]:
        for name in names:
            directory = self._local(self._scenario.directory(name))
            files = REPLICAS if name == "wordpress" else 1
            if self.observer.sights[name].phase != "Bound" or len(list(directory.glob("*"))) != files:
                yield f"not so for {name}"

    # --------------------------------------------------------------------------------------------- telling

    def _rows(self) -> list[Row]:
        return [self._row(claim) for claim in self._claims]

    def _row(self, claim: PlannedClaim) -> Row:
        sight = self.observer.sights[claim.name]
        asks = f"{claim.size} {SHORT_MODES[claim.access_mode]}"
        phase, volume, directory, after = sight.phase, "", "", ""
        if sight.volume:
            volume = "gone" if sight.volume_gone_s else sight.volume["metadata"]["name"][:12]
            directory = self._whereabouts(claim) if _is_over(sight) else self._directory_of(sight)
        if sight.volume_phase == "Released":
            volume = "Released"
        if sight.warnings and not sight.volume:
            phase, directory = "refused", "none"
        if sight.to_volume_s is not None:
            after = duration(sight.to_volume_s)
        return claim.name, claim.purpose, asks, claim.class_name, phase, volume, directory, after

    def _whereabouts(self, claim: PlannedClaim) -> str:
        """What there is on the export of a directory whose volume is over."""
        if self._local(self._scenario.directory(claim.name)).exists():
            return "still there"
        return "archived" if any(self._grounds.export_directory.glob(f"archived-{claim.name}-*")) else "removed"

    def _directory_of(self, sight: Sight) -> str:
        path: str = sight.volume["spec"]["nfs"]["path"]
        return path.removeprefix(f"{self._scenario.path}/")

    def _show_tree(self, when: str) -> None:
        root = f"{self._scenario.server}:{self._scenario.path}"
        self._screen.tree(f"{root}  {when}", self._grounds.export_directory)

    def _promise(self, text: str, amiss: list[str]) -> None:
        self.promises.append(Promise(text, not amiss, "; ".join(amiss)))
        if amiss:
            self._screen.failed(f"{text}: {'; '.join(amiss)}")
        else:
            self._screen.done(text)

    # --------------------------------------------------------------------------------------------- small things

    def _local(self, directory: str) -> Path:
        return self._grounds.export_directory / directory

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        await self.observer.until(condition, what, timeout_s=_SOON_S)

    async def _pause(self) -> None:
        await asyncio.sleep(_PACE_S)


async def clear_away(objects: Objects, scenario: Scenario) -> None:
    """Delete the claims and what made them, and return when no volume of theirs is left that the daemon reclaims.

    Waits for at most 30 s, and leaves the rest to the namespace's deletion. Raises ClusterError.
    """
    inside = f"/namespaces/{scenario.namespace}"
    await objects.delete(f"/apis/apps/v1{inside}/statefulsets/{STATEFUL_SET}")
    for claim in scenario.claims():
        await objects.delete(f"/api/v1{inside}/persistentvolumeclaims/{claim.name}")
    for _ in range(60):
        if not any(
            volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" for volume in await left(objects, scenario)
        ):
            return
        await asyncio.sleep(0.5)


async def left(objects: Objects, scenario: Scenario) -> list[Object]:
    """The scenario's volumes that there are now."""
    listed: list[Object] = (await objects.get(VOLUMES))["items"]
    classes = {storage_class["metadata"]["name"] for storage_class in scenario.classes()}
    return [volume for volume in listed if volume["spec"].get("storageClassName") in classes]


def _is_refused(sight: Sight) -> bool:
    return bool(sight.warnings)


def _is_bound(sight: Sight) -> bool:
    return sight.phase == "Bound"


def _is_over(sight: Sight) -> bool:
    """Whether nothing will happen to a deleted claim's volume any more: it is gone, or Released to be retained."""
    retained = sight.volume.get("spec", {}).get("persistentVolumeReclaimPolicy") == "Retain"
    return sight.volume_gone_s is not None or (retained and sight.volume_phase == "Released")


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _unless(kept: bool) -> list[str]:
    return [] if kept else ["the tree above says otherwise"]

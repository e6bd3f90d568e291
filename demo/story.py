"""Plays the scenario on a cluster and an export, and checks every promised outcome."""

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
from demo.servers import Setup
from provisioner.core.quantities import parse_bytes

_SOON_S = 60.0
_PACE_S = 0.25
"""Pause between two claims, for the viewer, and to measure each claim alone; no measurement includes it."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, and whether it was kept; if not, `seen` says what happened instead."""

    text: str
    kept: bool
    seen: str = ""


class Story:
    """One performance. `promises` collects the checked promises."""

    def __init__(self, objects: Objects, scenario: Scenario, setup: Setup, screen: Screen) -> None:
        self.promises: list[Promise] = []
        self.observer = Observer(objects, scenario, lambda name: self._news(name))
        self._objects = objects
        self._scenario = scenario
        self._setup = setup
        self._screen = screen
        self._claims = scenario.claims()
        self._news: Callable[[str], None] = lambda name: None

    async def play(self) -> None:
        """Play everything. Raises StoryFailed if something does not happen in time, ClusterError."""
        async with self.observer.watching():
            self._screen.title("Users create claims")
            self._show_tree("the export before")
            with self._screen.table(self._rows) as self._news:
                await self._claim()
            self._look_at_claims()
            self._screen.title("Applications write, and users delete three claims")
            self._write()
            self._show_tree("the export, in use")
            with self._screen.table(self._rows) as self._news:
                await self._delete()
            self._show_tree("the export after")
            self._look_at_fates()

    # --------------------------------------------------------------------------------------------- creating

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
                text = f"{claim.name}: {claim.size}, {mode}, in its own directory {directory}"
                self._promise(text, list(self._amiss(claim, sight, directory)))
        if self._setup.nfs_port is not None:
            self._screen.say("  (created over NFS by the daemon itself: nothing is mounted)")

    def _amiss(self, claim: PlannedClaim, sight: Sight, directory: str) -> Iterator[str]:
        """Yield what is wrong with the volume of a bound claim."""
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
            yield f"the directory {directory} does not exist"

    def _look_at_refusal(self, claim: PlannedClaim, sight: Sight) -> None:
        event = next((text for text in sight.warnings if text.startswith("ProvisioningFailed")), "")
        amiss = []
        if ".." not in event:
            amiss.append(f"the events are {sight.warnings}")
        if sight.volume:
            amiss.append(f"it got the volume {sight.volume['metadata']['name']}")
        annotations = json.dumps(claim.annotations)
        self._promise(
            f"{claim.name}: refused for its annotations {annotations}, with an event that states the reason", amiss
        )
        self._screen.say(f"    {event}")

    # --------------------------------------------------------------------------------------------- using

    def _write(self) -> None:
        """Write a file into each directory, as its pods would.

        The rest of the story checks these files.
        """
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
        root, names = self._setup.export_directory, self._scenario
        for claim in self._claims:
            words = f"what {claim.name} must not lose\n"
            there = _text(root / names.directory(claim.name) / "data")
            archived = [_text(path / "data") for path in root.glob(f"archived-{claim.name}-*")]
            match claim.fate:
                case "deleted":
                    self._promise(f"{claim.name}: volume and directory are deleted", _unless(there is None))
                case "archived":
                    kept = there is None and archived == [words]
                    self._promise(f"{claim.name}: the volume is deleted, the data is in one archive", _unless(kept))
                case "retained":
                    text = f"{claim.name}: the volume is Released, the data is in place"
                    self._promise(text, _unless(there == words))
        others = [claim.name for claim in self._claims if claim.fate == "stays"]
        self._promise(f"{', '.join(others)}: unchanged", list(self._changed(others)))

    def _changed(self, names: list[str]) -> Iterator[str]:
        for name in names:
            directory = self._local(self._scenario.directory(name))
            files = REPLICAS if name == "wordpress" else 1
            if self.observer.sights[name].phase != "Bound" or len(list(directory.glob("*"))) != files:
                yield f"{name} has changed"

    # --------------------------------------------------------------------------------------------- showing

    def _rows(self) -> list[Row]:
        return [self._row(claim) for claim in self._claims]

    def _row(self, claim: PlannedClaim) -> Row:
        sight = self.observer.sights[claim.name]
        asks = f"{claim.size} {SHORT_MODES[claim.access_mode]}"
        phase, volume, directory, after = sight.phase, "", "", ""
        if sight.volume:
            volume = "deleted" if sight.volume_gone_s else sight.volume["metadata"]["name"][:12]
            directory = self._whereabouts(claim) if _is_over(sight) else self._directory_of(sight)
        if sight.volume_phase == "Released":
            volume = "Released"
        if sight.warnings and not sight.volume:
            phase, directory = "refused", "none"
        if sight.to_volume_s is not None:
            after = duration(sight.to_volume_s)
        return claim.name, claim.purpose, asks, claim.class_name, phase, volume, directory, after

    def _whereabouts(self, claim: PlannedClaim) -> str:
        """Return the state of the directory after the end of its volume."""
        if self._local(self._scenario.directory(claim.name)).exists():
            return "still there"
        return "archived" if any(self._setup.export_directory.glob(f"archived-{claim.name}-*")) else "removed"

    def _directory_of(self, sight: Sight) -> str:
        path: str = sight.volume["spec"]["nfs"]["path"]
        return path.removeprefix(f"{self._scenario.path}/")

    def _show_tree(self, when: str) -> None:
        root = f"{self._scenario.server}:{self._scenario.path}"
        self._screen.tree(f"{root}  {when}", self._setup.export_directory)

    def _promise(self, text: str, amiss: list[str]) -> None:
        self.promises.append(Promise(text, not amiss, "; ".join(amiss)))
        if amiss:
            self._screen.failed(f"{text}: {'; '.join(amiss)}")
        else:
            self._screen.done(text)

    # --------------------------------------------------------------------------------------------- helpers

    def _local(self, directory: str) -> Path:
        return self._setup.export_directory / directory

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        await self.observer.until(condition, what, timeout_s=_SOON_S)

    async def _pause(self) -> None:
        await asyncio.sleep(_PACE_S)


async def clear_away(objects: Objects, scenario: Scenario) -> None:
    """Delete the claims and the StatefulSet, and wait until their volumes are reclaimed.

    Waits for at most 30 s; the deletion of the namespace removes the rest. Raises ClusterError.
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
    """Return the remaining volumes of the scenario."""
    listed: list[Object] = (await objects.get(VOLUMES))["items"]
    classes = {storage_class["metadata"]["name"] for storage_class in scenario.classes()}
    return [volume for volume in listed if volume["spec"].get("storageClassName") in classes]


def _is_refused(sight: Sight) -> bool:
    return bool(sight.warnings)


def _is_bound(sight: Sight) -> bool:
    return sight.phase == "Bound"


def _is_over(sight: Sight) -> bool:
    """Return True if the volume of a deleted claim is in its final state.

    That is: deleted, or Released and retained.
    """
    retained = sight.volume.get("spec", {}).get("persistentVolumeReclaimPolicy") == "Retain"
    return sight.volume_gone_s is not None or (retained and sight.volume_phase == "Released")


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _unless(kept: bool) -> list[str]:
    return [] if kept else ["see the tree above"]

"""When objects reach a moment of their life, as one watch of the API server sees it, by namespace of the claim."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from testbed.api import Api, ApiError, Object
from tests.benchmarks import objects

_WATCH_S = 4 * 3600
_TIMEOUT_S = 180.0
_SLOWEST_RATE = 5.0
"""Objects per second; a measurement that is slower has failed."""


class NotSeen(Exception):
    """A measurement waited in vain, or the watch ended; the text says which."""


class Moment(NamedTuple):
    """What an event shows: the namespace of the claim, and a word such as `added`."""

    namespace: str
    word: str


class Watch:
    """One watch in a thread that lives as long as the process. Times are CLOCK_MONOTONIC, in order of arrival."""

    def __init__(self, api: Api, path: str, moment: Callable[[str, Object], Moment | None]) -> None:
        """Start the watch with the next change; `moment` says what an event's type and object show."""
        self._api = api
        self._path = path
        self._moment = moment
        self._changed = threading.Condition()
        self._times_s: dict[Moment, dict[str, float]] = defaultdict(dict)
        self._ended = ""
        version = str(api.get(path, limit="1")["metadata"]["resourceVersion"])
        threading.Thread(target=self._watch, args=(version,), name=f"watch {path}", daemon=True).start()

    def times(self, namespace: str, word: str, count: int, *, timeout_s: float | None = None) -> dict[str, float]:
        """Wait until `count` objects of a namespace reached a moment; return when each did, by name. Raises NotSeen."""
        timeout_s = max(_TIMEOUT_S, count / _SLOWEST_RATE) if timeout_s is None else timeout_s
        seen = self._times_s[Moment(namespace, word)]
        with self._changed:
            there = self._changed.wait_for(lambda: len(seen) >= count or self._ended, timeout_s)
            if not there or self._ended:
                what = f"{count} {self._path.rpartition('/')[2]} of {namespace} {word}"
                raise NotSeen(f"{what}: only {len(seen)} within {timeout_s:.0f} s{self._ended}")
            return dict(seen)

    def _watch(self, version: str) -> None:
        try:
            while True:
                # The API server ends a watch whose reader falls behind: resume at the last version.
                for event in self._api.watch(self._path, timeout_s=_WATCH_S, resourceVersion=version):
                    version = event["object"]["metadata"].get("resourceVersion", "")
                    self._note(event["type"], event["object"], time.monotonic())
        except (OSError, ApiError) as exc:
            with self._changed:
                self._ended = f": the watch broke: {exc}"
                self._changed.notify_all()

    def _note(self, type_: str, item: Object, at_s: float) -> None:
        if type_ not in ("ADDED", "MODIFIED", "DELETED"):
            raise OSError(f"an event {type_}: {item}")
        moment = self._moment(type_, item)
        if moment is None:
            return
        with self._changed:
            self._times_s[moment].setdefault(item["metadata"]["name"], at_s)
            self._changed.notify_all()


class VolumeWatch(Watch):
    """When volumes appear and disappear."""

    def __init__(self, api: Api) -> None:
        super().__init__(api, objects.VOLUMES, volume_moment)

    def added(self, namespace: str, count: int) -> list[float]:
        """Wait for `count` volumes of a namespace, and return when each appeared. Raises NotSeen."""
        return list(self.times(namespace, "added", count).values())

    def deleted(self, namespace: str, count: int) -> list[float]:
        """Wait until `count` volumes of a namespace are gone, and return when each disappeared. Raises NotSeen."""
        return list(self.times(namespace, "deleted", count).values())


def volume_moment(type_: str, volume: Object) -> Moment | None:
    """Return that a volume was added or deleted."""
    return None if type_ == "MODIFIED" else Moment(volume["spec"]["claimRef"]["namespace"], type_.lower())


def claim_moment(type_: str, claim: Object) -> Moment | None:
    """Return that a claim became Bound."""
    if type_ == "DELETED" or claim["status"].get("phase") != "Bound":
        return None
    return Moment(claim["metadata"]["namespace"], "bound")

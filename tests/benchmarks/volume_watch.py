"""When volumes appear and disappear, as one watch of the API server sees it, by the namespace of their claims."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

from testbed.api import Api, ApiError

VOLUMES = "/api/v1/persistentvolumes"
_WATCH_S = 4 * 3600
_TIMEOUT_S = 180.0
_SLOWEST_RATE = 5.0
"""Volumes per second; a measurement that is slower has failed."""


class NotSeen(Exception):
    """A measurement waited in vain, or the watch ended; the text says which."""


class VolumeWatch:
    """One watch in a thread that lives as long as the process. Times are CLOCK_MONOTONIC, in order of arrival."""

    def __init__(self, api: Api) -> None:
        """Start the watch with the next change."""
        self._api = api
        self._changed = threading.Condition()
        self._names: dict[str, list[str]] = defaultdict(list)
        self._added_s: dict[str, list[float]] = defaultdict(list)
        self._deleted_s: dict[str, list[float]] = defaultdict(list)
        self._ended = ""
        version = str(api.get(VOLUMES, limit="1")["metadata"]["resourceVersion"])
        threading.Thread(target=self._watch, args=(version,), name="volume-watch", daemon=True).start()

    def names(self, namespace: str) -> list[str]:
        """Return the volumes for claims of a namespace."""
        with self._changed:
            return list(self._names[namespace])

    def added(self, namespace: str, count: int, *, timeout_s: float | None = None) -> list[float]:
        """Wait for `count` volumes of a namespace, and return when each appeared. Raises NotSeen."""
        return self._wait(self._added_s[namespace], count, f"{count} volumes in {namespace}", timeout_s)

    def deleted(self, namespace: str, count: int, *, timeout_s: float | None = None) -> list[float]:
        """Wait until `count` volumes of a namespace are gone, and return when each disappeared. Raises NotSeen."""
        return self._wait(self._deleted_s[namespace], count, f"{count} volumes of {namespace} gone", timeout_s)

    def _wait(self, seen: list[float], count: int, what: str, timeout_s: float | None) -> list[float]:
        timeout_s = max(_TIMEOUT_S, count / _SLOWEST_RATE) if timeout_s is None else timeout_s
        with self._changed:
            there = self._changed.wait_for(lambda: len(seen) >= count or self._ended, timeout_s)
            if not there or self._ended:
                raise NotSeen(f"{what}: only {len(seen)} within {timeout_s:.0f} s{self._ended}")
            return list(seen)

    def _watch(self, version: str) -> None:
        try:
            while True:
                # The API server ends a watch whose reader falls behind: resume at the last version.
                for event in self._api.watch(VOLUMES, timeout_s=_WATCH_S, resourceVersion=version):
                    version = event["object"]["metadata"].get("resourceVersion", "")
                    self._note(event["type"], event["object"], time.monotonic())
        except (OSError, ApiError) as exc:
            with self._changed:
                self._ended = f": the watch broke: {exc}"
                self._changed.notify_all()

    def _note(self, type_: str, volume: dict[str, object], at_s: float) -> None:
        if type_ == "MODIFIED":
            return
        if type_ not in ("ADDED", "DELETED"):
            raise OSError(f"an event {type_}: {volume}")
        metadata, spec = volume["metadata"], volume["spec"]
        assert isinstance(metadata, dict)
        assert isinstance(spec, dict)
        namespace = spec["claimRef"]["namespace"]
        with self._changed:
            if type_ == "ADDED":
                self._names[namespace].append(metadata["name"])
                self._added_s[namespace].append(at_s)
            else:
                self._deleted_s[namespace].append(at_s)
            self._changed.notify_all()

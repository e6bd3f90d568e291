"""What the leader knows of the usage of volumes, for metrics: filled by controllers.usage, read at each scrape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf

from provisioner.core import times
from provisioner.core.fullness import REPORTED, Level
from provisioner.telemetry.metrics import Sample


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a volume that a claim has, in bytes."""

    namespace: str
    claim: str
    used: int | None
    """None while not all of the volume's content is counted."""
    limit: int | None
    """None while there is no limit in force."""
    level: Level


class UsageTable:
    """The usage of volumes by export, and the time of each agent's last heartbeat.

    Empty while another replica leads.
    """

    def __init__(self) -> None:
        self._volumes: dict[str, dict[str, Usage]] = {}
        self._heartbeats: dict[str, str] = {}

    def set_heartbeat(self, export_name: str, at: str | None) -> None:
        """Set when the agent of an export was last heard: UTC, RFC 3339, or empty if it never was.

        None says that no volume on the export asks for a quota and that it has no agent: it has no series then.
        """
        if at is None:
            self._heartbeats.pop(export_name, None)
        else:
            self._heartbeats[export_name] = at

    def set_volumes(self, export_name: str, found: Mapping[str, Usage]) -> None:
        """Set the usage of all volumes on an export, by their names."""
        self._volumes[export_name] = dict(found)

    def used_by(self, export_name: str, volume_name: str) -> int | None:
        """Return the bytes that a volume uses, at the agent's last look; None if that is not known."""
        usage = self._volumes.get(export_name, {}).get(volume_name)
        return None if usage is None else usage.used

    def drop(self, volume_name: str) -> None:
        """Remove a volume that is gone."""
        for found in self._volumes.values():
            found.pop(volume_name, None)

    def forget(self, export_name: str) -> None:
        """Remove an export."""
        self._volumes.pop(export_name, None)
        self._heartbeats.pop(export_name, None)

    def clear(self) -> None:
        """Remove everything."""
        self._volumes.clear()
        self._heartbeats.clear()

    def used(self) -> Sample:
        """Return the bytes used, by namespace and claim."""
        return {(each.namespace, each.claim): each.used for each in self._all() if each.used is not None}

    def limits(self) -> Sample:
        """Return the limits in force, by namespace and claim."""
        return {(each.namespace, each.claim): each.limit for each in self._all() if each.limit is not None}

    def nearly_full(self) -> Sample:
        """Return the number of volumes that have reached each level, by export and percent."""
        return {
            (export_name, str(int(level))): sum(each.level >= level for each in found.values())
            for export_name, found in self._volumes.items()
            for level in REPORTED
        }

    def silence_s(self, now: datetime) -> Sample:
        """Return the seconds since the last heartbeat, by export; infinite if there never was one."""
        return {(export_name,): _silent_s(at, now) for export_name, at in self._heartbeats.items()}

    def _all(self) -> list[Usage]:
        return [each for found in self._volumes.values() for each in found.values()]


def _silent_s(at: str, now: datetime) -> float:
    """Clocks can differ in both directions: an agent far in the future is as suspicious as one in the past."""
    heard = times.parse(at)
    return inf if heard is None else abs((now - heard).total_seconds())

"""Reads the last warning event about claims and volumes, as far as the user has the right to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from provisioner.core.checks import Permission
from provisioner.kube.cluster import KubeCluster
from provisioner.ports.cluster import ClusterError

_READ_EVENTS = Permission(verb="list", resource="events")


@dataclass(frozen=True, slots=True)
class Warnings:
    """The last warnings, by the uid of the object."""

    of: Mapping[str, str] = field(default_factory=dict)
    none: str = "no warning event"
    """What to print for objects without a warning."""


async def read_warnings(cluster: KubeCluster, about: Mapping[str, str]) -> Warnings:
    """Return the last warning about each object; `about` has the namespace of the events by uid.

    The daemon's ServiceAccount has no right to read events. Asking first keeps a refusal out of the audit log.
    """
    if not about:
        return Warnings()
    try:
        if not await cluster.is_allowed(_READ_EVENTS):
            return Warnings(none="no right to list events, which give the reason")
        warnings = await asyncio.gather(*(_last(cluster, where, uid) for uid, where in about.items()))
        return Warnings(dict(zip(about, warnings, strict=True)))
    except ClusterError as exc:
        return Warnings(none=f"events cannot be read: {exc}")


async def _last(cluster: KubeCluster, namespace: str, uid: str) -> str:
    """Return the last warning about an object, or an empty text. Raises ClusterError."""
    warnings = [each for each in await cluster.list_events(namespace, uid) if each.type == "Warning"]
    last = max(warnings, key=lambda each: each.at, default=None)
    return f"{last.reason}: {last.message}" if last is not None else ""

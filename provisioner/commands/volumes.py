"""The work of `volumes`: reads the PersistentVolumes of a provisioner, and the usage of those with a quota."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from provisioner.commands.session import connect, list_all, unseen
from provisioner.commands.wiring import build_registry
from provisioner.core import names
from provisioner.core.listing import VolumeRow, listed
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass, Volume
from provisioner.core.quota import Answer
from provisioner.core.scope import Unseen
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.aio import map_bounded
from provisioner.ports.tree import Cause, ExportError
from provisioner.settings import Settings

_CALL_S = 4.0
"""Time limit for one call: the list does not depend on exports that hang."""
_EXPORT_S = 15.0
"""Time limit for one export: ten thousand answers take seconds."""
_CONCURRENCY = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeList:
    """The volumes of a provisioner, and what to say if there is none."""

    volumes: Sequence[VolumeRow]
    total: int
    """The number of all PersistentVolumes of the cluster."""
    classes: Mapping[str, int]
    """The number of StorageClasses per provisioner; only read if there is no volume."""
    unread: Sequence[Unseen]
    """The exports whose usage is unknown."""


async def list_volumes(settings: Settings) -> VolumeList:
    """Return all volumes that the provisioner created. Raises ClusterError, InvalidSettings."""
    async with connect(settings) as cluster:
        volumes = await list_all(cluster, Volume)
        own = [volume for volume in volumes if volume.is_by(settings.provisioner)]
        classes = [] if own else await list_all(cluster, StorageClass)
    answers, unread = await _read_answers(own, replace(settings, nfs_timeout_s=min(settings.nfs_timeout_s, _CALL_S)))
    return VolumeList(
        volumes=[listed(volume, answers.get(volume.name)) for volume in own],
        total=len(volumes),
        classes=Counter(each.provisioner for each in classes),
        unread=unread,
    )


async def _read_answers(volumes: Sequence[Volume], settings: Settings) -> tuple[Mapping[str, Answer], Sequence[Unseen]]:
    """Read the answers of quota agents for volumes; return the exports that could not be read as well."""
    registry = build_registry(settings)
    try:
        found: dict[str, Answer] = {}
        unread: list[Unseen] = []
        exports = _with_usage(volumes, registry, settings)
        for export, outcome in zip(exports, await map_bounded(_read, exports, limit=_CONCURRENCY), strict=True):
            if isinstance(outcome, ExportError):
                unread.append(unseen(export, outcome))
            else:
                found |= outcome
        return found, unread
    finally:
        await asyncio.gather(*(export.close() for export in registry))


def _with_usage(volumes: Sequence[Volume], registry: ExportRegistry, settings: Settings) -> list[Export]:
    """Return the exports of volumes whose class asks for a quota, and those that the settings name.

    An agent can limit all volumes of an export, so that those of the settings are read in any case.
    """
    given: set[Export] = set()
    for setting in settings.exports:
        with suppress(ExportError):
            given.add(registry.get(setting.location, MountOptions()))
    located = ((volume, registry.locate(volume)) for volume in volumes)
    return list(
        dict.fromkeys(
            place[0]
            for volume, place in located
            if place is not None and (place[0] in given or names.QUOTA in volume.metadata.annotations)
        )
    )


async def _read(export: Export) -> Mapping[str, Answer] | ExportError:
    try:
        async with asyncio.timeout(_EXPORT_S):
            return await export.answers.read_all()
    except ExportError as exc:
        return exc
    except TimeoutError:
        return ExportError(Cause.UNREACHABLE, f"not read within {_EXPORT_S:g} s", hint=export.unreachable_hint)

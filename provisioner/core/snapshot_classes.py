"""VolumeSnapshotClass parameters: where snapshots are kept, and for how long after their deletion.

As in a StorageClass, an unknown parameter is refused, names are case-insensitive, and an empty value counts as unset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidParameter, InvalidSettings, UnknownParameter
from provisioner.core.locations import Location, location
from provisioner.core.objects import SnapshotClass

KNOWN = ("server", "share", "retention")
_IGNORED = re.compile(r"csi\.storage\.k8s\.io/snapshotter-(list-)?secret-(name|namespace)", re.IGNORECASE)
"""Parameters for the sidecar of CSI drivers. They mean nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotParameters:
    """The parameters of a VolumeSnapshotClass, parsed."""

    export: Location | None = None
    """The export that keeps the snapshots; None for that of each volume."""
    retention: str = ""
    """How long the data of a deleted snapshot is kept, as it was written; empty if it is not kept."""


def parse(parameters: Mapping[str, str]) -> SnapshotParameters:
    """Parse the parameters of a class. Raises UnknownParameter, InvalidParameter."""
    values: dict[str, str] = {}
    for written in sorted(parameters):
        name = written.strip().lower()
        if name in values:
            raise InvalidParameter(f"parameter {name} is set twice: keep only one of them")
        if name in KNOWN:
            values[name] = parameters[written].strip()
        elif not _IGNORED.fullmatch(name):
            raise UnknownParameter(f"parameter {written} is unknown: use one of {', '.join(KNOWN)}")
    return SnapshotParameters(
        export=_export(values.get("server", ""), values.get("share", "")),
        retention=_retention(values.get("retention", "")),
    )


def exports_of(found: Iterable[SnapshotClass], driver: str) -> list[Location]:
    """Return the exports on which classes of a driver keep snapshots; a class that cannot be used keeps none."""
    exports: list[Location | None] = []
    for each in found:
        if each.driver == driver:
            with suppress(InvalidSettings):
                exports.append(parse(each.parameters).export)
    return [export for export in exports if export is not None]


def _export(server: str, share: str) -> Location | None:
    if not server and not share:
        return None
    if not server or not share:
        raise InvalidParameter(
            "parameters server and share belong together: set both, or neither for the export of each volume"
        )
    try:
        return location(server, share)
    except InvalidSettings as exc:
        raise InvalidParameter(f"parameters server and share: {exc}") from exc


def _retention(text: str) -> str:
    try:
        if text and parse_s(text) <= 0:
            raise InvalidParameter(f"parameter retention: {text!r} keeps nothing: remove it")
    except InvalidSettings as exc:
        raise exc if isinstance(exc, InvalidParameter) else InvalidParameter(f"parameter retention: {exc}") from exc
    return text

"""What the store keeps of an object: in a large cluster ten thousand claims and volumes must fit a small pod.

What repeats from object to object is kept once, and what no rule reads is not kept at all. Nothing that decides about
destruction relies on it: that is read live.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec

from provisioner.core import names
from provisioner.core.objects import Claim, CsiSource, Metadata, Volume

_VOLUME_KEYS = (names.PROVISIONED_BY, *names.MARKS)
_CLAIM_KEYS = (*names.PROVISIONER_ANNOTATIONS, names.CLASS_ANNOTATION)
_DISTINCT = (names.DIRECTORY,)
"""Annotations whose values do not repeat."""

T = TypeVar("T")


class Slimmer:
    """Makes slim copies; equal parts of different objects become one."""

    def __init__(self) -> None:
        self._parts: dict[Hashable, Any] = {}

    def volume(self, volume: Volume) -> Volume:
        """A volume as the rules of core.volumes and the index of paths read it."""
        spec = volume.spec
        reference, source, driven = spec.claim_ref, spec.nfs, spec.csi
        replace = msgspec.structs.replace
        return replace(
            volume,
            metadata=self._metadata(volume.metadata, _VOLUME_KEYS),
            spec=replace(
                spec,
                capacity=self._mapping(spec.capacity),
                access_modes=self._one(spec.access_modes, spec.access_modes),
                claim_ref=reference and replace(reference, namespace=sys.intern(reference.namespace)),
                nfs=source and replace(source, server=sys.intern(source.server)),
                csi=driven and replace(driven, volume_attributes=_where(driven)),
                mount_options=self._one(spec.mount_options, spec.mount_options),
                persistent_volume_reclaim_policy=sys.intern(spec.persistent_volume_reclaim_policy),
                storage_class_name=sys.intern(spec.storage_class_name),
            ),
            status=self._one(volume.status, volume.status),
        )

    def claim(self, claim: Claim) -> Claim:
        """A bound claim as core.expansion reads it; before that a path template may ask for anything in it."""
        if claim.status.phase != "Bound":
            return claim
        spec, status = claim.spec, claim.status
        replace = msgspec.structs.replace
        return replace(
            claim,
            metadata=self._metadata(claim.metadata, _CLAIM_KEYS),
            spec=replace(
                spec,
                access_modes=self._one(spec.access_modes, spec.access_modes),
                storage_class_name=spec.storage_class_name and sys.intern(spec.storage_class_name),
                resources=self._one(tuple(spec.resources.requests.items()), spec.resources),
            ),
            status=replace(
                status,
                capacity=self._mapping(status.capacity),
                allocated_resources=self._mapping(status.allocated_resources),
            ),
        )

    def _metadata(self, meta: Metadata, keys: tuple[str, ...]) -> Metadata:
        kept = {
            sys.intern(key): value if key in _DISTINCT else sys.intern(value)
            for key, value in meta.annotations.items()
            if key in keys
        }
        if not any(key in kept for key in _DISTINCT):
            kept = self._mapping(kept)
        return msgspec.structs.replace(
            meta,
            namespace=sys.intern(meta.namespace),
            creation_timestamp="",
            labels=self._mapping({}),
            annotations=kept,
            finalizers=self._one(meta.finalizers, meta.finalizers),
        )

    def _mapping(self, mapping: dict[str, str]) -> dict[str, str]:
        return self._one(tuple(mapping.items()), mapping)

    def _one(self, key: Hashable, part: T) -> T:
        """One part for all that are equal; nobody changes what is in the store."""
        kept: T = self._parts.setdefault((type(part), key), part)
        return kept


def _where(driven: CsiSource) -> dict[str, str]:
    """Of what a volume of csi-driver-nfs says of itself, that which tells its directory."""
    return {key: value for key, value in driven.volume_attributes.items() if key.lower() in names.CSI_PLACE}

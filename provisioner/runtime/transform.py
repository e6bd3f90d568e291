"""Cache transform: slim copies of objects.

They let ten thousand claims and volumes fit a small pod. Fields that no rule reads are dropped (core.objects lists
those that are kept), and values that repeat from object to object are stored once. No decision to destroy anything
relies on the copies: such decisions read objects live.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import msgspec

from provisioner.core.objects import (
    NOT_KEPT,
    Claim,
    DataSource,
    Kept,
    KeptNothing,
    KeptOfBoundClaim,
    KeptOfClaim,
    KeptOfCsiSource,
    KeptOfVolume,
    KeptSize,
    Metadata,
    Resources,
    Volume,
)

_LONGEST = 256
"""Characters kept of a text that tenants choose; no valid name is longer."""
_LARGE = 255
"""Characters of a part up to which it is shared: longer ones are unique to one object in practice."""
_MOST = 2048
"""Number of shared parts. With their length it bounds the memory that outlives the objects they came with."""

T = TypeVar("T")
_replace = msgspec.structs.replace


class CacheTransform:
    """Makes slim copies; equal parts of different objects are shared."""

    def __init__(self) -> None:
        self._parts: dict[tuple[type, Hashable], Any] = {}

    def volume(self, volume: Volume) -> Volume:
        """A copy with the fields that the rules of core.volumes and the index of directories read."""
        spec, meta = volume.spec, volume.metadata
        reference, source, driven = spec.claim_ref, spec.nfs, spec.csi
        return _replace(
            volume,
            metadata=_replace(
                meta,
                labels=self._kept(KeptNothing, {}),
                annotations=self._of_volume(meta.annotations),
                finalizers=self._texts(meta.finalizers),
            ),
            spec=_replace(
                spec,
                capacity=self._kept(KeptSize, spec.capacity),
                access_modes=self._texts(spec.access_modes),
                claim_ref=reference and _replace(reference, namespace=self._text(reference.namespace)),
                nfs=source and _replace(source, server=self._text(source.server)),
                csi=driven and _replace(driven, volume_attributes=_kept_attributes(driven.volume_attributes)),
                mount_options=self._texts(spec.mount_options),
                persistent_volume_reclaim_policy=self._text(spec.persistent_volume_reclaim_policy),
                storage_class_name=self._text(spec.storage_class_name),
            ),
            status=self._one(volume.status.phase, volume.status),
        )

    def claim(self, claim: Claim) -> Claim:
        """A copy with the fields that the rules of core.claims and core.expansion read."""
        spec, status = claim.spec, claim.status
        return _replace(
            claim,
            metadata=self._of_claim(claim.metadata, bound=status.phase == "Bound"),
            spec=_replace(
                spec,
                access_modes=self._texts(spec.access_modes),
                storage_class_name=spec.storage_class_name and self._text(spec.storage_class_name),
                selector=None if spec.selector is None else self._kept(KeptNothing, {}),
                data_source=_short(spec.data_source),
                data_source_ref=_short(spec.data_source_ref),
                resources=self._resources(spec.resources),
            ),
            status=_replace(
                status,
                capacity=self._kept(KeptSize, status.capacity),
                allocated_resources=self._kept(KeptSize, status.allocated_resources),
                allocated_resource_statuses=self._kept(KeptSize, status.allocated_resource_statuses),
            ),
        )

    def _of_claim(self, meta: Metadata, *, bound: bool) -> Metadata:
        return _replace(
            meta,
            namespace=self._text(meta.namespace),
            labels=self._kept(KeptNothing, {}),
            annotations=self._kept(KeptOfBoundClaim if bound else KeptOfClaim, meta.annotations),
            finalizers=NOT_KEPT,
        )

    def _resources(self, resources: Resources) -> Resources:
        requests = self._kept(KeptSize, resources.requests)
        return self._one(tuple(requests.values()), Resources(requests))

    def _of_volume(self, annotations: Mapping[str, str]) -> Kept:
        kept = KeptOfVolume((key, self._text(annotations[key])) for key in KeptOfVolume.KEYS if key in annotations)
        return self._one(tuple(kept.items()), kept) if kept.UNIQUE.isdisjoint(kept) else kept

    def _kept(self, kind: type[Kept], given: Mapping[str, str]) -> Kept:
        """The keys of a mapping that are kept; tenants can fill it with any others."""
        kept = kind((key, self._text(given[key][:_LONGEST])) for key in kind.KEYS if key in given)
        return self._one(tuple(kept.items()), kept)

    def _texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return self._one(texts, texts)

    def _text(self, text: str) -> str:
        # Not sys.intern(): some versions of Python never free interned strings.
        return self._one(text, text)

    def _one(self, key: Hashable, part: T) -> T:
        """The shared part that is equal to this one.

        Sharing is safe because cached objects never change.
        """
        if _length(key) > _LARGE:
            return part
        if len(self._parts) >= _MOST:
            self._parts.clear()  # parts in use stay shared, and are freed with the objects that use them
        kept: T = self._parts.setdefault((type(part), key), part)
        return kept


def _length(key: Hashable) -> int:
    return len(key) if isinstance(key, str) else sum(map(_length, key)) if isinstance(key, tuple) else 0


def _short(source: DataSource | None) -> DataSource | None:
    return source and _replace(source, kind=source.kind[:_LONGEST], name=source.name[:_LONGEST])


def _kept_attributes(attributes: Mapping[str, str]) -> Kept:
    return KeptOfCsiSource((key, value) for key, value in attributes.items() if KeptOfCsiSource.keeps(key))

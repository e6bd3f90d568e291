"""Cache transform: slim copies of objects.

They let ten thousand claims and volumes fit a small pod. Fields that no rule reads are dropped (core.objects lists
those that are kept), and values that repeat from object to object are stored once: parts that many objects have, the
texts that a claim and its volume have in common, and those of an object and its next version. No decision to destroy
anything relies on the copies: such decisions read objects live.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import msgspec

from provisioner.core.objects import (
    NOT_KEPT,
    Claim,
    ClaimRef,
    ClaimStatus,
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

_NOTHING = KeptNothing()

T = TypeVar("T")
_replace = msgspec.structs.replace


class CacheTransform:
    """Makes slim copies; equal parts of different objects are shared."""

    def __init__(
        self,
        *,
        claim: Callable[[str], Claim | None] = lambda uid: None,
        volume: Callable[[str], Volume | None] = lambda name: None,
    ) -> None:
        """`claim` returns the slim claim of a uid, and `volume` the slim volume of a name."""
        self._parts: dict[tuple[type, Hashable], Any] = {}
        self._claim = claim
        self._volume = volume

    def volume(self, volume: Volume) -> Volume:
        """A copy with the fields that the rules of core.volumes and the index of directories read."""
        spec, meta = volume.spec, volume.metadata
        source, driven = spec.nfs, spec.csi
        claim = self._claim(spec.claim_ref.uid) if spec.claim_ref is not None else None
        before = self._volume(meta.name)
        return _replace(
            volume,
            metadata=_replace(
                meta,
                name=_same(meta.name, before.name if before else "", claim.spec.volume_name if claim else ""),
                uid=_same(meta.uid, before.metadata.uid if before else ""),
                labels=_NOTHING,
                annotations=self._of_volume(meta.annotations),
                finalizers=self._texts(meta.finalizers),
            ),
            spec=_replace(
                spec,
                capacity=self._kept(KeptSize, spec.capacity),
                access_modes=self._texts(spec.access_modes),
                claim_ref=self._reference(spec.claim_ref, claim) if spec.claim_ref is not None else None,
                nfs=source and _replace(source, server=self._text(source.server)),
                csi=driven and _replace(driven, volume_attributes=_kept_attributes(driven.volume_attributes)),
                mount_options=self._texts(spec.mount_options),
                persistent_volume_reclaim_policy=self._text(spec.persistent_volume_reclaim_policy),
                storage_class_name=self._text(spec.storage_class_name),
            ),
            status=self._one(volume.status.phase, volume.status),
        )

    def _reference(self, reference: ClaimRef, claim: Claim | None) -> ClaimRef:
        return ClaimRef(
            self._text(reference.namespace),
            _same(reference.name, claim.metadata.name if claim else ""),
            _same(reference.uid, claim.uid if claim else ""),
        )

    def claim(self, claim: Claim) -> Claim:
        """A copy with the fields that the rules of core.claims and core.expansion read."""
        spec = claim.spec
        volume = self._volume(spec.volume_name) if spec.volume_name else None
        return _replace(
            claim,
            metadata=self._of_claim(claim.metadata, volume, bound=claim.status.phase == "Bound"),
            spec=_replace(
                spec,
                access_modes=self._texts(spec.access_modes),
                storage_class_name=spec.storage_class_name and self._text(spec.storage_class_name),
                volume_name=_same(spec.volume_name, volume.name if volume else ""),
                volume_mode=self._text(spec.volume_mode),
                selector=None if spec.selector is None else _NOTHING,
                data_source=_short(spec.data_source),
                data_source_ref=_short(spec.data_source_ref),
                resources=self._resources(spec.resources),
            ),
            status=self._status(claim.status),
        )

    def _status(self, status: ClaimStatus) -> ClaimStatus:
        sizes = status.capacity, status.allocated_resources, status.allocated_resource_statuses
        kept = [self._kept(KeptSize, each) for each in sizes]
        return self._one((status.phase, *map(_pairs, kept)), ClaimStatus(status.phase, *kept))

    def _of_claim(self, meta: Metadata, volume: Volume | None, *, bound: bool) -> Metadata:
        before = self._claim(meta.uid)
        reference = volume.spec.claim_ref if volume is not None else None
        return _replace(
            meta,
            name=_same(meta.name, before.metadata.name if before else "", reference.name if reference else ""),
            namespace=self._text(meta.namespace),
            uid=_same(meta.uid, before.uid if before else "", reference.uid if reference else ""),
            labels=_NOTHING,
            annotations=self._kept(KeptOfBoundClaim if bound else KeptOfClaim, meta.annotations),
            finalizers=NOT_KEPT,
        )

    def _resources(self, resources: Resources) -> Resources:
        requests = self._kept(KeptSize, resources.requests)
        return self._one(_pairs(requests), Resources(requests))

    def _of_volume(self, annotations: Mapping[str, str]) -> Kept:
        kept = KeptOfVolume((key, self._text(annotations[key])) for key in KeptOfVolume.KEYS if key in annotations)
        return self._one(_pairs(kept), kept) if kept.UNIQUE.isdisjoint(kept) else kept

    def _kept(self, kind: type[Kept], given: Mapping[str, str]) -> Kept:
        """The keys of a mapping that are kept; tenants can fill it with any others."""
        pairs = tuple([(key, value[:_LONGEST]) for key, value in given.items() if key in kind.KEYS])
        known: Kept | None = self._parts.get((kind, pairs))
        return known if known is not None else self._one(pairs, kind((key, self._text(text)) for key, text in pairs))

    def _texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return self._one(texts, texts)

    def _text(self, text: str) -> str:
        # Not sys.intern(): some versions of Python never free interned strings.
        return self._one(text, text)

    def _one(self, key: Hashable, part: T) -> T:
        """The shared part that is equal to this one.

        Sharing is safe because cached objects never change.
        """
        known: T | None = self._parts.get((type(part), key))
        if known is not None:
            return known
        if _length(key) > _LARGE:
            return part
        if len(self._parts) >= _MOST:
            self._parts.clear()  # parts in use stay shared, and are freed with the objects that use them
        self._parts[type(part), key] = part
        return part


def _same(text: str, *others: str) -> str:
    """The text, as one of the others if that is equal: then only one is in memory."""
    for other in others:
        if other == text:
            return other
    return text


def _pairs(kept: Kept) -> tuple[tuple[str, str], ...]:
    return tuple(kept.items())


def _length(key: Hashable) -> int:
    return len(key) if isinstance(key, str) else sum(map(_length, key)) if isinstance(key, tuple) else 0


def _short(source: DataSource | None) -> DataSource | None:
    return source and _replace(source, kind=source.kind[:_LONGEST], name=source.name[:_LONGEST])


def _kept_attributes(attributes: Mapping[str, str]) -> Kept:
    return KeptOfCsiSource((key, value) for key, value in attributes.items() if KeptOfCsiSource.keeps(key))

"""The controllers of kube-controller-manager for claims and volumes, over a MemoryCluster.

The persistentvolume controller assigns claims to their provisioner, binds claims and volumes by claimRef, and releases
volumes without a claim. pv-protection and pvc-protection remove their finalizers from unused objects. The fake checks
all objects after each change, and makes the same writes in the same order as the original (kubernetes,
pkg/controller/volume/persistentvolume).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from provisioner.core import names, quantities
from provisioner.core.objects import Claim, Volume
from provisioner.ports.cluster import AnyItem, Kind, NotFound
from tests.support.fakes.cluster import CLAIM_PROTECTION, VOLUME_PROTECTION, Body, MemoryCluster

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
DYNAMIC = "pv.kubernetes.io/provisioned-by"

Pause = Callable[[], Awaitable[None]]


async def no_pause() -> None:
    """Let all other tasks run first."""
    await asyncio.sleep(0)


class Controllers:
    """The controllers of one cluster. `pause` runs before each write; `in_use` are the claims that pods use."""

    def __init__(self, cluster: MemoryCluster, *, pause: Pause = no_pause) -> None:
        self._cluster = cluster
        self._pause = pause
        self._news = asyncio.Event()
        self.in_use: set[str] = set()
        cluster.listeners.append(self._changed)

    def release(self, key: str) -> None:
        """Remove the last pod that uses a claim."""
        self.in_use.discard(key)
        self._news.set()

    async def run(self) -> None:
        """Reconcile everything until cancelled."""
        while True:
            self._news.clear()
            for claim in self._cluster.claims():
                await self._sync_claim(claim.key)
            for volume in self._cluster.volumes():
                await self._sync_volume(volume.name)
            await self._news.wait()

    def _changed(self, _kind: Kind, _before: AnyItem | None, _after: AnyItem | None) -> None:
        self._news.set()

    # ------------------------------------------------------------------------------------------- claims

    async def _sync_claim(self, key: str) -> None:
        claim = self._cluster.claim(key)
        if claim is None:
            return
        if claim.metadata.deletion_timestamp and key not in self.in_use:
            await self._write("claims", key, claim.uid, _without(CLAIM_PROTECTION))
        elif not claim.spec.volume_name:
            await self._sync_unbound(claim)
        elif claim.status.phase == "Bound" and not self._has_volume(claim):
            await self._write("claims", key, claim.uid, lambda body: body["status"].update(phase="Lost"))
        elif claim.status.phase == "Pending":
            await self._sync_chosen(claim)

    def _has_volume(self, claim: Claim) -> bool:
        """Return True if the volume that a claim names exists and no other claim has it."""
        volume = self._cluster.volume(claim.spec.volume_name)
        reference = volume.spec.claim_ref if volume is not None else None
        return volume is not None and (reference is None or reference.uid in ("", claim.uid))

    async def _sync_unbound(self, claim: Claim) -> None:
        volume = next((volume for volume in self._cluster.volumes() if _fits(volume, claim)), None)
        if volume is not None:
            await self._bind(claim, volume)
            return
        storage_class = self._cluster.storage_class(claim.class_name)
        if storage_class is None:
            return
        selected = any(claim.metadata.annotations.get(key) for key in names.SELECTED_NODE_ANNOTATIONS)
        if storage_class.volume_binding_mode == "Immediate" or selected:
            provisioner = dict.fromkeys(names.PROVISIONER_ANNOTATIONS, storage_class.provisioner)
            if not provisioner.items() <= claim.metadata.annotations.items():
                await self._write("claims", claim.key, claim.uid, lambda body: _annotations(body).update(provisioner))

    async def _sync_chosen(self, claim: Claim) -> None:
        """Handle a claim that names its volume, by its user's choice or after an interrupted binding."""
        volume = self._cluster.volume(claim.spec.volume_name)
        reference = volume.spec.claim_ref if volume is not None else None
        if volume is None or (reference is not None and reference.uid not in ("", claim.uid)):
            return
        if reference is None or (reference.namespace, reference.name) == _name(claim):
            await self._bind(claim, volume)

    async def _bind(self, claim: Claim, volume: Volume) -> None:
        """Write volume, claim and claim status; a crash or a deletion can happen between any two writes."""
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": claim.uid}
        reference |= {"namespace": claim.metadata.namespace, "name": claim.metadata.name}
        uid = volume.metadata.uid

        def take(body: Body) -> None:
            body["spec"]["claimRef"] = {**(body["spec"].get("claimRef") or {}), **reference}
            body["status"]["phase"] = "Bound"

        def name(body: Body) -> None:
            body["spec"]["volumeName"] = volume.name
            _annotations(body)[BIND_COMPLETED] = "yes"

        capacity = dict(volume.spec.capacity)
        if await self._write("volumes", volume.name, uid, take) and await self._write(
            "claims", claim.key, claim.uid, name
        ):
            status = {"phase": "Bound", "capacity": capacity}
            await self._write("claims", claim.key, claim.uid, lambda body: body["status"].update(status))

    # ------------------------------------------------------------------------------------------- volumes

    async def _sync_volume(self, name: str) -> None:
        volume = self._cluster.volume(name)
        if volume is None:
            return
        phase = self._phase(volume)
        if phase != volume.status.phase:
            await self._write("volumes", name, volume.metadata.uid, lambda body: body["status"].update(phase=phase))
        volume = self._cluster.volume(name)
        if volume is not None and volume.metadata.deletion_timestamp and volume.status.phase != "Bound":
            await self._write("volumes", name, volume.metadata.uid, _without(VOLUME_PROTECTION))

    def _phase(self, volume: Volume) -> str:
        """Return the phase that a volume should have."""
        reference, now = volume.spec.claim_ref, volume.status.phase
        if reference is None or not reference.uid:
            return "Available"
        claim = self._cluster.claim(f"{reference.namespace}/{reference.name}")
        if claim is None or claim.uid != reference.uid:
            return now if now == "Failed" else "Released"
        if not claim.spec.volume_name:
            return now  # binding it is the claim's part
        if claim.spec.volume_name == volume.name:
            return "Bound"
        dynamic = DYNAMIC in volume.metadata.annotations and volume.spec.persistent_volume_reclaim_policy == "Delete"
        return "Released" if dynamic else now

    async def _write(self, kind: Kind, key: str, uid: str, change: Callable[[Body], object]) -> bool:
        """Make one write unless the object is gone; return True if it was made."""
        await self._pause()
        body = self._cluster.body(kind, key)
        if body is None or body["metadata"]["uid"] != uid:
            return False
        try:
            self._cluster.change(kind, key, change)
        except NotFound:
            return False
        return True


def _fits(volume: Volume, claim: Claim) -> bool:
    """Return True if a volume was created or reserved for a claim."""
    reference = volume.spec.claim_ref
    if reference is None or (reference.namespace, reference.name) != _name(claim):
        return False
    if reference.uid not in ("", claim.uid):
        return False
    return not quantities.is_less(volume.capacity, claim.requested)


def _name(claim: Claim) -> tuple[str, str]:
    return claim.metadata.namespace, claim.metadata.name


def _annotations(body: Body) -> dict[str, str]:
    annotations: dict[str, str] = body["metadata"].setdefault("annotations", {})
    return annotations


def _without(finalizer: str) -> Callable[[Body], object]:
    def take_off(body: Body) -> None:
        body["metadata"]["finalizers"] = [
            name for name in body["metadata"].get("finalizers") or () if name != finalizer
        ]

    return take_off

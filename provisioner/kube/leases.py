"""Converts a `coordination.k8s.io/v1` Lease between JSON and core.leases.LeaseRecord."""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

import provisioner
from provisioner.core import names
from provisioner.core.leases import LeaseRecord


class _Metadata(Struct, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Spec(Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Lease(Struct):
    kind: str
    metadata: _Metadata
    spec: _Spec | None = None


_decoder = msgspec.json.Decoder(_Lease)


def decode(body: bytes) -> LeaseRecord:
    """Decode a Lease; missing fields count as empty. Raises msgspec.DecodeError."""
    lease = _decoder.decode(body)
    if lease.kind != "Lease" or not lease.metadata.resource_version:
        raise msgspec.ValidationError("not a Lease")
    spec = lease.spec or _Spec()
    return LeaseRecord(
        holder=spec.holder_identity or "",
        duration_s=float(spec.lease_duration_seconds or 0),
        acquired=spec.acquire_time or "",
        renewed=spec.renew_time or "",
        transitions=spec.lease_transitions or 0,
        version=lease.metadata.resource_version,
        program=(lease.metadata.annotations or {}).get(names.VERSION, ""),
    )


def body(namespace: str, name: str, lease: LeaseRecord) -> dict[str, object]:
    """Return the object to create, or with a version, to replace the Lease with."""
    metadata = {
        "name": name,
        "namespace": namespace,
        "resourceVersion": lease.version,
        # Each renewal replaces all annotations: so a holder that does not know this key leaves no stale value.
        "annotations": {names.VERSION: provisioner.__version__},
    }
    spec = {
        "holderIdentity": lease.holder,
        # Whole seconds, and never 0, which the API server refuses. Rounded up, because other replicas wait this long.
        "leaseDurationSeconds": max(1, math.ceil(lease.duration_s)),
        "acquireTime": lease.acquired or None,
        "renewTime": lease.renewed or None,
        "leaseTransitions": lease.transitions,
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {key: value for key, value in metadata.items() if value},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }

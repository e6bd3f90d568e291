"""Pods as the API server lists them, decoded to the fields that commands show."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct, field

from provisioner.core.pods import Pod


class _Metadata(Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Claim(Struct, frozen=True, rename="camel"):
    claim_name: str = ""


class _Volume(Struct, frozen=True, rename="camel"):
    name: str = ""
    persistent_volume_claim: _Claim | None = None
    ephemeral: dict[str, object] | None = None


class _Spec(Struct, frozen=True, rename="camel"):
    node_name: str = ""
    volumes: tuple[_Volume, ...] = ()


class _Status(Struct, frozen=True):
    phase: str = ""


class _Pod(Struct, frozen=True):
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _ListMetadata(Struct, frozen=True, rename="camel"):
    continue_token: str = field(name="continue", default="")


class _List(Struct, frozen=True):
    kind: str
    metadata: _ListMetadata = _ListMetadata()
    items: tuple[_Pod, ...] = ()


_decoder = msgspec.json.Decoder(_List)


def decode(body: bytes) -> tuple[Sequence[Pod], str]:
    """Decode one page of pods, and the token of the next one. Raises msgspec.DecodeError."""
    page = _decoder.decode(body)
    return [_pod(each) for each in page.items], page.metadata.continue_token


def _pod(each: _Pod) -> Pod:
    return Pod(
        namespace=each.metadata.namespace,
        name=each.metadata.name,
        phase=each.status.phase,
        node=each.spec.node_name,
        claims=tuple(name for volume in each.spec.volumes if (name := _claim(each.metadata.name, volume))),
    )


def _claim(pod: str, volume: _Volume) -> str:
    """Return the claim of a pod's volume; that of a generic ephemeral volume has the names of pod and volume."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    return f"{pod}-{volume.name}" if volume.ephemeral is not None else ""

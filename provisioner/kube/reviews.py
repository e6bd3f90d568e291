"""`SelfSubjectAccessReview`: asks whether a call is allowed (Kubernetes, Authorization, "Checking API access")."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from provisioner.core.checks import Permission

RESOURCE = "selfsubjectaccessreviews"
PATH = f"/apis/authorization.k8s.io/v1/{RESOURCE}"


class _Status(Struct):
    allowed: bool


class _Review(Struct):
    kind: str
    status: _Status


_decoder = msgspec.json.Decoder(_Review)


def body(permission: Permission) -> dict[str, object]:
    """Return the review to create; the API server does not store it."""
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "subresource": permission.subresource,
        "namespace": permission.namespace,
        "name": permission.name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }


def decode(body: bytes) -> bool:
    """Decode an answer: whether the call is allowed. Raises msgspec.DecodeError."""
    review = _decoder.decode(body)
    if review.kind != "SelfSubjectAccessReview":
        raise msgspec.ValidationError("not a SelfSubjectAccessReview")
    return review.status.allowed

"""Tenancy: a directory or archive that is kept belongs to its claim's namespace, not to a later one of the same name.

A namespace that was deleted and created again can be another team's. Records carry the namespace's uid, which the API
server chooses. A record without it is compared by time: a namespace that is younger than the record is another one.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import timedelta

from provisioner.core import times
from provisioner.core.objects import Namespace
from provisioner.core.records import Record, SnapshotRecord

ANY = "any"
"""Instead of a namespace's uid: an admin recovered the record for the next namespace of that name."""

_UNCERTAINTY = timedelta(seconds=5)
"""A record can have an earlier time than its own new namespace: both clocks are read to the second."""

GRANT = "grant get on namespaces, as the chart's ClusterRole does"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """The namespace of a claim. Without a uid it could not be read, and owns nothing."""

    uid: str = ""
    created: str = ""
    """UTC, RFC 3339."""
    accepts_former: bool = False
    """Whether the class gives data of an earlier namespace to the one that now has its name."""

    @classmethod
    def of(cls, namespace: Namespace | None, *, accepts_former: bool) -> Tenant:
        """Return the tenant of a namespace; None stands for a namespace that could not be read."""
        if namespace is None:
            return cls(accepts_former=accepts_former)
        metadata = namespace.metadata
        return cls(uid=metadata.uid, created=metadata.creation_timestamp, accepts_former=accepts_former)

    def owns(self, record: Record | SnapshotRecord) -> bool:
        """Return True if a record of the same namespace name is this tenant's."""
        if self.accepts_former or record.namespace_uid == ANY:
            return True
        if record.namespace_uid:
            return record.namespace_uid == self.uid
        created, recorded = times.parse(self.created), times.parse(record.created)
        return created is not None and recorded is not None and created - recorded <= _UNCERTAINTY

    def why_not(self, namespace: str) -> str:
        """Return why an object of a namespace of that name is not this tenant's, as the part of an event."""
        if not self.uid:
            return f"whether it belongs to this namespace {namespace} or to an earlier one is not known: {GRANT}"
        return f"it belongs to an earlier namespace {namespace}, which was deleted"


UNKNOWN = Tenant()
"""For a namespace that was not read."""


def adopt_command(record: Record) -> str:
    """Return the command with which an admin gives an existing directory to the claim of a record."""
    claim = f"{record.namespace}/{record.claim}"
    return f"nfs-provisioner adopt {shlex.quote(record.directory)} --claim {claim} --apply"


def refusal(record: Record, tenant: Tenant) -> str:
    """Return the message for a directory that an earlier namespace left behind, with what an admin can do."""
    return (
        f"directory {record.directory!r} was kept for a claim {record.namespace}/{record.claim}, and"
        f" {tenant.why_not(record.namespace)}: to hand it over anyway, an admin can run"
        f" `{adopt_command(record)}`, or create a class with formerNamespace: accept"
    )

"""Tenancy: a directory or an archive that is kept belongs to its claim's namespace, not to a later one of its name.

A namespace that is deleted and created again may be another team's. The API server chooses its uid, which a record
carries; one without it is compared by time: a namespace that is younger than the record is not the record's.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import timedelta

from provisioner.core import times
from provisioner.core.objects import Namespace
from provisioner.core.records import Record

ANY = "any"
"""In the place of a namespace's uid: an admin recovered the record, for the namespace of that name that comes first."""

_UNCERTAINTY = timedelta(seconds=5)
"""A record may bear an earlier time than its own new namespace: the two clocks are read to the second."""

GRANT = "grant get on namespaces, as the chart's ClusterRole does"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """The namespace of a claim; without a uid it could not be read, and owns nothing."""

    uid: str = ""
    created: str = ""
    """UTC, RFC 3339."""
    accepts_former: bool = False
    """Whether the class says that what an earlier namespace of the name left goes to the one that has it now."""

    @classmethod
    def of(cls, namespace: Namespace | None, *, accepts_former: bool) -> Tenant:
        """The tenant that a namespace is; None is one that could not be read."""
        if namespace is None:
            return cls(accepts_former=accepts_former)
        metadata = namespace.metadata
        return cls(uid=metadata.uid, created=metadata.creation_timestamp, accepts_former=accepts_former)

    def owns(self, record: Record) -> bool:
        """Whether what a record of the same namespace name says is this tenant's."""
        if self.accepts_former or record.namespace_uid == ANY:
            return True
        if record.namespace_uid:
            return record.namespace_uid == self.uid
        created, recorded = times.parse(self.created), times.parse(record.created)
        return created is not None and recorded is not None and created - recorded <= _UNCERTAINTY

    def why_not(self, namespace: str) -> str:
        """Why something of a namespace of that name is not this tenant's, in words for an event."""
        if not self.uid:
            return f"whether it is of this namespace {namespace}, or of an earlier one, is not known: {GRANT}"
        return f"it is of an earlier namespace {namespace}, which was deleted"


UNKNOWN = Tenant()
"""The namespace was not read."""


def adopt_command(record: Record) -> str:
    """The command by which an admin hands a directory that is there to the claim of a record."""
    claim = f"{record.namespace}/{record.claim}"
    return f"nfs-provisioner adopt {shlex.quote(record.directory)} --claim {claim} --apply"


def refusal(record: Record, tenant: Tenant) -> str:
    """The words for a directory that an earlier namespace left, and what an admin can do."""
    return (
        f"directory {record.directory!r} was kept for a claim {record.namespace}/{record.claim}, and"
        f" {tenant.why_not(record.namespace)}: to hand it over all the same, an admin can run"
        f" `{adopt_command(record)}`, or create a class with formerNamespace: accept"
    )

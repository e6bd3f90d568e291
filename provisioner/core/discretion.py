"""What the event on a claim says of other objects: all of it if they are of the claim's own namespace, else nothing.

Whoever may read the events of one namespace must not learn from them which volumes, directories and archives others
have. That a directory is taken cannot be hidden: the claim is refused. By what it is taken is in the daemon's log.
"""

from __future__ import annotations

from typing import NamedTuple

from provisioner.core import tenancy
from provisioner.core.objects import Volume
from provisioner.core.records import Record


class Owner(NamedTuple):
    """Whose something is: a namespace of one cluster, of those that share an export."""

    namespace: str
    cluster: str
    uid: str = ""
    """The namespace's, where it is known: one that is created again may be another team's."""

    def is_same(self, other: Owner) -> bool:
        """Whether nothing speaks against the two being one."""
        uids = {self.uid, other.uid} - {"", tenancy.ANY}
        return (self.namespace, self.cluster) == (other.namespace, other.cluster) and len(uids) < 2


class Words(NamedTuple):
    """One refusal in two texts."""

    whole: str
    """For the log, which admins read."""
    told: str
    """For the event, which the claim's namespace reads."""


def words(asker: Owner, owner: Owner | None, whole: str, otherwise: str) -> Words:
    """The texts of a refusal in whose whole text something of `owner` is named; None is unknown, and so not the asker.

    This alone decides what an event says of other objects.
    """
    return Words(whole, whole if owner is not None and asker.is_same(owner) else otherwise)


def owner_by(record: Record) -> Owner:
    """Whose a directory is by its record."""
    return Owner(record.namespace, record.cluster, record.namespace_uid)


def owner_of(volume: Volume, cluster: str) -> Owner | None:
    """Whose a volume of the cluster is; None for one that is for no claim."""
    reference = volume.spec.claim_ref
    return None if reference is None else Owner(reference.namespace, cluster)


_ADVICE = "make the class's pathPattern unique, for instance with ${.PV.name}"


def taken(asker: Owner, directory: str, owner: Owner | None, by: str) -> Words:
    """The texts for a directory that is taken; `by` says what has it, or one above or below it."""
    return words(
        asker,
        owner,
        f"directory {directory!r} is taken: {by}; {_ADVICE}",
        f"directory {directory!r} is taken by a volume outside this namespace, or one above or below it is; {_ADVICE}",
    )


def no_archive(asker: Owner, archive: str, whole: str) -> Words:
    """The texts for an archive that does not go to a claim: whether others have one of that name is not told."""
    return words(
        asker,
        None,
        whole,
        f"there is no archive {archive!r} of namespace {asker.namespace} on the class's export;"
        " `nfs-provisioner archives` lists them",
    )

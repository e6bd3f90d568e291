"""What the event on a claim says of other objects: everything if they are of the claim's own namespace, else nothing.

Users who can read the events of one namespace must not learn which volumes, directories and archives other namespaces
have. That a directory is taken cannot be hidden, since the claim is refused; what it overlaps with is in the log only.
"""

from __future__ import annotations

from typing import NamedTuple

from provisioner.core import tenancy
from provisioner.core.objects import Volume
from provisioner.core.records import Record


class Owner(NamedTuple):
    """The owner of a volume, directory or archive: a namespace of one of the clusters that share an export."""

    namespace: str
    cluster: str
    uid: str = ""
    """The namespace's uid, if known: a namespace that was deleted and recreated can be another team's."""

    def is_same(self, other: Owner) -> bool:
        """Return True if the two can be one namespace: same name, same cluster, no different uids."""
        uids = {self.uid, other.uid} - {"", tenancy.ANY}
        return (self.namespace, self.cluster) == (other.namespace, other.cluster) and len(uids) < 2


class Words(NamedTuple):
    """One refusal in two texts."""

    log: str
    """The text with all details, which admins read in the log."""
    event: str
    """The text for the event, which users of the claim's namespace read."""


def words(asker: Owner, owner: Owner | None, log: str, event: str) -> Words:
    """Return the texts of a refusal whose `log` text names an object of `owner`.

    The event gets the `log` text if the asker is the owner, else the `event` text. None is an unknown owner, and so not
    the asker. This function alone decides what an event says of other objects.
    """
    return Words(log, log if owner is not None and asker.is_same(owner) else event)


def owner_by(record: Record) -> Owner:
    """Return the owner of a directory by its record."""
    return Owner(record.namespace, record.cluster, record.namespace_uid)


def owner_of(volume: Volume, cluster: str) -> Owner | None:
    """Return the owner of a volume of the cluster; None for a volume without a claimRef."""
    reference = volume.spec.claim_ref
    return None if reference is None else Owner(reference.namespace, cluster)


_ADVICE = "use a pathPattern that is unique per volume, for example by adding ${.PV.name}"


def taken(asker: Owner, directory: str, owner: Owner | None, holder: str) -> Words:
    """Return the texts for a directory that overlaps with another one.

    `holder` names that one and its owner.
    """
    return words(
        asker,
        owner,
        f"directory {directory!r} overlaps with {holder}: {_ADVICE}",
        f"directory {directory!r} overlaps with a volume outside this namespace: {_ADVICE}",
    )


def no_archive(asker: Owner, archive: str, log: str) -> Words:
    """Return the texts for an archive that the asker cannot have.

    The event always says that there is none, so that users cannot find out which archives other namespaces have.
    """
    return words(
        asker,
        None,
        log,
        f"there is no archive {archive!r} of namespace {asker.namespace} on the class's export:"
        " `nfs-provisioner archives` lists the archives that exist",
    )

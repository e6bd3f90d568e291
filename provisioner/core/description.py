"""One page about a claim, a volume or a directory: what `describe` shows, and which of the three its argument means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from provisioner.core import identity
from provisioner.core.archives import ArchiveRow
from provisioner.core.errors import InvalidSettings
from provisioner.core.listing import VolumeRow, listed
from provisioner.core.locations import Location, RelPath, split_path
from provisioner.core.objects import Claim, Volume
from provisioner.core.pods import Pod
from provisioner.core.quota import Answer
from provisioner.core.records import Record

# ---------------------------------------------------------------------------------------------------- the argument

_CLAIM_WORDS = ("pvc", "persistentvolumeclaim")
_VOLUME_WORDS = ("pv", "persistentvolume")


@dataclass(frozen=True, slots=True)
class OfClaim:
    """The argument can be this claim."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class OfVolume:
    """The argument can be this PersistentVolume."""

    name: str


@dataclass(frozen=True, slots=True)
class OfDirectory:
    """The argument can be this directory: below any export, or the absolute path on one server."""

    path: RelPath
    server: str = ""

    def on(self, locations: Sequence[Location]) -> RelPath | None:
        """Return the directory below an export with these locations; None if it is not on it."""
        if not self.server:
            return self.path
        found = (each.relative(self.server, "/" + "/".join(self.path)) for each in locations)
        return next((below for below in found if below), None)


Meaning = OfClaim | OfVolume | OfDirectory


def meanings(text: str, namespace: str | None) -> list[Meaning]:
    """Return what an argument can mean, in the order in which to look. Raises InvalidSettings."""
    word, separator, name = text.partition("/")
    if separator and word in _CLAIM_WORDS:
        if not namespace:
            raise InvalidSettings(f"{text}: add the namespace of the claim with --namespace")
        return [OfClaim(namespace, name)]
    if separator and word in _VOLUME_WORDS:
        return [OfVolume(name)]
    server, colon, path = text.partition(":/")
    directory = OfDirectory(split_path(path), server) if colon else OfDirectory(split_path(text))
    if not directory.path or any(part in (".", "..") for part in directory.path):
        raise InvalidSettings(f"{text!r} is neither NAMESPACE/NAME, nor a PersistentVolume, nor a directory")
    if colon:
        return [directory]
    if separator:
        return [OfClaim(word, name), directory] if word and name and "/" not in name else [directory]
    return [*([OfClaim(namespace, text)] if namespace else []), OfVolume(text), directory]


# ---------------------------------------------------------------------------------------------------- the page


class ClaimPart(Struct, frozen=True):
    """The claim, as it is now."""

    namespace: str
    name: str
    uid: str
    phase: str
    storage_class: str
    requested: str
    created: str
    deleted: str
    """Since when it is being deleted; empty if it is not."""


class RecordPart(Struct, frozen=True):
    """The ledger's record."""

    volume: str
    state: str
    """`settled`, `pending` (no PersistentVolume is confirmed) or `retained`."""
    claim: str
    storage_class: str
    capacity: str
    on_delete: str
    created: str
    retained: str
    retention: str
    archive: str
    """The archive from which its data was restored."""
    quota: str
    gid: int | None
    cluster: str
    agrees: bool | None
    """Whether it names exactly this PersistentVolume and its claim; None without a PersistentVolume."""


class DirectoryPart(Struct, frozen=True):
    """The directory, as the export has it."""

    export: str
    directory: str
    state: str
    """`data`, `empty`, `gone`, or empty if it could not be read."""


class UsagePart(Struct, frozen=True):
    """The answer of the quota agent."""

    used_bytes: int | None
    files: int | None
    limit_bytes: int | None
    reason: str
    why: str
    at: str


class EventPart(Struct, frozen=True):
    """An event about the claim or the volume."""

    at: str
    type: str
    reason: str
    about: str
    message: str


class Description(Struct, frozen=True):
    """The whole page; a part that does not exist is None or empty."""

    claim: ClaimPart | None
    volume: VolumeRow | None
    record: RecordPart | None
    directory: DirectoryPart | None
    usage: UsagePart | None
    archives: Sequence[ArchiveRow]
    """Archives of the claim, and of earlier ones of its name."""
    pods: Sequence[Pod]
    """The pods that use the claim."""
    events: Sequence[EventPart]
    unread: Sequence[str]
    """What could not be read, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read about one claim, volume or directory."""

    claim: Claim | None = None
    volume: Volume | None = None
    export: str = ""
    path: RelPath = ()
    record_of: str = ""
    """The volume of the record."""
    record: Record | None = None
    pending: bool = False
    contents: str = ""
    answer: Answer | None = None
    archives: Sequence[ArchiveRow] = ()
    pods: Sequence[Pod] = ()
    events: Sequence[EventPart] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def claim_key(self) -> tuple[str, str]:
        """Namespace and name of the claim, which need not exist any more; empty if unknown."""
        if self.claim is not None:
            return self.claim.metadata.namespace, self.claim.metadata.name
        reference = self.volume.spec.claim_ref if self.volume is not None else None
        if reference is not None:
            return reference.namespace, reference.name
        return (self.record.namespace, self.record.claim) if self.record is not None else ("", "")


def describe(facts: Facts) -> Description:
    """Return the page about what was read."""
    return Description(
        claim=None if facts.claim is None else _claim(facts.claim),
        volume=None if facts.volume is None else listed(facts.volume, facts.answer),
        record=None if facts.record is None else _record(facts, facts.record),
        directory=DirectoryPart(facts.export, "/".join(facts.path), facts.contents) if facts.path else None,
        usage=None if facts.answer is None else _usage(facts.answer),
        archives=facts.archives,
        pods=[pod for pod in facts.pods if pod.uses(*facts.claim_key)],
        events=sorted(facts.events, key=lambda event: event.at),
        unread=[f"{what}: {why}" for what, why in facts.unread.items()],
    )


def _claim(claim: Claim) -> ClaimPart:
    meta = claim.metadata
    return ClaimPart(
        namespace=meta.namespace,
        name=meta.name,
        uid=claim.uid,
        phase=claim.status.phase,
        storage_class=claim.class_name,
        requested=claim.requested,
        created=meta.creation_timestamp,
        deleted=meta.deletion_timestamp or "",
    )


def _record(facts: Facts, record: Record) -> RecordPart:
    state = "retained" if record.retained else "settled"
    return RecordPart(
        volume=facts.record_of,
        state="pending" if facts.pending else state,
        claim=f"{record.namespace}/{record.claim}",
        storage_class=record.class_name,
        capacity=record.capacity,
        on_delete=record.on_delete,
        created=record.created,
        retained=record.retained,
        retention=record.retention,
        archive=record.archive,
        quota=record.quota,
        gid=record.gid or None,
        cluster=record.cluster,
        agrees=None if facts.volume is None else identity.agrees(record, facts.volume),
    )


def _usage(answer: Answer) -> UsagePart:
    return UsagePart(
        used_bytes=answer.used_bytes if answer.whole else None,
        files=answer.inodes if answer.whole else None,
        limit_bytes=answer.limit_bytes or None,
        reason=answer.reason,
        why=answer.why,
        at=answer.at,
    )

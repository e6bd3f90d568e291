"""Adoption: give an existing directory to a claim, with a record and a volume: `adopt`.

It works like a recovery: the record comes first, and names no object until the volume's uid is known. The next run, or
`recover`, resumes an interrupted adoption. The volume is retained (Retain) until an admin changes that: its data can be
the only copy.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from provisioner.core import classes, manifests, names, paths, quantities
from provisioner.core.errors import InvalidPath, InvalidQuantity, InvalidSettings, ProvisionerError
from provisioner.core.locations import RelPath, split_path
from provisioner.core.objects import Claim, NfsSource, StorageClass, Volume
from provisioner.core.parameters import ClassParameters
from provisioner.core.records import NO_OBJECT, Record, require_room, short_modes
from provisioner.core.recovery import ALL_MODES, Make, Place, Present, Remains, Step, Taken


class NotAdopted(ProvisionerError):
    """The directory cannot be given to the claim; the text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The directory and the claim that gets it.

    Class and size are for a claim that does not exist yet.
    """

    path: RelPath
    namespace: str
    claim: str
    class_name: str | None = None
    capacity: str | None = None

    @property
    def directory(self) -> str:
        """Return the directory as users write it."""
        return "/".join(self.path)

    @property
    def key(self) -> str:
        """Return the claim as `namespace/name`."""
        return f"{self.namespace}/{self.claim}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The directory on its export, and its present records."""

    place: Place
    records: Mapping[str, Record]
    """The records of exactly this directory, by volume."""
    pending: frozenset[str]
    """The volumes among them whose claims are being provisioned."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. The record is `fresh`, or replaces the one that the directory has."""

    step: Step
    fresh: bool

    @property
    def record(self) -> Record:
        """Return the record to write."""
        assert isinstance(self.step.action, Make)
        return self.step.action.record


def directory(text: str) -> RelPath:
    """Parse a directory as users write it, relative to its export. Raises InvalidSettings."""
    try:
        path = paths.check(text.rstrip("/") if text.startswith("/") else "/".join(paths.components(text)))
    except InvalidPath as exc:
        raise InvalidSettings(f"DIRECTORY: {exc}") from exc
    if paths.is_archive_name(path[0]):
        raise InvalidSettings(
            f"DIRECTORY: {path[0]!r} has the name of an archive: if it has a record, use `nfs-provisioner restore`;"
            " otherwise rename it on the server first"
        )
    return path


def capacity(text: str) -> str:
    """Check a size. Raises InvalidSettings."""
    try:
        if quantities.parse_bytes(text) > 0:
            return text
    except InvalidQuantity as exc:
        raise InvalidSettings(f"--capacity: {exc}") from exc
    raise InvalidSettings(f"--capacity {text!r} is not above zero: give a larger size")


def plan(
    wish: Wish,
    found: Found,
    present: Present,
    storage_classes: Mapping[str, StorageClass],
    *,
    now: str,
    new_name: Callable[[], str],
) -> Plan:
    """Return the record and the volume that give the directory to the claim. Raises NotAdopted, InvalidRecord.

    `storage_classes` are those of the provisioner, by name; `new_name` returns a name that no volume has had.
    """
    claim = present.claims.get(wish.key)
    if claim is not None:
        _require_waiting(claim)
    former = _former(wish, found, present, claim)
    storage_class, parameters = _class(wish, claim, former[1] if former else None, storage_classes)
    volume = former[0] if former is not None else new_name()
    record = Record(
        directory=wish.directory,
        namespace=wish.namespace,
        claim=wish.claim,
        claim_uid=claim.uid if claim is not None else "",
        class_name=storage_class.name,
        on_delete=parameters.on_delete,
        capacity=_capacity(wish, claim, former[1] if former else None),
        created=now,
        cluster=present.cluster,
        modes=short_modes(claim.spec.access_modes if claim is not None else ALL_MODES),
        mount_options=",".join(storage_class.mount_options),
        retention=parameters.retention,
        volume_uid=NO_OBJECT,
        namespace_uid=present.namespace_uid(wish.namespace),
        gid=former[1].gid if former is not None else 0,
        quota=parameters.quota,
    )
    require_room(volume, record)
    remains = Remains(
        place=found.place,
        volume=volume,
        record=former[1] if former is not None else record,
        pending=False,
        contents="data",
    )
    _require_free(wish, remains, present)
    return Plan(Step(remains, Make(record, _body(volume, record, claim, found.place, present))), former is None)


def _require_waiting(claim: Claim) -> None:
    """Raise NotAdopted unless an existing claim can be bound to a volume that is created for it."""
    spec = claim.spec
    wrong = (
        ("is being deleted", bool(claim.metadata.deletion_timestamp)),
        (
            "already has a volume: name a new claim, or delete this one and recreate it afterwards",
            bool(spec.volume_name) or claim.status.phase != "Pending",
        ),
        ("has a dataSource, which names another source for its data", bool(spec.data_source or spec.data_source_ref)),
        (f"asks for an archive: remove its annotation {names.RESTORE}", names.RESTORE in claim.metadata.annotations),
        ("has a selector, which no volume of nfs-provisioner matches", spec.selector is not None),
        (f"has volumeMode {spec.volume_mode}, but a directory needs Filesystem", spec.volume_mode != "Filesystem"),
    )
    for why, is_so in wrong:
        if is_so:
            raise NotAdopted(f"claim {claim.key} {why}")


def _former(wish: Wish, found: Found, present: Present, claim: Claim | None) -> tuple[str, Record] | None:
    """Return the volume that had the directory, and its record, if both can be reused. Raises NotAdopted.

    The claim's own attempt can be reused: a daemon that crashed left the record, and cannot continue because of the
    data.
    """
    for volume, record in sorted(found.records.items()):
        if record.cluster != present.cluster:
            raise NotAdopted(
                f"directory {wish.directory!r} is that of volume {volume} of cluster"
                f" {record.cluster or '(without an id)'}:"
                f" if that cluster is lost, run `nfs-provisioner recover --volume {volume}`"
            )
        if volume in found.pending and (claim is None or record.claim_uid != claim.uid):
            raise NotAdopted(
                f"directory {wish.directory!r} is being provisioned for claim {record.namespace}/{record.claim}: see"
                f" the events of that claim; if it is gone, run `nfs-provisioner recover --volume {volume}` first"
            )
        if volume in present.volumes:
            raise NotAdopted(_has_it(wish, present.volumes[volume]))
    if len(found.records) > 1:
        raise NotAdopted(f"directory {wish.directory!r} has several records: {', '.join(sorted(found.records))}")
    return next(iter(found.records.items()), None)


def _has_it(wish: Wish, volume: Volume) -> str:
    reference = volume.spec.claim_ref
    bound = f", which is for claim {reference.namespace}/{reference.name}" if reference is not None else ""
    return (
        f"directory {wish.directory!r} overlaps with that of volume {volume.name}{bound}: if that volume is no longer"
        " needed, set its reclaim policy to Retain and delete it first"
    )


def _class(
    wish: Wish, claim: Claim | None, former: Record | None, storage_classes: Mapping[str, StorageClass]
) -> tuple[StorageClass, ClassParameters]:
    """Return the class of the claim, and its parameters. Raises NotAdopted."""
    known = ", ".join(sorted(storage_classes)) or "none"
    if claim is not None and wish.class_name not in (None, claim.class_name):
        raise NotAdopted(
            f"claim {claim.key} already exists, with StorageClass {claim.class_name or '(none)'}: omit --class"
        )
    only = next(iter(storage_classes)) if len(storage_classes) == 1 else ""
    of_former = former.class_name if former is not None and former.class_name in storage_classes else ""
    name = claim.class_name if claim is not None else wish.class_name or of_former or only
    if not name and claim is None:
        raise NotAdopted(f"claim {wish.key} does not exist: name its class with --class ({known})")
    if name not in storage_classes:
        raise NotAdopted(
            f"StorageClass {name or '(none)'} does not exist, or is another provisioner's: use one of {known}"
        )
    storage_class = storage_classes[name]
    try:
        return storage_class, classes.settings_of(storage_class, None).parameters
    except InvalidSettings as exc:
        raise NotAdopted(f"StorageClass {name}: {exc}") from exc


def _capacity(wish: Wish, claim: Claim | None, former: Record | None) -> str:
    """Return the volume's size, which is at least what the claim requests.

    Raises NotAdopted.
    """
    if claim is not None:
        if wish.capacity is not None and quantities.is_less(wish.capacity, claim.requested):
            raise NotAdopted(f"--capacity is less than the {claim.requested} that claim {claim.key} requests")
        return wish.capacity or claim.requested
    size = wish.capacity or (former.capacity if former is not None else "")
    if not size:
        raise NotAdopted(
            f"claim {wish.key} does not exist: give the size of its volume with --capacity, at least as much as the"
            " claim will request"
        )
    return size


def _require_free(wish: Wish, remains: Remains, present: Present) -> None:
    """Raise NotAdopted if a volume of any provisioner has the directory, one above or below it, or the claim."""
    taken = Taken.by(present.volumes.values())
    holder = taken.holder(remains)
    if holder is not None:
        raise NotAdopted(_has_it(wish, present.volumes[holder]))
    other = taken.claims.get(wish.key)
    if other is not None:
        raise NotAdopted(f"volume {other} already exists for claim {wish.key}: delete it first, or name another claim")


def _body(volume: str, record: Record, claim: Claim | None, place: Place, present: Present) -> Mapping[str, object]:
    uid = {"uid": claim.uid} if claim is not None else {}
    return manifests.volume(
        volume,
        provisioner=present.provisioner,
        export=place.location,
        export_id=place.id,
        directory=record.path,
        on_delete=record.on_delete,
        capacity=record.capacity,
        access_modes=claim.spec.access_modes if claim is not None else ALL_MODES,
        mount_options=[option for option in record.mount_options.split(",") if option],
        class_name=record.class_name,
        reclaim_policy="Retain",
        claim_ref={"namespace": record.namespace, "name": record.claim} | uid,
        gid=record.gid,
        quota=record.quota,
    )


def elsewhere(place: Place, path: RelPath, volumes: Mapping[str, Volume], known: tuple[Place, ...]) -> list[Volume]:
    """Return volumes of the same absolute path, or one above or below it, on servers of no known export.

    Their server can be this export's under another name.
    """
    absolute = {(*each.components, *path) for each in place.all_locations}
    found: list[Volume] = []
    for volume in volumes.values():
        source = volume.source
        if source is None or any(_is_on(each, source) for each in known):
            continue
        there = split_path(source.path)
        if there and any(there[: len(each)] == each[: len(there)] for each in absolute):
            found.append(volume)
    return found


def _is_on(place: Place, source: NfsSource) -> bool:
    return any(each.relative(source.server, source.path) is not None for each in place.all_locations)


def command(wish: Wish, exports: Iterable[str]) -> str:
    """Return the command that carries out the plan; `exports` are those that were named."""
    said = {"--class": wish.class_name, "--capacity": wish.capacity}
    words = ["nfs-provisioner", "adopt", wish.directory, "--claim", wish.key]
    words += [word for export in exports for word in ("--export", export)]
    words += [word for flag, value in said.items() if value is not None for word in (flag, value)]
    return shlex.join([*words, "--apply"])

"""StorageClass parameters: their values, aliases and defaults. An unknown parameter is refused, never ignored.

Names and keywords are case-insensitive, an empty value counts as unset, and white space around a value is dropped. So
existing classes of nfs-subdir and of csi-driver-nfs work as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from provisioner.core import groups, quantities, schedules, templates
from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidParameter, InvalidQuantity, InvalidSettings, UnknownParameter
from provisioner.core.groups import GidRange
from provisioner.core.locations import Location, location
from provisioner.core.records import OnDelete, Quota, parse_quota
from provisioner.core.templates import Template

ALIASES = {"subDir": "pathPattern", "archiveOnDelete": "onDelete", "mountPermissions": "mode"}
KNOWN = (
    "server", "share", "pathPattern", "onDelete", "mode", "uid", "gid", "gidRange", "existing", "archiveRetention",
    "minFree", "overcommit", "formerNamespace", "quota", "autoGrow", "autoGrowLimit", "schedule", "keep",
)  # fmt: skip

_SPELLINGS = {name.lower(): name for name in (*KNOWN, *ALIASES)}
_IGNORED = re.compile(
    r"csi\.storage\.k8s\.io/(fstype|(provisioner|controller-publish|controller-expand|node-stage|node-publish"
    r"|node-expand)-secret-(name|namespace))",
    re.IGNORECASE,
)
"""Parameters for the sidecars of csi-driver-nfs. They mean nothing for a directory that the kubelet mounts itself."""

_ADVICE = {
    "mountoptions": "is a field of the StorageClass, next to `parameters`: move it there, as a list",
    "reclaimpolicy": "is a field of the StorageClass, next to `parameters`: move it there",
    "volumebindingmode": "is a field of the StorageClass, next to `parameters`: move it there",
    "allowvolumeexpansion": "is a field of the StorageClass, next to `parameters`: move it there",
    "rootsquash": "is unknown: set it in the export's options on the server, and remove it here",
    "permpattern": "is unknown: use mode",
    "userpattern": "is unknown: use uid",
    "grouppattern": "is unknown: use gid",
    "gidallocate": "is unknown: use gid: auto",
    "gidmin": "is unknown: use gidRange, such as 50000-59999",
    "gidmax": "is unknown: use gidRange, such as 50000-59999",
    "gidrangestart": "is unknown: use gidRange, such as 50000-59999",
    "gidrangeend": "is unknown: use gidRange, such as 50000-59999",
    "path": "is unknown: use share for the export's path, and pathPattern for the directory below it",
    "nfsserver": "is unknown: use server",
    "nfspath": "is unknown: use share",
}
"""Names that users write for another parameter or field, in lower case."""

# Go's strconv.ParseBool, as nfs-subdir reads archiveOnDelete.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

_DEFAULT_MODE: int | None = 0o777

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Owner and mode of a directory. None leaves what the server sets."""

    mode: int | None = _DEFAULT_MODE
    uid: int | None = None
    gid: int | None = None
    mode_asked: bool = field(default=False, compare=False)
    """Whether the class relies on the mode: then it is an error, not only a warning, if the server refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinFree:
    """The free space that an export must have for a new volume: bytes, or a fraction of its size."""

    bytes: int = 0
    fraction: float = 0.0

    def of(self, size_bytes: int) -> int:
        """Return the bytes that must be free on an export of this size."""
        return max(self.bytes, int(size_bytes * self.fraction))


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoGrow:
    """How claims grow by themselves: by a fraction of their size, up to a limit."""

    fraction: float
    limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Snapshots of each volume by themselves."""

    cron: str
    """When: five fields, UTC."""
    keep: int | None
    """How many are kept of each volume; None for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassParameters:
    """A StorageClass's parameters, parsed. `export` None means the default export."""

    export: Location | None
    template: Template
    on_delete: OnDelete
    access: Ownership
    groups: GidRange | None
    """The range of group ids from which each volume gets one of its own; None without `gid: auto`."""
    adopt: bool | None
    """The parameter `existing`; None if the class does not set it."""
    accepts_former: bool
    """Whether data of an earlier namespace goes to the one that now has its name."""
    retention: str
    """How long an archive is kept, as it was written; empty means that it never expires."""
    min_free: MinFree | None
    overcommit: float | None
    quota: Quota
    """Whether a quota agent on the server enforces the size of each volume."""
    auto_grow: AutoGrow | None
    schedule: Schedule | None
    ignored: tuple[str, ...]
    """Parameters of CSI's sidecars, which have no effect here."""

    @property
    def limits_space(self) -> bool:
        """Whether claims of the class are refused if the export lacks space."""
        return self.min_free is not None or self.overcommit is not None

    def adopts(self, reclaim_policy: str) -> bool:
        """Return True if a new claim gets the directory of a former volume: by default if the class keeps data."""
        kept = self.on_delete == "retain" or reclaim_policy == "Retain"
        return kept if self.adopt is None else self.adopt


def parse(parameters: Mapping[str, str]) -> ClassParameters:
    """Parse the parameters of a class.

    Raises UnknownParameter or InvalidParameter with every parameter at fault and what is allowed.
    """
    given = _Given(parameters)
    on_delete = given.on_delete()
    gid = given.read("gid", None, _group)
    gid_range = given.gid_range(wanted=gid == "auto")
    quota: Quota = given.read("quota", "none", _quota)
    parsed = ClassParameters(
        export=given.export(),
        template=given.read("pathPattern", templates.DEFAULT, templates.parse),
        on_delete=on_delete,
        access=Ownership(
            mode=given.read("mode", _DEFAULT_MODE if gid_range is None else groups.MODE, _mode),
            mode_asked=gid_range is not None or any(given.all("mode")),
            uid=given.read("uid", None, _identifier),
            gid=None if gid == "auto" else gid,
        ),
        groups=gid_range,
        adopt=given.read("existing", None, _existing),
        accepts_former=given.read("formerNamespace", False, _former_namespace),
        retention=given.read("archiveRetention", "", _retention),
        min_free=given.read("minFree", None, _min_free),
        overcommit=given.read("overcommit", None, _overcommit),
        quota=quota,
        auto_grow=given.auto_grow(enforced=quota != "none"),
        schedule=given.schedule(),
        ignored=tuple(name for name in sorted(parameters) if _IGNORED.fullmatch(name)),
    )
    if given.problems:
        error = UnknownParameter if given.has_unknown else InvalidParameter
        raise error("; ".join(given.problems))
    return parsed


def as_written(name: str, parameters: Mapping[str, str]) -> str:
    """Return the name under which a class sets a parameter, or the parameter's own name if it does not."""
    return next((written for written, _ in _Given(parameters).all(name)), name)


class _Given:
    """The values of a class under the parameters' own names, and the problems with them."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self.has_unknown = False
        self._values: dict[str, list[tuple[str, str]]] = {}
        for written in sorted(parameters):
            name, value = _SPELLINGS.get(written.strip().lower()), parameters[written].strip()
            if name is None:
                unknown = _unknown(written)
                self.problems += unknown
                self.has_unknown = self.has_unknown or bool(unknown)
            elif value:
                self._values.setdefault(name, []).append((written, value))

    def all(self, name: str) -> Iterator[tuple[str, str]]:
        """Iterate over the names under which a parameter is set, with their values.

        Left out is archiveOnDelete, whose values mean something else than those of onDelete.
        """
        yield from self._values.get(name, ())
        for alias, meant in ALIASES.items():
            if meant == name != "onDelete":
                yield from self._values.get(alias, ())

    def read(self, name: str, default: T, reader: Callable[[str], T]) -> T:
        """Return the value of a parameter under any of its names.

        Return the default if it is not set or invalid.
        """
        found: dict[str, T] = {}
        for written, value in self.all(name):
            try:
                found[written] = reader(value)
            except (InvalidSettings, InvalidQuantity) as exc:
                self.problems.append(f"parameter {written}: {exc}")
        if not found:
            return default
        (first, result), *others = found.items()
        for other, meaning in others:
            if meaning != result:
                self.problems.append(
                    f"parameters {first} and {other} mean the same and have different values: keep only one of them"
                )
        return result

    def on_delete(self) -> OnDelete:
        """Return the rule. onDelete wins, since the chart of nfs-subdir always adds archiveOnDelete."""
        if any(self.all("onDelete")):
            return self.read("onDelete", "archive", _on_delete)
        return self.read("archiveOnDelete", "archive", lambda text: archive_flag(text.lower()))

    def gid_range(self, *, wanted: bool) -> GidRange | None:
        """Return the range of `gid: auto`, or None without it."""
        gid_range = self.read("gidRange", groups.DEFAULT_RANGE, groups.parse_range)
        if wanted:
            return gid_range
        for written, _ in self.all("gidRange"):
            self.problems.append(f"parameter {written} needs gid: auto: add that, or remove {written}")
        return None

    def auto_grow(self, *, enforced: bool) -> AutoGrow | None:
        """Return how claims grow, or None. Both parameters are needed: one claim must not take the whole export."""
        fraction, limit_bytes = self.read("autoGrow", None, _auto_grow), self.read("autoGrowLimit", None, _size_limit)
        for name, other in (("autoGrow", "autoGrowLimit"), ("autoGrowLimit", "autoGrow")):
            for written, _ in self.all(name):
                if not any(self.all(other)):
                    self.problems.append(f"parameter {written} needs {other}: add that, or remove {written}")
                elif not enforced:
                    self.problems.append(
                        f"parameter {written} needs quota: preferred or required, which shows the usage"
                    )
        if fraction is None or limit_bytes is None:
            return None
        return AutoGrow(fraction=fraction, limit_bytes=limit_bytes)

    def schedule(self) -> Schedule | None:
        """Return when snapshots are made, or None."""
        cron, keep = self.read("schedule", "", schedules.check), self.read("keep", None, _keep)
        for written, _ in self.all("keep"):
            if not any(self.all("schedule")):
                self.problems.append(f"parameter {written} needs schedule: add that, or remove {written}")
        return Schedule(cron=cron, keep=keep) if cron else None

    def export(self) -> Location | None:
        """Return the export that the class names, or None."""
        server, share = self.read("server", "", str), self.read("share", "", str)
        if not server and not share:
            return None
        if not server or not share:
            self.problems.append(
                "parameters server and share belong together: set both, or neither for the default export"
            )
            return None
        try:
            return location(server, share)
        except InvalidSettings as exc:
            self.problems.append(f"parameters server and share: {exc}")
            return None


def _unknown(name: str) -> list[str]:
    if _IGNORED.fullmatch(name):
        return []
    advice = _ADVICE.get(name.strip().lower(), f"is unknown: use one of {', '.join((*KNOWN, *ALIASES))}")
    return [f"parameter {name} {advice}"]


def _on_delete(text: str) -> OnDelete:
    match text.lower():
        case "delete" | "archive" | "retain" as rule:
            return rule
    raise InvalidSettings(f"{text!r} is not one of delete, archive, retain")


def archive_flag(text: str) -> OnDelete:
    """Return the rule that a value of archiveOnDelete means to nfs-subdir, case-sensitive.

    Raises InvalidSettings.
    """
    if text in _TRUE:
        return "archive"
    if text in _FALSE:
        return "delete"
    raise InvalidSettings(f"{text!r} is not true or false")


def _mode(text: str) -> int | None:
    if not re.fullmatch(r"(0[oO])?[0-7]+", text) or int(text, 8) > 0o7777:
        raise InvalidSettings(f"{text!r} is not an octal mode such as 0770 (0 leaves the mode to the server)")
    return int(text, 8) or None


def _identifier(text: str) -> int | None:
    if text.lower() == "none":  # the default of nfs-ganesha's provisioner
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > 2**32 - 2:
        raise InvalidSettings(f"{text!r} is not a numeric id such as 1000")
    return int(text)


def _group(text: str) -> int | Literal["auto"] | None:
    if text.lower() == "auto":
        return "auto"
    try:
        return _identifier(text)
    except InvalidSettings as exc:
        raise InvalidSettings(f"{exc}, and not auto") from exc


def _existing(text: str) -> bool:
    if text.lower() not in ("refuse", "adopt"):
        raise InvalidSettings(f"{text!r} is not one of refuse, adopt")
    return text.lower() == "adopt"


def _former_namespace(text: str) -> bool:
    if text.lower() not in ("refuse", "accept"):
        raise InvalidSettings(f"{text!r} is not one of refuse, accept")
    return text.lower() == "accept"


def _min_free(text: str) -> MinFree | None:
    if text.endswith("%"):
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text) or float(text[:-1]) > 100:
            raise InvalidSettings(f"{text!r} is not a percentage such as 5%")
        return MinFree(fraction=float(text[:-1]) / 100)
    size_bytes = quantities.parse_bytes(text)
    if size_bytes < 0:
        raise InvalidSettings(f"{text!r} is negative: write a size such as 10Gi or a percentage such as 5%")
    return MinFree(bytes=size_bytes)


def _overcommit(text: str) -> float | None:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or float(text) <= 0:
        raise InvalidSettings(f"{text!r} is not a multiple of the export's size such as 1.5")
    return float(text)


def _quota(text: str) -> Quota:
    try:
        return parse_quota(text.lower())
    except ValueError:
        raise InvalidSettings(f"{text!r} is not one of none, preferred, required") from None


def _auto_grow(text: str) -> float | None:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text) or not 0 < float(text[:-1]) <= 100:
        raise InvalidSettings(f"{text!r} is not a percentage of the volume's size such as 20%, up to 100%")
    return float(text[:-1]) / 100


def _size_limit(text: str) -> int | None:
    size_bytes = quantities.parse_bytes(text)
    if size_bytes <= 0:
        raise InvalidSettings(f"{text!r} lets no volume grow: write a size such as 100Gi")
    return size_bytes


def _keep(text: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) < 1:
        raise InvalidSettings(f"{text!r} is not a number of snapshots such as 7")
    return int(text)


def _retention(text: str) -> str:
    if parse_s(text) <= 0:
        raise InvalidSettings(f"{text!r} would keep no archive at all: use onDelete delete instead")
    return text

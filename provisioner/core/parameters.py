"""StorageClass parameters: what each may say, its aliases and defaults. An unknown one is refused, never ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from provisioner.core import quantities, templates
from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidQuantity, InvalidSettings
from provisioner.core.locations import Location, location
from provisioner.core.records import OnDelete
from provisioner.core.templates import Template

ALIASES = {"subDir": "pathPattern", "archiveOnDelete": "onDelete", "mountPermissions": "mode"}
KNOWN = (
    "server", "share", "pathPattern", "onDelete", "mode", "uid", "gid", "existing", "archiveRetention", "minFree",
    "overcommit",
)  # fmt: skip

# Go's strconv.ParseBool, as nfs-subdir reads archiveOnDelete.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

_DEFAULT_MODE: int | None = 0o777

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may use a directory. None leaves what the server gives."""

    mode: int | None = _DEFAULT_MODE
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MinFree:
    """What an export must have left for a new volume: bytes, or a share of its size."""

    bytes: int = 0
    fraction: float = 0.0

    def of(self, size_bytes: int) -> int:
        """The bytes that must be free on an export of this size."""
        return max(self.bytes, int(size_bytes * self.fraction))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassParameters:
    """A StorageClass's parameters, parsed. `export` None means the default export."""

    export: Location | None
    template: Template
    on_delete: OnDelete
    access: Access
    adopt: bool
    retention: str
    """How long an archive is kept, as it was written; empty is for ever."""
    min_free: MinFree | None
    overcommit: float | None


def parse(parameters: Mapping[str, str]) -> ClassParameters:
    """The parameters of a class. Raises InvalidSettings that names each one at fault and says what is allowed."""
    problems: list[str] = []
    values = _without_aliases(parameters, problems)

    def read(name: str, default: T, reader: Callable[[str], T]) -> T:
        if name not in values:
            return default
        try:
            return reader(values[name])
        except (InvalidSettings, InvalidQuantity) as exc:
            problems.append(f"parameter {_as_written(name, parameters)}: {exc}")
            return default

    reader = _on_delete if "onDelete" in parameters else archive_flag
    on_delete: OnDelete = read("onDelete", "archive", reader)
    parsed = ClassParameters(
        export=_export(values, problems),
        template=read("pathPattern", templates.DEFAULT, templates.parse),
        on_delete=on_delete,
        access=Access(
            mode=read("mode", _DEFAULT_MODE, _mode),
            uid=read("uid", None, _identifier),
            gid=read("gid", None, _identifier),
        ),
        adopt=read("existing", on_delete == "retain", _existing),
        retention=read("archiveRetention", "", _retention),
        min_free=read("minFree", None, _min_free),
        overcommit=read("overcommit", None, _overcommit),
    )
    if problems:
        raise InvalidSettings("; ".join(problems))
    return parsed


def _without_aliases(parameters: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name in sorted(parameters):
        if name == "archiveOnDelete" and "onDelete" in parameters:
            continue  # nfs-subdir's chart always writes it, and there too onDelete wins
        canonical = ALIASES.get(name, name)
        if canonical not in KNOWN:
            problems.append(f"parameter {name} is unknown; known are {', '.join((*KNOWN, *ALIASES))}")
        elif canonical in values:
            problems.append(f"parameters {canonical} and {_alias_of(canonical)} mean the same: keep one of them")
        else:
            values[canonical] = parameters[name]
    return values


def _alias_of(name: str) -> str:
    return next(alias for alias, canonical in ALIASES.items() if canonical == name)


def _as_written(name: str, parameters: Mapping[str, str]) -> str:
    return name if name in parameters else _alias_of(name)


def _export(values: Mapping[str, str], problems: list[str]) -> Location | None:
    if "server" not in values and "share" not in values:
        return None
    if "server" not in values or "share" not in values:
        problems.append("parameters server and share belong together: give both, or none for the default export")
        return None
    try:
        return location(values["server"], values["share"])
    except InvalidSettings as exc:
        problems.append(f"parameters server and share: {exc}")
        return None


def _on_delete(text: str) -> OnDelete:
    match text:
        case "delete" | "archive" | "retain":
            return text
    raise InvalidSettings(f"{text!r} is not one of delete, archive, retain")


def archive_flag(text: str) -> OnDelete:
    """What a value of nfs-subdir's archiveOnDelete stands for. Raises InvalidSettings."""
    if text in _TRUE:
        return "archive"
    if text in _FALSE:
        return "delete"
    raise InvalidSettings(f"{text!r} is not true or false")


def _mode(text: str) -> int | None:
    if not re.fullmatch(r"(0o)?[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise InvalidSettings(f"{text!r} is not an octal mode such as 0770 (0 leaves the server's)")
    return int(text, 8) or None


def _identifier(text: str) -> int | None:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > 2**32 - 2:
        raise InvalidSettings(f"{text!r} is not a numeric id such as 1000")
    return int(text)


def _existing(text: str) -> bool:
    if text not in ("refuse", "adopt"):
        raise InvalidSettings(f"{text!r} is not one of refuse, adopt")
    return text == "adopt"


def _min_free(text: str) -> MinFree | None:
    if text.endswith("%"):
        if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?%", text) or float(text[:-1]) > 100:
            raise InvalidSettings(f"{text!r} is not a share such as 5%")
        return MinFree(fraction=float(text[:-1]) / 100)
    size_bytes = quantities.parse_bytes(text)
    if size_bytes < 0:
        raise InvalidSettings(f"{text!r} is negative")
    return MinFree(bytes=size_bytes)


def _overcommit(text: str) -> float | None:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) <= 0:
        raise InvalidSettings(f"{text!r} is not a multiple of the export's size such as 1.5")
    return float(text)


def _retention(text: str) -> str:
    if parse_s(text) <= 0:
        raise InvalidSettings(f"{text!r} would keep no archive at all: use onDelete delete for that")
    return text.strip()

"""What `mountOptions` say of the way to the server: we speak to it as the pods will (nfs(5), "Mount options")."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.core.errors import InvalidSettings

VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
_SECURITY = ("sys", "krb5", "krb5i", "krb5p", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """The options that matter to us; None leaves the choice to client and server."""

    version: str | None = None
    port: int | None = None
    mount_port: int | None = None
    kerberos: bool = False
    """Whether every security flavour named is one of Kerberos's."""


def parse(options: Iterable[str]) -> MountOptions:
    """The mount options of a class or a volume, each entry one option or several with commas between.

    Options that are the kernel client's own affair are passed over. Raises InvalidSettings that names the option.
    """
    values: dict[str, str] = {}
    for option in (part.strip() for entry in options for part in entry.split(",")):
        name, _, value = option.partition("=")
        if name in ("vers", "nfsvers"):
            values["nfsvers"] = value
        elif re.fullmatch(r"v[234](\.[0-9])?", name):
            values["nfsvers"] = name[1:]
        else:
            values[name] = value
    flavours = [flavour for flavour in values.get("sec", "").split(":") if flavour]
    unknown = [flavour for flavour in flavours if flavour not in _SECURITY]
    if unknown:
        raise InvalidSettings(f"mount option sec={values['sec']}: known are {', '.join(_SECURITY)}")
    return MountOptions(
        version=_version(values),
        port=_port("port", values),
        mount_port=_port("mountport", values),
        kerberos=bool(flavours) and all(flavour.startswith("krb5") for flavour in flavours),
    )


def _version(values: dict[str, str]) -> str | None:
    version = values.get("nfsvers")
    if version is None:
        return None
    if version == "4" and "minorversion" in values:
        version = f"4.{values['minorversion']}"
    if version not in VERSIONS:
        raise InvalidSettings(f"mount option nfsvers={version}: known are {', '.join(VERSIONS)}")
    return version


def _port(name: str, values: dict[str, str]) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise InvalidSettings(f"mount option {name}={text} is not the number of a port")
    return int(text) or None  # 0 means: ask the portmapper

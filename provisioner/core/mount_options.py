"""The mount options that matter for the provisioner's own connection: it uses the same as pods (nfs(5))."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.core.errors import InvalidMountOption

VERSIONS = ("3", "4", "4.0", "4.1", "4.2")
_SECURITY = ("sys", "krb5", "krb5i", "krb5p", "none", "null")
_TCP = ("tcp", "tcp6")
_TRANSPORTS = (*_TCP, "udp", "udp6", "rdma", "rdma6")
_TLS = ("none", "tls", "mtls")
# Options for encryption other than nfs(5)'s xprtsec: mount helpers of cloud providers have them.
_ENCRYPTION = re.compile(r"(?!no).*(xprtsec|tls|ssl|encrypt|stunnel).*")
_OFF = ("none", "no", "off", "false", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """The options that matter; None leaves the choice to client and server."""

    version: str | None = None
    port: int | None = None
    mount_port: int | None = None
    kerberos: bool = False
    """Whether the options require Kerberos."""
    encryption: str = ""
    """The option that asks for encryption of the connection (TLS), as it was written."""
    transport: str = ""
    """The option that asks for another transport than TCP, as it was written."""


def parse(options: Iterable[str]) -> MountOptions:
    """Parse the mount options of a class or a volume; an entry is one option, or several with commas in between.

    Names and values are case-insensitive, so that no spelling of an encryption is missed. If an option is given twice,
    the last one counts, as for the kernel; but once security is requested, it stays so. Options that only concern the
    kernel's client are ignored. Raises InvalidMountOption, which names the option.
    """
    values: dict[str, str] = {}
    found = [_pair(part) for entry in options for part in entry.split(",") if part.strip()]
    for name, value in found:
        if name in ("vers", "nfsvers"):
            values["nfsvers"] = value
        elif re.fullmatch(r"v[234](\.[0-9])?", name):
            values["nfsvers"] = name[1:]
        else:
            values[name] = value
    return MountOptions(
        version=_version(values),
        port=_port("port", values),
        mount_port=_port("mountport", values),
        kerberos=any(list(itertools.starmap(_is_kerberos, found))),
        encryption=_first(_encryption(name, value) for name, value in found),
        transport=_first(_transport(name, value, values) for name, value in found),
    )


def _pair(option: str) -> tuple[str, str]:
    name, _, value = option.partition("=")
    return name.strip().casefold(), value.strip().casefold()


def _is_kerberos(name: str, value: str) -> bool:
    """Return True if an option allows no security flavour but Kerberos.

    Raises InvalidMountOption.
    """
    if name != "sec":
        return "krb5" in name or (name.startswith("sec") and "krb5" in value)
    flavours = [flavour.strip() for flavour in value.split(":") if flavour.strip()]
    if not set(flavours) <= set(_SECURITY):
        raise InvalidMountOption(f"mount option sec={value}: use one of {', '.join(_SECURITY)}")
    return bool(flavours) and all(flavour.startswith("krb5") for flavour in flavours)


def _encryption(name: str, value: str) -> str:
    """Return the option if it asks for encryption, else "". Raises InvalidMountOption."""
    if name == "xprtsec":
        return "" if _one_of(_TLS, name, value) == "none" else f"{name}={value}"
    if _ENCRYPTION.fullmatch(name) and value not in _OFF:
        return f"{name}={value}" if value else name
    return ""


def _transport(name: str, value: str, values: dict[str, str]) -> str:
    """Return the option if it asks for anything but TCP to the server's address, else "".

    Raises InvalidMountOption.
    """
    if name == "proto":
        return "" if _one_of(_TRANSPORTS, name, value) in _TCP else f"{name}={value}"
    if name in _TRANSPORTS and name not in _TCP:
        return name
    if name in ("mounthost", "mountaddr") and values.get("nfsvers") == "3":
        return f"{name}={value}"
    return ""


def _first(texts: Iterable[str]) -> str:
    """Return the first text that is not empty.

    All are evaluated, since each of them can be invalid.
    """
    return next(filter(None, list(texts)), "")


def _one_of(known: tuple[str, ...], name: str, value: str) -> str:
    if value not in known:
        raise InvalidMountOption(f"mount option {name}={value}: use one of {', '.join(known)}")
    return value


def _version(values: dict[str, str]) -> str | None:
    version = values.get("nfsvers")
    if version is None:
        return None
    if version == "4" and "minorversion" in values:
        version = f"4.{values['minorversion']}"
    if version not in VERSIONS:
        raise InvalidMountOption(f"mount option nfsvers={version}: use one of {', '.join(VERSIONS)}")
    return version


def _port(name: str, values: dict[str, str]) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise InvalidMountOption(f"mount option {name}={text}: use a port number from 0 to 65535")
    return int(text) or None  # 0 means: ask the portmapper

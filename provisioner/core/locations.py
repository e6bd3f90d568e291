"""The locations of exports: `SERVER:PATH`, as StorageClasses, flags and volumes write them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from provisioner.core.errors import InvalidSettings
from provisioner.core.texts import encodable

NFS_PORT = 2049
_NAME_LIMIT = 253
_LABEL_LIMIT = 63
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
"""The names that the resolver of a node (glibc) accepts. RFC 1123 has no underscore, but such names are in use."""
_ZONE = re.compile(r"[A-Za-z0-9_.-]*")

RelPath = tuple[str, ...]
"""Components of a path below an export's root, none of them empty, `.` or `..`; `()` is the root itself."""


def split_path(path: str) -> RelPath:
    """Split a path at its slashes.

    Leading, trailing and double ones add nothing. `.` and `..` are not dropped.
    """
    return tuple(part for part in path.split("/") if part)


@dataclass(frozen=True, slots=True)
class Location:
    """An export's address: a server's name or address, and an absolute path without a trailing `/`."""

    server: str
    path: str
    components: RelPath = field(init=False, repr=False, compare=False)
    """The path's components; `()` for a server's root."""

    def __post_init__(self) -> None:
        """Split the path once: each look-up of a directory needs its components."""
        object.__setattr__(self, "components", split_path(self.path))

    def __str__(self) -> str:
        """Return `SERVER:PATH`; an IPv6 address has brackets."""
        server = f"[{self.server}]" if ":" in self.server else self.server
        return f"{server}:{self.path}"

    def below(self, path: RelPath) -> str:
        """Return the absolute path on the server of a path below this export."""
        return "/" + "/".join((*self.components, *path))

    def relative(self, server: str, path: str) -> RelPath | None:
        """Return the components of an absolute path on a server below this export; None if it is elsewhere.

        `()` is the export's root. `..` and the like are kept, so that core.paths refuses them.
        """
        if normal_server(server) != self.server or not path.startswith("/"):
            return None
        parts = split_path(path)
        depth = len(self.components)
        return parts[depth:] if parts[:depth] == self.components else None


def label(where: Location, port: int | None = None) -> str:
    """Return the spelling of an export in tables, JSON, metrics, logs and events.

    It is `SERVER:PATH`, followed by ` port N` if the port is not 2049.
    """
    return str(where) if port in (None, NFS_PORT) else f"{where} port {port}"


def normal_server(server: str) -> str:
    """Return a server's name for comparison and display: lower case, an IPv6 address without brackets."""
    server = server.strip().lower()
    return server[1:-1] if server.startswith("[") and server.endswith("]") else server


def require_server(server: str) -> None:
    """Raise InvalidSettings unless a normal server is an address, or a name that nodes can resolve."""
    if ":" in server:
        _require_ipv6(server)
        return
    problem = _name_problem(server)
    if problem:
        raise InvalidSettings(
            f"server {server!r} is not a host name or an IP address: {problem}; a host name has letters, digits, '-'"
            f" and '_' in labels of at most {_LABEL_LIMIT} characters with single dots between, {_NAME_LIMIT} in all"
        )


def _require_ipv6(server: str) -> None:
    """Raise InvalidSettings for a server with a colon that is no IPv6 address.

    It can have a zone: fe80::1%eth0.
    """
    try:
        zone = ipaddress.IPv6Address(server).scope_id or ""
    except ValueError as exc:
        raise InvalidSettings(
            f"server {server!r} is not an IPv6 address: move a port into the class's mountOptions (port=)"
        ) from exc
    if not _ZONE.fullmatch(zone):
        raise InvalidSettings(f"server {server!r} has an invalid zone: use the name of a network interface")


def _name_problem(server: str) -> str:
    """Return why a host name cannot be resolved; "" if it can."""
    labels = server.removesuffix(".").split(".")
    if not server:
        return "it is empty"
    if not server.isascii():
        return "it has characters beyond ASCII (write an internationalised name as xn--…, as nodes resolve it)"
    if len(server.removesuffix(".")) > _NAME_LIMIT:
        return f"it has {len(server)} characters"
    if not all(labels):
        return "it has an empty label"
    if any(len(label) > _LABEL_LIMIT for label in labels):
        return "one label is too long"
    return "" if all(map(_LABEL.fullmatch, labels)) else "it has characters that are not allowed there"


def location(server: str, path: str) -> Location:
    """Return the location for a server and an absolute path.

    Raises InvalidSettings with what to change.
    """
    for advice in (_advice_on_server(server.strip()), _advice_on_path(path)):
        if advice:
            raise InvalidSettings(advice)
    server = normal_server(server)
    require_server(server)
    if not path.startswith("/"):
        raise InvalidSettings(f"the path {path!r} of an export on {server} must begin with /")
    if encodable(path) != path:
        raise InvalidSettings(
            f"the path {encodable(path)} on {server} is not valid UTF-8, so no PersistentVolume can name it: rename it"
        )
    parts = split_path(path)
    if any(part in (".", "..") or any(ord(c) < 32 or ord(c) == 127 for c in part) for part in parts):
        raise InvalidSettings(
            f"the path {path!r} of an export on {server} has a '.' or '..' component or a control character"
        )
    return Location(server, "/" + "/".join(parts))


_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<server>\[[^]]*\]|[^/:]*)(:(?P<port>\d+))?(?P<path>/.*)?")
_SMB = re.compile(r"(\\\\|//)(?P<server>[^\\/]+)[\\/]*(?P<path>.*)")
_WITH_PORT = re.compile(r"(?P<server>\[[^]]*\]|[^:\[\]/\\]+):(?P<port>\d+)")
_WITH_SERVER = re.compile(r"(?P<server>\[[^]]*\]|[^:/\\]+):(?P<path>/.*)")
_WITH_PATH = re.compile(r"(?P<server>\[[^]]*\]|[^:/\\]+)(:\d+)?:?(?P<path>/.*)")


def _advice_on_server(text: str) -> str:
    """Return what to write instead of a server that is more than a name or an address.

    Return "" for all others.
    """
    if found := _URL.fullmatch(text):
        return f"server {text!r} is a URL: write {_as_server(found)}" + _port_advice(found["port"])
    if found := _SMB.fullmatch(text):
        path = "/" + found["path"].replace("\\", "/").strip("/")
        return (
            f"server {text!r} is an SMB share: write the server {found['server']!r} and the path of its NFS export,"
            f" such as {path!r}"
        )
    if found := _WITH_PORT.fullmatch(text):
        return f"server {text!r} has a port: write the server {found['server']!r}" + _port_advice(found["port"])
    if found := _WITH_PATH.fullmatch(text):
        return f"server {text!r} has a path in it: write {_as_server(found)}"
    if text.startswith("/"):
        return f"server {text!r} is a path: write the server's name or address, and this as the share"
    return ""


def _as_server(found: re.Match[str]) -> str:
    return f"the server {found['server']!r} and the path {found['path'] or '/'!r}"


def _port_advice(port: str | None) -> str:
    return f", and port={port} into the class's mountOptions" if port else ""


def _advice_on_path(text: str) -> str:
    """Return what to write instead of a path that has its server in it; else ""."""
    text = text.strip()
    if found := _URL.fullmatch(text) or _WITH_SERVER.fullmatch(text):
        return f"the path {text!r} has the server in it: write the path {found['path'] or '/'!r} alone"
    if text.startswith("\\"):
        return f"the path {text!r} is an SMB path: write the path of the NFS export"
    return ""


def parse(text: str) -> Location:
    """Parse `SERVER:PATH`; an IPv6 address has brackets. Raises InvalidSettings."""
    if found := _URL.fullmatch(text.strip()):
        raise InvalidSettings(
            f"{text!r} is a URL: write {found['server']}:{found['path'] or '/'}" + _port_advice(found["port"])
        )
    server, separator, path = text.partition(":/")
    if not separator:
        raise InvalidSettings(
            f"{text!r} is not SERVER:PATH with an absolute path: write for example nas.example:/exports/k8s"
        )
    return location(server, "/" + path)

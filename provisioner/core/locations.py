"""Where an export is: `SERVER:PATH` as StorageClasses, flags and volumes write it."""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.core.errors import InvalidSettings

Path = tuple[str, ...]
"""Components of a path below an export's root, none of them empty, `.` or `..`; `()` is the root itself."""


@dataclass(frozen=True, slots=True)
class Location:
    """An export's address: a server's name or address, and an absolute path without a trailing `/`."""

    server: str
    path: str

    def __str__(self) -> str:
        """`SERVER:PATH`; an IPv6 address stands in brackets."""
        server = f"[{self.server}]" if ":" in self.server else self.server
        return f"{server}:{self.path}"

    @property
    def components(self) -> Path:
        """The path's components; `()` for a server's root."""
        return tuple(part for part in self.path.split("/") if part)

    def below(self, path: Path) -> str:
        """The absolute path on the server of something below this export."""
        return "/" + "/".join((*self.components, *path))

    def relative(self, server: str, path: str) -> Path | None:
        """The components of an absolute path on a server below this export; None where it is elsewhere.

        `()` is the export's root. `..` and the like stay in, for core.paths to refuse.
        """
        if normal_server(server) != self.server or not path.startswith("/"):
            return None
        parts = tuple(part for part in path.split("/") if part)
        depth = len(self.components)
        return parts[depth:] if parts[:depth] == self.components else None


def normal_server(server: str) -> str:
    """A server's name for comparison and display: lower case, an IPv6 address without its brackets."""
    server = server.strip().lower()
    return server[1:-1] if server.startswith("[") and server.endswith("]") else server


def location(server: str, path: str) -> Location:
    """The location for a server and an absolute path. Raises InvalidSettings with what is wrong with them."""
    server = normal_server(server)
    if not server or any(c.isspace() or c == "/" or ord(c) < 32 for c in server):
        raise InvalidSettings(f"{server!r} is not the name or address of a server")
    if not path.startswith("/"):
        raise InvalidSettings(f"the path {path!r} of an export on {server} must begin with /")
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") or any(ord(c) < 32 or ord(c) == 127 for c in part) for part in parts):
        raise InvalidSettings(f"the path {path!r} of an export on {server} has a component that is not a name")
    return Location(server, "/" + "/".join(parts))


def parse(text: str) -> Location:
    """`SERVER:PATH` as a location; an IPv6 address stands in brackets. Raises InvalidSettings."""
    server, separator, path = text.partition(":/")
    if not separator:
        raise InvalidSettings(f"{text!r} is not SERVER:PATH with an absolute path, such as nas.example:/exports/k8s")
    return location(server, "/" + path)

"""The settings of `run`, as values: what the flags and the environment come to, checked as a whole."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.core import locations
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseTimes
from provisioner.core.locations import Location

DEFAULT_PROVISIONER = "cluster.local/nfs-provisioner"
LEGACY_MOUNT = "/persistentvolumes"
"""Where the charts of nfs-subdir-external-provisioner, and ours with `access: mounted`, mount the default export."""

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  a pod's endpoint is for its cluster
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# What StorageClass.provisioner must be, lower-cased: IsQualifiedName (Kubernetes, apimachinery, pkg/util/validation).
_PREFIX_LIMIT, _NAME_LIMIT = 253, 63
_QUALIFIED = re.compile(rf"(?:(?P<prefix>{_SUBDOMAIN})/)?(?P<name>[a-z0-9](?:[-a-z0-9_.]*[a-z0-9])?)")
# The names whose Leases have no digest in their names, as they never had one.
_PLAIN = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?(?:/[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LEASE_NAME_LIMIT = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSetting:
    """One export: where it is, and the directory where somebody mounted it (None: it is reached directly)."""

    location: Location
    directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that `run` needs to know."""

    provisioner: str
    exports: tuple[ExportSetting, ...]
    default_export: Location | None
    require_mount: bool
    nfs_uid: int
    nfs_gid: int
    nfs_timeout_s: float
    kubeconfig: str | None
    leader_election: bool
    lease_namespace: str
    lease_times: LeaseTimes
    listen_host: str
    listen_port: int
    workers: int

    @property
    def lease_name(self) -> str:
        """The Lease's name, as DNS allows it: the provisioner's with a `-` for its `/`.

        A name that the first releases refused, such as NFS or nfs_client, has a digest behind it, so that it does not
        share the Lease of nfs or nfs-client.
        """
        name = self.provisioner.replace("/", "-").lower()
        plain = name if re.fullmatch(_SUBDOMAIN, name) else re.sub(r"[^a-z0-9]+", "-", name)
        if _PLAIN.fullmatch(self.provisioner) and len(self.provisioner) <= _LEASE_NAME_LIMIT:
            return plain
        digest = hashlib.sha256(self.provisioner.encode()).hexdigest()[:8]
        return f"{plain[: _LEASE_NAME_LIMIT - len(digest) - 1].rstrip('-.')}-{digest}"


def provisioner_name(text: str) -> str:
    """The name under which classes know us: any that the API server takes in a class. Raises InvalidSettings."""
    if text.startswith("kubernetes.io/"):
        raise InvalidSettings(
            f"--provisioner-name {text}: names that begin kubernetes.io/ are the cluster's own; choose another"
        )
    parts = _QUALIFIED.fullmatch(text.lower())
    if parts is None or len(parts["prefix"] or "") > _PREFIX_LIMIT or len(parts["name"]) > _NAME_LIMIT:
        raise InvalidSettings(
            f"--provisioner-name {text!r} is not a name that a StorageClass can have, such as example.com/nfs: at most"
            f" {_NAME_LIMIT} letters, digits, -, _ and ., and before a / the name of a domain"
        )
    return text


def export(text: str) -> ExportSetting:
    """`SERVER:PATH[=DIRECTORY]` as a setting. Raises InvalidSettings."""
    where, separator, directory = text.partition("=")
    try:
        location = locations.parse(where)
    except InvalidSettings as exc:
        raise InvalidSettings(f"--export {text}: {exc}") from exc
    if not separator:
        return ExportSetting(location=location)
    if not directory.startswith("/"):
        raise InvalidSettings(f"--export {text}: the DIRECTORY after = must be an absolute path")
    return ExportSetting(location=location, directory=directory)


def exports(given: Iterable[ExportSetting], server: str | None, path: str | None) -> tuple[ExportSetting, ...]:
    """All exports, that of NFS_SERVER and NFS_PATH first. Raises InvalidSettings for one that is given twice."""
    found: dict[Location, ExportSetting] = {}
    if (server is None) != (path is None):
        raise InvalidSettings("NFS_SERVER and NFS_PATH belong together: set both, or neither")
    if server is not None and path is not None:
        try:
            location = locations.location(server, path)
        except InvalidSettings as exc:
            raise InvalidSettings(f"NFS_SERVER and NFS_PATH: {exc}") from exc
        found[location] = ExportSetting(
            location=location, directory=LEGACY_MOUNT if os.path.ismount(LEGACY_MOUNT) else None
        )
    for setting in given:
        known = found.get(setting.location)
        if known is not None and known.directory is not None:
            raise InvalidSettings(f"--export {setting.location} is given twice; keep one of the two directories")
        found[setting.location] = setting
    return tuple(found.values())


def lease_namespace(given: str | None) -> str:
    """The namespace of the Lease: as given, or the pod's own, or `default` outside a cluster."""
    if given:
        return given
    try:
        with open(_NAMESPACE_FILE, encoding="utf-8") as file:
            return file.read().strip() or "default"
    except OSError:
        return "default"


def listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`; an IPv6 address stands in brackets, an empty host means all. Raises InvalidSettings."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidSettings(f"--listen {text!r} is not HOST:PORT such as 0.0.0.0:8080")
    return host.strip("[]") or _ALL_ADDRESSES, int(port)


def replica_identity() -> str:
    """Return a unique identity of this replica: the hostname, for people, plus a UUID."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"

"""The settings of `run`: the values of flags and environment variables, validated."""

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
"""The mount point of the default export in the chart of nfs-subdir-external-provisioner.

The chart of nfs-provisioner uses it too, with `access: mounted`.
"""

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  a pod's endpoint is for its cluster
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# The lower-cased StorageClass.provisioner must match IsQualifiedName (Kubernetes, apimachinery, pkg/util/validation).
_PREFIX_LIMIT, _NAME_LIMIT = 253, 63
_QUALIFIED = re.compile(rf"(?:(?P<prefix>{_SUBDOMAIN})/)?(?P<name>[a-z0-9](?:[-a-z0-9_.]*[a-z0-9])?)")
# Provisioner names that were valid in the first releases: their Leases keep a name without a digest.
_PLAIN = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?(?:/[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_LEASE_NAME_LIMIT = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSetting:
    """One export: its location, and its mount point (None: it is used directly)."""

    location: Location
    directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the daemon; commands use the same."""

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
    parallel_copies: int = 4
    """How many copies to an export run concurrently."""
    copy_workers: int = 32
    """How many files, and parts of large files, these copy concurrently."""
    volume_metrics: bool
    """Whether each volume has metrics of its own."""
    snapshots: bool = False
    """Whether VolumeSnapshots are served."""
    context: str | None = None
    """The context of the kubeconfig; None for the current one."""

    @property
    def lease_name(self) -> str:
        """The name of the Lease: the provisioner's name with `-` for `/`, as DNS requires.

        A name that the first releases refused, such as NFS or nfs_client, gets a digest as suffix, so that it does not
        share the Lease of nfs or nfs-client.
        """
        name = self.provisioner.replace("/", "-").lower()
        plain = name if re.fullmatch(_SUBDOMAIN, name) else re.sub(r"[^a-z0-9]+", "-", name)
        if _PLAIN.fullmatch(self.provisioner) and len(self.provisioner) <= _LEASE_NAME_LIMIT:
            return plain
        digest = hashlib.sha256(self.provisioner.encode()).hexdigest()[:8]
        return f"{plain[: _LEASE_NAME_LIMIT - len(digest) - 1].rstrip('-.')}-{digest}"


def provisioner_name(text: str) -> str:
    """Validate the provisioner's name: any name that a StorageClass can have. Raises InvalidSettings."""
    if text.startswith("kubernetes.io/"):
        raise InvalidSettings(
            f"--provisioner-name {text}: names that begin with kubernetes.io/ are reserved; choose another"
        )
    parts = _QUALIFIED.fullmatch(text.lower())
    if parts is None or len(parts["prefix"] or "") > _PREFIX_LIMIT or len(parts["name"]) > _NAME_LIMIT:
        raise InvalidSettings(
            f"--provisioner-name {text!r} is not a name that a StorageClass can have, such as example.com/nfs: use at"
            f" most {_NAME_LIMIT} letters, digits, -, _ and ., with an optional domain and / before them"
        )
    return text


def export(text: str) -> ExportSetting:
    """Parse `SERVER:PATH[=DIRECTORY]`. Raises InvalidSettings."""
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
    """Return all exports, that of NFS_SERVER and NFS_PATH first. Raises InvalidSettings for duplicates."""
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
            raise InvalidSettings(f"--export {setting.location} is given twice: keep one of the two directories")
        found[setting.location] = setting
    return tuple(found.values())


def lease_namespace(given: str | None) -> str:
    """Return the namespace of the Lease: as given, or the pod's own, or `default` outside a cluster."""
    if given:
        return given
    try:
        with open(_NAMESPACE_FILE, encoding="utf-8") as file:
            return file.read().strip() or "default"
    except OSError:
        return "default"


def users_kubeconfig() -> str | None:
    """Return the kubeconfig that kubectl uses by default, if it exists; None in a pod, which has a ServiceAccount."""
    path = os.path.expanduser("~/.kube/config")
    return path if "KUBERNETES_SERVICE_HOST" not in os.environ and os.path.exists(path) else None


def listen(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT`, with an IPv6 address in brackets; an empty host means all. Raises InvalidSettings."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidSettings(f"--listen {text!r} is not HOST:PORT such as 0.0.0.0:8080")
    return host.strip("[]") or _ALL_ADDRESSES, int(port)


def replica_identity() -> str:
    """Return a unique identity of this replica: the hostname, for people, plus a UUID."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"

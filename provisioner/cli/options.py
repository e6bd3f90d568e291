"""The flags that commands share, each with its environment variable, and the settings that result."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import click

from provisioner import settings as setting
from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseTimes

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"

Command = TypeVar("Command", bound=Callable[..., object])
Option = Callable[[Command], Command]


class Duration(click.ParamType[float]):
    """`15s`, `1m30s` or bare seconds; the value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail with the parameter's name."""
        try:
            return parse_s(str(value))
        except InvalidSettings as exc:
            self.fail(str(exc), param, ctx)


def taking(*groups: list[Option[Any]]) -> Callable[[Command], Command]:
    """Return a decorator that adds these groups of flags to a command, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def with_settings(command: Callable[..., Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Add the flags of `run` to an asynchronous command, which gets the settings as its first argument.

    A command then works in the daemon's pod with the daemon's command line: `run` is replaced by the command's name.
    Outside a pod it uses the kubeconfig of its user, as kubectl does; the daemon only uses one that is named.
    The flags that only the daemon acts on are accepted and ignored; those of the log do not reach the command.
    """

    @wraps(command)
    def run(**given: Any) -> int:
        del given["log_format"], given["log_level"]
        flags = {name: given.pop(name) for name in _SETTINGS}
        flags["kubeconfig"] = flags["kubeconfig"] or setting.users_kubeconfig()
        return asyncio.run(command(settings(**flags), **given))

    return taking(name(), exports(), cluster(), election(), daemon(hidden=True))(run)


def name() -> list[Option[Any]]:
    """Return the flag for the provisioner's name."""
    return [
        click.option("--provisioner-name", envvar="PROVISIONER_NAME", default=setting.DEFAULT_PROVISIONER,
                     show_default=True, show_envvar=True, help="The `provisioner:` of the StorageClasses to serve."),
    ]  # fmt: skip


def exports() -> list[Option[Any]]:
    """Return the flags for exports and for the way they are reached."""
    return [
        click.option("--export", "exports", envvar="NFS_EXPORTS", multiple=True, metavar="SERVER:PATH[=DIRECTORY]",
                     show_envvar=True, help="An export to serve; DIRECTORY is where it is mounted. Repeatable;"
                     " separate several with spaces in the environment variable."),
        click.option("--require-mount/--no-require-mount", envvar="REQUIRE_MOUNT", default=False, show_default=True,
                     show_envvar=True, help="Treat a DIRECTORY that is not a mount point as missing."),
        click.option("--nfs-uid", envvar="NFS_UID", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True,
                     show_envvar=True, help="UID used for direct NFS access (AUTH_SYS)."),
        click.option("--nfs-gid", envvar="NFS_GID", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True,
                     show_envvar=True, help="GID used for direct NFS access (AUTH_SYS)."),
        click.option("--nfs-timeout", "nfs_timeout_s", envvar="NFS_TIMEOUT", type=Duration(), default="10s",
                     show_default=True, show_envvar=True, help="Time limit for one call on an export."),
        click.option("--nfs-server", envvar="NFS_SERVER", hidden=True),
        click.option("--nfs-path", envvar="NFS_PATH", hidden=True),
    ]  # fmt: skip


def cluster() -> list[Option[Any]]:
    """Return the flags for the cluster."""
    return [
        click.option("--kubeconfig", envvar="KUBECONFIG", metavar="FILE", show_envvar=True,
                     help="The cluster to serve; by default the cluster that this pod runs in. Commands other than run"
                     " use ~/.kube/config outside a pod."),
        click.option("--context", metavar="NAME", help="A context of the kubeconfig; by default the current one."),
    ]  # fmt: skip


def election() -> list[Option[Any]]:
    """Return the flags for leader election."""
    return [
        click.option("--leader-election/--no-leader-election", envvar="ENABLE_LEADER_ELECTION", default=True,
                     show_default=True, show_envvar=True, help="Let only one replica act at a time, using a Lease."),
        click.option("--lease-namespace", envvar="POD_NAMESPACE", show_envvar=True, metavar="NAME",
                     help="The namespace of the Lease; by default the pod's own."),
    ]  # fmt: skip


def daemon(*, hidden: bool = False) -> list[Option[Any]]:
    """Return the flags that only the daemon acts on; hidden for commands that accept its command line."""
    return [
        click.option("--lease-duration", "lease_duration_s", envvar="LEASE_DURATION", type=Duration(), default="15s",
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="How long standby replicas wait for a silent leader."),
        click.option("--renew-deadline", "renew_deadline_s", envvar="RENEW_DEADLINE", type=Duration(), default="10s",
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="How long the leader keeps working without renewing the Lease."),
        click.option("--retry-period", "retry_period_s", envvar="RETRY_PERIOD", type=Duration(), default="2s",
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="Interval between attempts to acquire or renew the Lease."),
        click.option("--listen", envvar="LISTEN", default="0.0.0.0:8080", show_default=True, metavar="HOST:PORT",
                     show_envvar=True, hidden=hidden, help="Address that serves /metrics, /healthz and /readyz."),
        click.option("--workers", envvar="WORKERS", type=click.IntRange(1, 1024), default=64, show_default=True,
                     show_envvar=True, hidden=hidden, help="Number of claims and volumes processed concurrently."),
        click.option("--parallel-copies", envvar="PARALLEL_COPIES", type=click.IntRange(1, 64), default=4,
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="Number of copies to one export that run concurrently."),
        click.option("--copy-workers", envvar="COPY_WORKERS", type=click.IntRange(1, 128), default=32,
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="Number of files, or parts of large files, that the copies to one export copy concurrently;"
                     " they share it equally."),
        click.option("--volume-metrics/--no-volume-metrics", envvar="VOLUME_METRICS", default=False, show_default=True,
                     show_envvar=True, hidden=hidden, help="Serve metrics of single volumes, labelled with their"
                     " claims."),
        click.option("--snapshots/--no-snapshots", envvar="SNAPSHOTS", default=False, show_default=True,
                     show_envvar=True, hidden=hidden, help="Serve VolumeSnapshots whose class names this provisioner;"
                     " needs the CRDs and the snapshot-controller of kubernetes-csi/external-snapshotter."),
        click.option("--log-format", envvar="LOG_FORMAT", type=click.Choice(["json", "console"]), show_envvar=True,
                     hidden=hidden, help="Log format; by default json unless the standard error is a terminal."),
        click.option("--log-level", envvar="LOG_LEVEL", default="info", show_default=True, show_envvar=True,
                     hidden=hidden, type=click.Choice(["debug", "info", "warning", "error"]),
                     help="Lowest level that is logged."),
    ]  # fmt: skip


def claim_names(claim: str) -> tuple[str, str]:
    """Return the namespace and the name in a `--claim NAMESPACE/NAME`. Raises InvalidSettings."""
    namespace, _, name = claim.partition("/")
    if not re.fullmatch(_LABEL, namespace) or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name):
        raise InvalidSettings(f"--claim {claim!r} is not of the form NAMESPACE/NAME")
    return namespace, name


def settings(
    *,
    provisioner_name: str,
    exports: tuple[str, ...],
    require_mount: bool,
    nfs_uid: int,
    nfs_gid: int,
    nfs_timeout_s: float,
    nfs_server: str | None,
    nfs_path: str | None,
    kubeconfig: str | None,
    context: str | None,
    leader_election: bool,
    lease_namespace: str | None,
    lease_duration_s: float,
    renew_deadline_s: float,
    retry_period_s: float,
    listen: str,
    workers: int,
    parallel_copies: int,
    copy_workers: int,
    volume_metrics: bool,
    snapshots: bool,
) -> setting.Settings:
    """Return the values of the flags as settings. Raises InvalidSettings."""
    all_exports = setting.exports([setting.export(text) for text in exports], nfs_server or None, nfs_path or None)
    if not nfs_timeout_s:
        raise InvalidSettings("--nfs-timeout 0 leaves no time for a call: set a positive duration such as 10s")
    host, port = setting.listen(listen)
    return setting.Settings(
        provisioner=setting.provisioner_name(provisioner_name),
        exports=all_exports,
        default_export=all_exports[0].location if nfs_server or len(all_exports) == 1 else None,
        require_mount=require_mount,
        nfs_uid=nfs_uid,
        nfs_gid=nfs_gid,
        nfs_timeout_s=nfs_timeout_s,
        kubeconfig=kubeconfig or None,
        leader_election=leader_election,
        lease_namespace=setting.lease_namespace(lease_namespace),
        lease_times=LeaseTimes(
            duration_s=lease_duration_s, renew_deadline_s=renew_deadline_s, retry_period_s=retry_period_s
        ),
        listen_host=host,
        listen_port=port,
        workers=workers,
        parallel_copies=parallel_copies,
        copy_workers=copy_workers,
        volume_metrics=volume_metrics,
        snapshots=snapshots,
        context=context or None,
    )


_SETTINGS = tuple(inspect.signature(settings).parameters)
"""The flags that settings() takes, by parameter name."""

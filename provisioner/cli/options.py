"""The flags that commands share, each with its environment variable (design, "Command line"), and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable
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
    """A decorator that gives a command these groups of flags, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def name() -> list[Option[Any]]:
    """Who we are to classes and volumes."""
    return [
        click.option("--provisioner-name", envvar="PROVISIONER_NAME", default=setting.DEFAULT_PROVISIONER,
                     show_default=True, show_envvar=True, help="The name under which StorageClasses know us."),
    ]  # fmt: skip


def exports() -> list[Option[Any]]:
    """Which exports there are, and how they are reached."""
    return [
        click.option("--export", "exports", envvar="NFS_EXPORTS", multiple=True, metavar="SERVER:PATH[=DIRECTORY]",
                     show_envvar=True, help="An export to serve; DIRECTORY is where it is mounted. Repeatable;"
                     " spaces between several in the environment."),
        click.option("--require-mount/--no-require-mount", envvar="REQUIRE_MOUNT", default=False, show_default=True,
                     show_envvar=True, help="Count a DIRECTORY that is not a mount point as missing."),
        click.option("--nfs-uid", envvar="NFS_UID", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True,
                     show_envvar=True, help="Who we are to servers that we speak to directly."),
        click.option("--nfs-gid", envvar="NFS_GID", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True,
                     show_envvar=True, help="Our group there."),
        click.option("--nfs-timeout", "nfs_timeout_s", envvar="NFS_TIMEOUT", type=Duration(), default="10s",
                     show_default=True, show_envvar=True, help="How long a call on an export may take."),
        click.option("--nfs-server", envvar="NFS_SERVER", hidden=True),
        click.option("--nfs-path", envvar="NFS_PATH", hidden=True),
    ]  # fmt: skip


def cluster() -> list[Option[Any]]:
    """Which cluster."""
    return [
        click.option("--kubeconfig", envvar="KUBECONFIG", metavar="FILE", show_envvar=True,
                     help="The cluster to serve; without it, the one that this pod runs in."),
    ]  # fmt: skip


def election() -> list[Option[Any]]:
    """Whether there is a Lease, and where."""
    return [
        click.option("--leader-election/--no-leader-election", envvar="ENABLE_LEADER_ELECTION", default=True,
                     show_default=True, show_envvar=True, help="Let one replica of several act, by a Lease."),
        click.option("--lease-namespace", envvar="POD_NAMESPACE", show_envvar=True, metavar="NAME",
                     help="Where the Lease is; by default the pod's own namespace."),
    ]  # fmt: skip


def daemon(*, hidden: bool = False) -> list[Option[Any]]:
    """What only `run` acts on; hidden for a command that takes the same command line as it does."""
    return [
        click.option("--lease-duration", "lease_duration_s", envvar="LEASE_DURATION", type=Duration(), default="15s",
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="How long others wait for a silent leader."),
        click.option("--renew-deadline", "renew_deadline_s", envvar="RENEW_DEADLINE", type=Duration(), default="10s",
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="How long the leader goes on without a renewal."),
        click.option("--retry-period", "retry_period_s", envvar="RETRY_PERIOD", type=Duration(), default="2s",
                     show_default=True, show_envvar=True, hidden=hidden,
                     help="How often the lease is tried for or renewed."),
        click.option("--listen", envvar="LISTEN", default="0.0.0.0:8080", show_default=True, metavar="HOST:PORT",
                     show_envvar=True, hidden=hidden, help="Where /metrics, /healthz and /readyz are served."),
        click.option("--workers", envvar="WORKERS", type=click.IntRange(1, 1024), default=64, show_default=True,
                     show_envvar=True, hidden=hidden, help="Claims, and volumes, that are worked on at once."),
        click.option("--log-format", envvar="LOG_FORMAT", type=click.Choice(["json", "console"]), show_envvar=True,
                     hidden=hidden, help="By default json when the output is not a terminal."),
        click.option("--log-level", envvar="LOG_LEVEL", default="info", show_default=True, show_envvar=True,
                     hidden=hidden, type=click.Choice(["debug", "info", "warning", "error"]),
                     help="From which level up."),
    ]  # fmt: skip


def as_run() -> list[Option[Any]]:
    """The flags of `run`, for a command that can be put in its place; settings() reads them."""
    return [*name(), *exports(), *cluster(), *election(), *daemon(hidden=True)]


def output() -> list[Option[Any]]:
    """For people or for programs."""
    return [
        click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True,
                     help="A table for people, or JSON for programs."),
    ]  # fmt: skip


def claim_names(claim: str) -> tuple[str, str]:
    """The namespace and the name in a `--claim NAMESPACE/NAME`. Raises InvalidSettings."""
    namespace, _, name = claim.partition("/")
    if not re.fullmatch(_LABEL, namespace) or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name):
        raise InvalidSettings(f"--claim {claim!r} is not of the form NAMESPACE/NAME")
    return namespace, name


def settings(
    *,
    provisioner_name: str,
    exports: tuple[str, ...],
    nfs_timeout_s: float,
    nfs_server: str | None,
    nfs_path: str | None,
    kubeconfig: str | None,
    lease_namespace: str | None,
    lease_duration_s: float,
    renew_deadline_s: float,
    retry_period_s: float,
    listen: str,
    **plain: Any,
) -> setting.Settings:
    """The flags as settings. Raises InvalidSettings."""
    all_exports = setting.exports([setting.export(text) for text in exports], nfs_server or None, nfs_path or None)
    if not nfs_timeout_s:
        raise InvalidSettings("--nfs-timeout 0 leaves a call no time: give it some, such as 10s")
    single = all_exports[0].location if nfs_server or len(all_exports) == 1 else None
    host, port = setting.listen(listen)
    return setting.Settings(
        provisioner=setting.provisioner_name(provisioner_name),
        exports=all_exports,
        default_export=single,
        nfs_timeout_s=nfs_timeout_s,
        kubeconfig=kubeconfig or None,
        lease_namespace=setting.lease_namespace(lease_namespace),
        lease_times=LeaseTimes(
            duration_s=lease_duration_s, renew_deadline_s=renew_deadline_s, retry_period_s=retry_period_s
        ),
        listen_host=host,
        listen_port=port,
        **plain,
    )

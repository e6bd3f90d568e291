"""`nfs-provisioner run`: the daemon."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click

from provisioner import settings as setting
from provisioner.core.durations import parse_s
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseTimes


class Duration(click.ParamType[float]):
    """`15s`, `1m30s` or bare seconds; the value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail with the parameter's name."""
        try:
            return parse_s(str(value))
        except InvalidSettings as exc:
            self.fail(str(exc), param, ctx)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags of `run`, each with its environment variable (design, "Command line")."""
    options = [
        click.option("--provisioner-name", envvar="PROVISIONER_NAME", default=setting.DEFAULT_PROVISIONER,
                     show_default=True, show_envvar=True, help="The name under which StorageClasses know us."),
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
        click.option("--kubeconfig", envvar="KUBECONFIG", metavar="FILE", show_envvar=True,
                     help="The cluster to serve; without it, the one that this pod runs in."),
        click.option("--leader-election/--no-leader-election", envvar="ENABLE_LEADER_ELECTION", default=True,
                     show_default=True, show_envvar=True, help="Let one replica of several act, by a Lease."),
        click.option("--lease-namespace", envvar="POD_NAMESPACE", show_envvar=True, metavar="NAME",
                     help="Where the Lease is; by default the pod's own namespace."),
        click.option("--lease-duration", "lease_duration_s", envvar="LEASE_DURATION", type=Duration(), default="15s",
                     show_default=True, show_envvar=True, help="How long others wait for a silent leader."),
        click.option("--renew-deadline", "renew_deadline_s", envvar="RENEW_DEADLINE", type=Duration(), default="10s",
                     show_default=True, show_envvar=True, help="How long the leader goes on without a renewal."),
        click.option("--retry-period", "retry_period_s", envvar="RETRY_PERIOD", type=Duration(), default="2s",
                     show_default=True, show_envvar=True, help="How often the lease is tried for or renewed."),
        click.option("--listen", envvar="LISTEN", default="0.0.0.0:8080", show_default=True, metavar="HOST:PORT",
                     show_envvar=True, help="Where /metrics, /healthz and /readyz are served."),
        click.option("--workers", envvar="WORKERS", type=click.IntRange(1, 1024), default=64, show_default=True,
                     show_envvar=True, help="Claims, and volumes, that are worked on at once."),
        click.option("--log-format", envvar="LOG_FORMAT", type=click.Choice(["json", "console"]), show_envvar=True,
                     help="By default json when the output is not a terminal."),
        click.option("--log-level", envvar="LOG_LEVEL", default="info", show_default=True, show_envvar=True,
                     type=click.Choice(["debug", "info", "warning", "error"]), help="From which level up."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--nfs-server", envvar="NFS_SERVER", hidden=True)
@click.option("--nfs-path", envvar="NFS_PATH", hidden=True)
def run(*, log_format: str | None, log_level: str, **given: Any) -> None:
    """Provision and reclaim volumes until told to stop.

    NFS_SERVER and NFS_PATH in the environment name the default export, for classes without `server` and `share`; it is
    the directory /persistentvolumes when that is a mount point. Without them, a single --export is the default.

    SIGTERM stops in good order: what is in flight is finished within ten seconds, and the lease is released. Exit
    status 0 after that, 2 for unusable settings.

    Example: nfs-provisioner run --kubeconfig ~/.kube/config --export nas:/exports/k8s=/mnt/k8s
    """
    settings = _settings(**given)
    from provisioner import app
    from provisioner.telemetry import logs

    logs.set_up(json=log_format == "json" or (log_format is None and not sys.stderr.isatty()), level=log_level)
    asyncio.run(app.run(settings))


def _settings(
    *,
    provisioner_name: str,
    exports: tuple[str, ...],
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
    single = all_exports[0].location if nfs_server or len(all_exports) == 1 else None
    host, port = setting.listen(listen)
    return setting.Settings(
        provisioner=setting.provisioner_name(provisioner_name),
        exports=all_exports,
        default_export=single,
        kubeconfig=kubeconfig or None,
        lease_namespace=setting.lease_namespace(lease_namespace),
        lease_times=LeaseTimes(
            duration_s=lease_duration_s, renew_deadline_s=renew_deadline_s, retry_period_s=retry_period_s
        ),
        listen_host=host,
        listen_port=port,
        **plain,
    )

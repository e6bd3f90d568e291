"""`nfs-provisioner run`: the daemon."""

from __future__ import annotations

from typing import Any

import click
import uvloop

from provisioner.cli import options
from provisioner.commands.run import run as run_daemon
from provisioner.telemetry import logs


@click.command()
@options.taking(options.name(), options.exports(), options.cluster(), options.election(), options.daemon())
def run(*, log_format: str | None, log_level: str, **flags: Any) -> None:
    """Run the daemon.

    Provisions and reclaims volumes until SIGTERM or SIGINT.

    NFS_SERVER and NFS_PATH in the environment name the default export, for classes without `server` and `share`. It is
    used through the directory /persistentvolumes if that is a mount point. Without these variables, a single --export
    is the default.

    On SIGTERM the daemon finishes its work in flight within ten seconds and releases the Lease. Exit status 0 after
    that, 2 for unusable settings.

    \b
    Example:
      nfs-provisioner run --kubeconfig ~/.kube/config --export nas:/exports/k8s=/mnt/k8s
    """
    settings = options.settings(**flags)
    logs.set_up(json=logs.is_json(log_format), level=log_level)
    uvloop.run(run_daemon(settings))

"""`nfs-provisioner run`: the daemon."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from provisioner.cli import options


@click.command()
@options.taking(options.name(), options.exports(), options.cluster(), options.election(), options.daemon())
def run(*, log_format: str | None, log_level: str, **given: Any) -> None:
    """Provision and reclaim volumes until told to stop.

    NFS_SERVER and NFS_PATH in the environment name the default export, for classes without `server` and `share`; it is
    the directory /persistentvolumes when that is a mount point. Without them, a single --export is the default.

    SIGTERM stops in good order: what is in flight is finished within ten seconds, and the lease is released. Exit
    status 0 after that, 2 for unusable settings.

    Example: nfs-provisioner run --kubeconfig ~/.kube/config --export nas:/exports/k8s=/mnt/k8s
    """
    settings = options.settings(**given)
    from provisioner.commands import run
    from provisioner.telemetry import logs

    logs.set_up(json=log_format == "json" or (log_format is None and not sys.stderr.isatty()), level=log_level)
    asyncio.run(run.run(settings))

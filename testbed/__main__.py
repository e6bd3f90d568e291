"""`python -m testbed`: run a control plane, or install the testbed's programs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from testbed import helm, snapshots
from testbed.binaries import BinariesMissing, locate
from testbed.cluster import ControlPlane
from testbed.commands import exit_status, to_terminal
from testbed.fuse import install_bindfs
from testbed.ganesha import GaneshaMissing, install_ganesha
from testbed.packages import NotInstalled
from testbed.processes import ServerFailed
from testbed.prometheus import install_prometheus
from testbed.vm import VmMissing, install_vm
from testbed.wrong_clock import install_libfaketime


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    options = _parser().parse_args(arguments)
    return exit_status(partial(_run, options), BinariesMissing, GaneshaMissing, NotInstalled, ServerFailed)


def _run(options: argparse.Namespace) -> int:
    if options.command == "build":
        print(locate(progress=to_terminal()))
        locate(tuple(helm.SOURCE.packages), helm.SOURCE, progress=to_terminal())
        snapshots.install(to_terminal())
    elif options.command == "install":
        # The packages that most tests need come first: the first failure ends the installation.
        install_bindfs(to_terminal())
        install_ganesha(to_terminal())
        _install_vm()
        install_libfaketime(to_terminal())
        install_prometheus(to_terminal())
    else:
        _up(options.directory, scheduler=options.scheduler)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    up = commands.add_parser("up", help="run a control plane until Ctrl-C (default)")
    up.add_argument("--directory", type=Path, help="keep its data and logs here (default: a temporary directory)")
    up.add_argument("--scheduler", action="store_true", help="also run kube-scheduler")
    commands.add_parser(
        "build",
        help="build the control plane's binaries, Helm and the snapshot-controller; print the directory of the first",
    )
    commands.add_parser(
        "install",
        help="install NFS-Ganesha, bindfs, libfaketime, Prometheus and a virtual machine where they are missing",
    )
    parser.set_defaults(command="up", directory=None, scheduler=False)
    return parser


def _up(directory: Path | None, *, scheduler: bool) -> None:
    with ControlPlane(directory, scheduler=scheduler, progress=to_terminal()) as cluster:
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        print("Press Ctrl-C to stop it.", file=sys.stderr)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


def _install_vm() -> None:
    """Install the virtual machine, or print why that fails.

    The tests that need it can be skipped.
    """
    try:
        install_vm(to_terminal())
    except VmMissing as exc:
        print(f"no virtual machine: {exc}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

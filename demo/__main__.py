"""`python -m demo`, or `make demo`: the command line of the demonstration."""

from __future__ import annotations

import sys

import click

from demo import background
from demo.interrupts import Interrupts
from demo.performance import perform


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--keep", is_flag=True, help="Leave it running in the background, and print how to use and stop it.")
@click.option("--stop", is_flag=True, help="Stop the demonstration that runs in the background.")
@click.option("--ready-fd", type=int, hidden=True, help="The descriptor that --keep's background process reports on.")
@click.option(
    "--kubeconfig",
    envvar="DEMO_KUBECONFIG",
    metavar="FILE",
    show_envvar=True,
    help="Use this cluster and start no control plane; the demonstration's own objects are deleted afterwards.",
)
def main(*, keep: bool, stop: bool, ready_fd: int | None, kubeconfig: str | None) -> None:
    """Show the daemon at work on a real control plane, and check every promise.

    Starts etcd, kube-apiserver and kube-controller-manager (built once, in 6 to 35 minutes), NFS-Ganesha where it is
    or can be installed, and the daemon. Creates claims, writes into their directories, deletes some claims, and shows
    the outcome of each. The exit status is 0 when every promise was kept. Nothing stays behind, not even after Ctrl-C.
    """
    sys.exit(_run(keep=keep, stop=stop, ready_fd=ready_fd, kubeconfig=kubeconfig))


def _run(*, keep: bool, stop: bool, ready_fd: int | None, kubeconfig: str | None) -> int:
    """Do what the flags ask for, and return the exit status."""
    if stop:
        return background.stop()
    interrupts = Interrupts()
    if ready_fd is not None:
        return background.stay(interrupts, kubeconfig=kubeconfig, ready_fd=ready_fd)
    return background.start(interrupts, kubeconfig=kubeconfig) if keep else perform(kubeconfig, interrupts)


if __name__ == "__main__":
    main(prog_name="python -m demo")

"""`nfs-provisioner demo`: see it work."""

from __future__ import annotations

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running in the background, and say how to use and how to end it.")
@click.option("--stop", is_flag=True, help="End the one that runs in the background.")
@click.option("--tell", type=int, hidden=True, help="Where the background process says that it stays.")
@click.option(
    "--kubeconfig",
    envvar="DEMO_KUBECONFIG",
    metavar="FILE",
    show_envvar=True,
    help="Use this cluster, under names of its own that are removed afterwards, and start no control plane.",
)
def demo(*, keep: bool, stop: bool, tell: int | None, kubeconfig: str | None) -> int:
    """Play the story of its users on a real control plane on this machine, and check every promise.

    Starts etcd, kube-apiserver and kube-controller-manager (built once, in 6 to 35 minutes), NFS-Ganesha where it is
    installed or can be, and the daemon. Makes claims, writes into their directories, deletes some, and shows what
    becomes of each. Exit status 0 when all came out as promised; nothing is left behind, also after Ctrl-C.
    """
    # Not above: `run` loads this module too, and its memory is not for these.
    from provisioner.demo import background
    from provisioner.demo.interrupts import Interrupts
    from provisioner.demo.performance import perform

    if stop:
        return background.stop()
    interrupts = Interrupts()
    if tell is not None:
        return background.stay(interrupts, kubeconfig=kubeconfig, tell=tell)
    return background.start(interrupts, kubeconfig=kubeconfig) if keep else perform(kubeconfig, interrupts)

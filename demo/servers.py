"""What the demonstration runs on: a cluster, an export, and a directory for both."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.interrupts import Interrupts
from demo.screen import Screen
from testbed import binaries, ganesha
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha, GaneshaMissing
from testbed.processes import Server, ServerFailed, free_port

SERVER, PATH = "127.0.0.1", "/nfs"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  a tmpfs on Linux, taken with mkdtemp


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The cluster and the export. `nfs_port` is None if the export is a plain directory."""

    directory: Path
    kubeconfig: str
    suffix: str
    export_directory: Path
    nfs_port: int | None

    @property
    def is_own_cluster(self) -> bool:
        """Whether the cluster belongs to the demonstration and ends with it."""
        return not self.suffix

    @property
    def export_flags(self) -> tuple[str, ...]:
        """The daemon's flags for the export: none if it reaches the server over NFS."""
        return () if self.nfs_port else (f"--export={SERVER}:{PATH}={self.export_directory}",)

    @property
    def mount_options(self) -> tuple[str, ...]:
        """The mountOptions of the classes."""
        return ("nfsvers=4.1", f"port={self.nfs_port}") if self.nfs_port else ()


@contextmanager
def set_up(kubeconfig: str | None, interrupts: Interrupts, screen: Screen) -> Iterator[Setup]:
    """Provide an export, and the cluster of `kubeconfig` or a new one.

    Raises BinariesMissing, ServerFailed.

    Signals interrupt only the long steps of the setup, and never the cleanup, so that nothing stays behind.
    """
    with ExitStack() as stack:
        directory = _directory(stack, None)
        if kubeconfig:
            screen.done(f"cluster: that of {kubeconfig}, with names unique to this demonstration")
        else:
            kubeconfig_file = _control_plane(directory, stack, interrupts, screen)
        export_directory, nfs_port = _export(directory, stack, screen)
        yield Setup(
            directory=directory,
            kubeconfig=kubeconfig or str(kubeconfig_file),
            suffix=f"-{secrets.token_hex(3)}" if kubeconfig else "",
            export_directory=export_directory,
            nfs_port=nfs_port,
        )


def _directory(stack: ExitStack, parent: Path | None) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="nfs-provisioner-demo-", dir=parent))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _control_plane(directory: Path, stack: ExitStack, interrupts: Interrupts, screen: Screen) -> Path:
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    if binaries.present(names) is None:
        screen.say(f"The control plane is not in the cache yet. Building it once takes {binaries.CONTROL_PLANE.takes}.")
        with screen.step("control plane built") as progress, interrupts.raising():
            binaries.locate(names, progress=progress)
    with screen.step(f"control plane: Kubernetes {binaries.kubernetes_version()} on this machine") as progress:
        progress("starting etcd, kube-apiserver and kube-controller-manager")
        cluster = ControlPlane(directory / "control-plane")
        stack.callback(cluster.stop)
        for server in (cluster.etcd, cluster.api_server, cluster.controller_manager):
            # Not interruptible: a child that subprocess has not returned yet would never be stopped.
            server.start()
            with interrupts.raising():
                server.wait_ready()
    return cluster.kubeconfig


def _export(directory: Path, stack: ExitStack, screen: Screen) -> tuple[Path, int | None]:
    """Return the directory of the export, and the port of its NFS server or None."""
    local = directory / "export"
    local.mkdir()
    try:
        with screen.step("export: NFS-Ganesha serves a directory over NFSv4") as progress:
            # Not interruptible: apt-get must finish.
            ganesha.install_ganesha(progress)
            export_directory = _servable(local, stack)
            server = Ganesha([Export(export_directory, PATH)], directory=directory / "ganesha")
            stack.callback(server.stop)
            server.start()
    except (GaneshaMissing, ServerFailed) as exc:
        reason = str(exc).splitlines()[0]
        screen.done(f"export: a plain local directory instead of NFS: {reason}")
        return local, None
    return export_directory, server.port


def _servable(directory: Path, stack: ExitStack) -> Path:
    """Return the directory, or one in memory if its filesystem cannot be exported.

    A container's filesystem cannot.
    """
    if ganesha.vfs_problem(directory) and _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK):
        in_memory = _directory(stack, _IN_MEMORY)
        if not ganesha.vfs_problem(in_memory):
            return in_memory
    return directory


class Daemon(Server):
    """`nfs-provisioner run` as a process.

    It speaks NFS, or gets the directory if there is no server.
    """

    def __init__(self, setup: Setup, *, provisioner: str, lease_namespace: str, ready: Callable[[int], bool]) -> None:
        self.port = free_port()
        command = [
            *(sys.executable, "-m", "provisioner", "run"),
            f"--kubeconfig={setup.kubeconfig}",
            f"--provisioner-name={provisioner}",
            *setup.export_flags,
            f"--listen=127.0.0.1:{self.port}",
            f"--lease-namespace={lease_namespace}",
            "--no-require-mount",
            "--log-format=json",
        ]
        super().__init__(
            "nfs-provisioner run",
            command,
            log=setup.directory / "daemon.log",
            ready=lambda: ready(self.port),
            # Ignore a default export of the user's environment.
            environment={"NFS_SERVER": "", "NFS_PATH": ""},
        )

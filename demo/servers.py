"""What the demonstration runs on: a cluster, an export and a directory for all of it, until the end of a `with`."""

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
class Grounds:
    """Where the demonstration takes place. `nfs_port` is None when the export is a plain directory."""

    directory: Path
    kubeconfig: str
    suffix: str
    export_directory: Path
    nfs_port: int | None

    @property
    def cluster_is_ours(self) -> bool:
        """Whether the cluster ends with us, with all that is in it."""
        return not self.suffix

    @property
    def export_flags(self) -> tuple[str, ...]:
        """What the daemon is told of the export: nothing where it can speak to the server."""
        return () if self.nfs_port else (f"--export={SERVER}:{PATH}={self.export_directory}",)

    @property
    def mount_options(self) -> tuple[str, ...]:
        """How a client mounts a volume."""
        return ("nfsvers=4.1", f"port={self.nfs_port}") if self.nfs_port else ()


@contextmanager
def grounds(kubeconfig: str | None, interrupts: Interrupts, screen: Screen) -> Iterator[Grounds]:
    """A cluster, by `kubeconfig` or of our own, and an export. Raises BinariesMissing, ServerFailed.

    Signals interrupt what takes long of the setting-up, and never the end: nothing is left behind by either.
    """
    with ExitStack() as ending:
        directory = _directory(ending, None)
        if kubeconfig:
            screen.done(f"cluster: the one of {kubeconfig}, under names of our own")
        else:
            kubeconfig_file = _control_plane(directory, ending, interrupts, screen)
        export_directory, nfs_port = _export(directory, ending, screen)
        yield Grounds(
            directory=directory,
            kubeconfig=kubeconfig or str(kubeconfig_file),
            suffix=f"-{secrets.token_hex(3)}" if kubeconfig else "",
            export_directory=export_directory,
            nfs_port=nfs_port,
        )


def _directory(ending: ExitStack, parent: Path | None) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="nfs-provisioner-demo-", dir=parent))
    ending.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _control_plane(directory: Path, ending: ExitStack, interrupts: Interrupts, screen: Screen) -> Path:
    names = ("etcd", "kube-apiserver", "kube-controller-manager")
    if binaries.present(names) is None:
        screen.say(f"The cache has no control plane yet. It is built once: {binaries.CONTROL_PLANE.takes}.")
        with screen.step("control plane built") as progress, interrupts.raising():
            binaries.locate(names, progress=progress)
    with screen.step(f"control plane: Kubernetes {binaries.kubernetes_version()} on this machine") as progress:
        progress("starting etcd, kube-apiserver and kube-controller-manager")
        cluster = ControlPlane(directory / "control-plane")
        ending.callback(cluster.stop)
        for server in (cluster.etcd, cluster.api_server, cluster.controller_manager):
            # Not interrupted: a child of which subprocess has not told us yet would be nobody's to end.
            server.start()
            with interrupts.raising():
                server.wait_ready()
    return cluster.kubeconfig


def _export(directory: Path, ending: ExitStack, screen: Screen) -> tuple[Path, int | None]:
    """The export's directory, and the port of the NFS server that serves it, if any."""
    local = directory / "export"
    local.mkdir()
    try:
        with screen.step("export: NFS-Ganesha serves a directory over NFSv4") as progress:
            # Not interrupted: apt-get is to end what it begins.
            ganesha.install_ganesha(progress)
            export_directory = _servable(local, ending)
            server = Ganesha([Export(export_directory, PATH)], directory=directory / "ganesha")
            ending.callback(server.stop)
            server.start()
    except (GaneshaMissing, ServerFailed) as exc:
        reason = str(exc).splitlines()[0]
        screen.done(f"export: a plain local directory and not NFS, because: {reason}")
        return local, None
    return export_directory, server.port


def _servable(directory: Path, ending: ExitStack) -> Path:
    """The directory, or one in memory where its filesystem cannot be exported, as that of a container cannot."""
    if ganesha.vfs_problem(directory) and _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK):
        in_memory = _directory(ending, _IN_MEMORY)
        if not ganesha.vfs_problem(in_memory):
            return in_memory
    return directory


class Daemon(Server):
    """`nfs-provisioner run` as a process of its own; it speaks to the NFS server, or gets the directory without one."""

    def __init__(
        self, grounds: Grounds, *, provisioner: str, lease_namespace: str, ready: Callable[[int], bool]
    ) -> None:
        self.port = free_port()
        command = [
            *(sys.executable, "-m", "provisioner", "run"),
            f"--kubeconfig={grounds.kubeconfig}",
            f"--provisioner-name={provisioner}",
            *grounds.export_flags,
            f"--listen=127.0.0.1:{self.port}",
            f"--lease-namespace={lease_namespace}",
            "--no-require-mount",
            "--log-format=json",
        ]
        super().__init__(
            "nfs-provisioner run",
            command,
            log=grounds.directory / "daemon.log",
            ready=lambda: ready(self.port),
            # The default export of whoever runs this is not ours to serve.
            environment={"NFS_SERVER": "", "NFS_PATH": ""},
        )

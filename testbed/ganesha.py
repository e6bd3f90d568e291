"""NFS-Ganesha on loopback, without the kernel's NFS server and without a mount.

NFSv4 needs no other program. NFSv3 also needs rpcbind at the start. rpcbind runs in a mount and a network namespace of
its own, apart from any rpcbind of the machine; Ganesha itself listens on the machine's loopback, on known ports.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from testbed import packages
from testbed.binaries import Progress, silent
from testbed.lifecycle import NfsServer
from testbed.processes import Server, ServerFailed

NFS_PROGRAM, MOUNT_PROGRAM = 100_003, 100_005
PACKAGES = ("nfs-ganesha", "nfs-ganesha-vfs", "nfs-ganesha-mem", "rpcbind")
_SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Debian installs servers in directories that only the PATH of root contains."""


class GaneshaMissing(Exception):
    """Ganesha is not installed and cannot be; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Export:
    """A directory and the path under which clients mount it.

    Backend VFS serves the real directory, and needs root and a filesystem with file handles. MEM serves an initially
    empty tree in memory, which is lost when the server ends, and works for every user.
    """

    directory: Path
    path: str
    backend: Literal["VFS", "MEM"] = "VFS"
    squash: Literal["No_Root_Squash", "Root_Squash", "All_Squash"] = "No_Root_Squash"
    access: Literal["RW", "RO"] = "RW"
    privileged_port: bool = False
    """Whether clients must use a port below 1024, as with `secure` in exports(5)."""
    cached_s: int | None = None
    """How long Ganesha trusts what it knows of files that others change in the directory; by default a minute."""


class Ganesha(NfsServer):
    """The server, as a context or by `start` and `stop`.

    `port` (NFS) and `mount_port` (MOUNT of NFSv3) are on 127.0.0.1 and never change. The files of a VFS export survive
    a kill. Ganesha caches directories: change them through NFS and not directly.
    """

    def __init__(
        self, exports: Sequence[Export], *, versions: Sequence[Literal[3, 4]] = (4,), directory: Path | None = None
    ) -> None:
        """Keep configuration, log and recovery records in `directory`.

        Without one, use a temporary directory.
        """
        super().__init__("Ganesha")
        self._wiped = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="ganesha-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.exports = tuple(exports)
        self.versions = tuple(versions)
        self.log = self.directory / "ganesha.log"
        self._rpcbind = self._new_rpcbind() if 3 in versions else None

    def start(self) -> None:
        """Start, and return when every NFS version answers.

        Raises GaneshaMissing if it is not installed, ServerFailed if it ends or cannot serve an export.
        """
        reason = missing()
        if reason:
            raise GaneshaMissing(reason)
        self._refuse_unservable_exports()
        if self._rpcbind is not None:
            self._rpcbind.start()
            self._rpcbind.wait_ready()
        if self._server is None:
            self._write_configuration()
            self._server = self._new_server()
        self._server.start()
        self._server.wait_ready()

    def stop(self) -> None:
        """Stop it, SIGTERM first, and delete a temporary directory."""
        for server in (self._server, self._rpcbind):
            if server is not None:
                server.stop(grace_s=5.0)
        self._server = None  # its command refers to the ended rpcbind process
        if self._wiped:
            shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self) -> None:
        """Stop it orderly and start it again."""
        self._running().restart()

    def answers(self) -> bool:
        """Return True if every configured version answers a NULL call now."""
        if 3 in self.versions and not null_call(self.mount_port, program=MOUNT_PROGRAM, version=3):
            return False
        return all(null_call(self.port, program=NFS_PROGRAM, version=version) for version in self.versions)

    def _refuse_unservable_exports(self) -> None:
        for export in self.exports:
            if not export.directory.is_dir():
                raise ServerFailed(f"Ganesha cannot serve {export.directory}: the directory does not exist")
            problem = vfs_problem(export.directory) if export.backend == "VFS" else None
            if problem:
                raise ServerFailed(f"Ganesha cannot serve {export.directory}: {problem}")

    def _new_rpcbind(self) -> Server:
        # The socket is /run/rpcbind.sock: a /run of its own keeps it apart from every other rpcbind.
        command = [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /run && mkdir /run/ganesha && exec rpcbind -f -w",
        ]
        return Server(
            "rpcbind",
            command,
            log=self.directory / "rpcbind.log",
            ready=lambda: Path(f"/proc/{self._rpcbind_pid()}/root/run/rpcbind.sock").exists(),
            environment={"PATH": _SEARCHED},
        )

    def _rpcbind_pid(self) -> int | None:
        return None if self._rpcbind is None else self._rpcbind.pid

    def _new_server(self) -> Server:
        # Enter only the mount namespace, for rpcbind's socket: the ports stay on the machine's loopback.
        prefix = ["nsenter", f"--mount=/proc/{self._rpcbind_pid()}/ns/mnt", "--"] if self._rpcbind is not None else []
        files: list[str | Path] = [
            "-f",
            self.directory / "ganesha.conf",
            "-L",
            self.log,
            "-p",
            self.directory / "ganesha.pid",
        ]
        return Server(
            "ganesha.nfsd",
            [*prefix, "ganesha.nfsd", "-F", *files],
            log=self.log,
            ready=self.answers,
            environment={"PATH": _SEARCHED},
        )

    def _write_configuration(self) -> None:
        recovery = self.directory / "recovery"
        recovery.mkdir(parents=True, exist_ok=True)
        versions = ", ".join(str(version) for version in self.versions)
        blocks = [
            f"NFS_CORE_PARAM {{ Bind_addr = 127.0.0.1; NFS_Port = {self.port}; MNT_Port = {self.mount_port};",
            f"  Protocols = {versions}; mount_path_pseudo = true;",
            "  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }",
            # Graceless: a restarted server serves immediately, while a real one lets clients wait for 90 s.
            "NFSV4 { Graceless = true; Only_Numeric_Owners = true; RecoveryBackend = fs;",
            f'  RecoveryRoot = "{recovery}"; }}',
            f'NFS_KRB5 {{ Active_krb5 = false; CCacheDir = "{self.directory}"; }}',
            "LOG { Default_Log_Level = EVENT; }",
        ]
        blocks += [_export_block(number, export, versions) for number, export in enumerate(self.exports, start=1)]
        (self.directory / "ganesha.conf").write_text("\n".join(blocks) + "\n")


def _export_block(number: int, export: Export, versions: str) -> str:
    port = str(export.privileged_port).lower()
    cached = "" if export.cached_s is None else f"Attr_Expiration_Time = {export.cached_s}; "
    return (
        f'EXPORT {{ Export_Id = {number}; Path = "{export.directory}"; Pseudo = "{export.path}"; '
        f"Access_Type = {export.access}; Squash = {export.squash}; SecType = sys; PrivilegedPort = {port}; {cached}"
        f"Protocols = {versions}; Transports = TCP; FSAL {{ Name = {export.backend}; }} }}"
    )


def missing(*, versions: Sequence[Literal[3, 4]] = (4,)) -> str:
    """Return why Ganesha cannot serve these versions here, or ""."""
    if not shutil.which("ganesha.nfsd", path=_SEARCHED):
        return "NFS-Ganesha is not installed: run apt-get install " + " ".join(PACKAGES)
    if 3 not in versions:
        return ""
    lacking = [name for name in ("rpcbind", "unshare", "nsenter") if not shutil.which(name, path=_SEARCHED)]
    if lacking:
        return f"NFSv3 needs {', '.join(lacking)}: run apt-get install rpcbind util-linux"
    allowed = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, timeout=10).returncode == 0
    return "" if allowed else "NFSv3 needs namespaces of its own (unshare), which need root"


def install_ganesha(progress: Progress = silent) -> None:
    """Install Ganesha with apt-get if it is missing. Raises GaneshaMissing if that fails."""
    if not missing():
        return
    try:
        packages.install(PACKAGES, progress)
    except packages.NotInstalled as exc:
        raise GaneshaMissing(f"{missing()}: {exc}") from exc
    if missing():
        raise GaneshaMissing(f"apt-get installed {', '.join(PACKAGES)}, but {missing()}")


def null_call(port: int, *, program: int, version: int, timeout_s: float = 2.0) -> bool:
    """Return True if 127.0.0.1 answers the NULL procedure of an RPC program (RFC 5531)."""
    call = struct.pack(">10I", 1, 0, 2, program, version, 0, 0, 0, 0, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">I", 0x8000_0000 | len(call)) + call)
            # Record mark, xid, REPLY, MSG_ACCEPTED, an empty verifier, SUCCESS.
            answer = connection.recv(28, socket.MSG_WAITALL)
    except OSError:
        return False
    return answer[4:] == struct.pack(">6I", 1, 1, 0, 0, 0, 0)


def vfs_problem(directory: Path) -> str | None:
    """Return why FSAL VFS cannot serve this directory, or None.

    FSAL VFS keeps file handles and lets the kernel open them again: see open_by_handle_at(2). The overlay filesystems
    of containers have no handles; ext4, xfs, btrfs and tmpfs do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 8 + 128)
    mount_id = ctypes.c_int()
    at_fdcwd = -100
    if libc.name_to_handle_at(at_fdcwd, os.fsencode(directory), handle, ctypes.byref(mount_id), 0) != 0:
        error = os.strerror(ctypes.get_errno())
        return f"its filesystem has no file handles ({error}): use ext4, xfs or tmpfs, or the backend MEM"
    anchor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        opened = libc.open_by_handle_at(anchor, handle, os.O_RDONLY | os.O_DIRECTORY)
        error = os.strerror(ctypes.get_errno())
    finally:
        os.close(anchor)
    if opened < 0:
        return f"open_by_handle_at failed ({error}): run as root (CAP_DAC_READ_SEARCH), or use the backend MEM"
    os.close(opened)
    return None

"""The Linux kernel's NFS server and client, in virtual machines emulated by QEMU.

    with KernelServer() as server:                       # NFSv3 and v4 on 127.0.0.1:server.port, an XFS as /srv
        server.pause()

    KernelClient().run("mount -t nfs -o vers=4.1,port=$PORT $HOST:/nfs /mnt && ls /mnt", {"PORT": "12049"})

The machines boot Debian's kernel from testbed.vm_image. A machine is an unprivileged process of the user.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import packages, vm_image
from testbed.binaries import Progress, silent
from testbed.ganesha import MOUNT_PROGRAM, NFS_PROGRAM, null_call
from testbed.lifecycle import NfsServer
from testbed.processes import Server, ServerFailed, tail

PACKAGES = ("qemu-system-x86",)
QEMU = "qemu-system-x86_64"
HOST = "10.0.2.2"
"""The loopback of this machine as seen by virtual machines (QEMU's user networking)."""

EXPORTS: Mapping[str, str] = {"/srv": "rw,no_root_squash,insecure"}
"""The default: the whole filesystem, without root squash and from every port."""

READY_S = 120.0
"""A boot takes about 10 s on an idle machine with two cores."""

_NFS_PORT, _MOUNT_PORT = 2049, 20048
_DISK_BYTES = 2 << 30
EXT4 = "/srv/ext4"
"""Where a server with `ext4` has that filesystem."""

_SERVE = """
set -e
modprobe -a virtio_blk xfs nfsd
# mkfs.xfs refuses a disk with a filesystem: after a restart the old filesystem stays.
mkfs.xfs -q -K /dev/vda 2>/dev/null || true
mount -t xfs -o prjquota /dev/vda /srv
{more}
mkdir -p $(cut -d' ' -f1 /etc/exports)
mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
rpcbind -w
exportfs -ar
rpc.nfsd --grace-time 10 8
# Serve immediately, while a real server lets clients of the last run wait for 90 s.
echo Y > /proc/fs/nfsd/v4_end_grace || true
. /beside &
exec rpc.mountd -F -p {mount_port}
"""

_MORE_EXT4 = f"""
modprobe ext4 2>/dev/null || true  # built into some kernels
mkdir -p {EXT4}
mount -t ext4 /dev/vdb {EXT4} 2>/dev/null || {{
  mke2fs -q -t ext4 -F /dev/vdb
  mount -t ext4 /dev/vdb {EXT4}
}}
"""

_RUN = """
modprobe -a nfs nfsv3 nfsv4
stty -F /dev/ttyS1 raw
{
  (
    set -a
    . /environment
    set +a
    . /script
  )
  echo "status $?"
} > /dev/ttyS1 2>&1 < /dev/null
"""


class VmMissing(Exception):
    """No virtual machine can run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The output of a script, both streams together, and its exit status."""

    output: str
    status: int


class KernelServer(NfsServer):
    """The kernel's NFS server with an XFS, of 2 GiB unless `disk_bytes` is given, at /srv.

    `port` (NFS) and `mount_port` (MOUNT of NFSv3) are on 127.0.0.1 and never change; the filesystem survives restarts.
    Clients keep their source ports, so that an export without `insecure` refuses ports from 1024 on.
    """

    def __init__(
        self,
        exports: Mapping[str, str] = EXPORTS,
        *,
        directory: Path | None = None,
        beside: str = "",
        files: Mapping[str, bytes] | None = None,
        disk_bytes: int = _DISK_BYTES,
        ext4: bool = False,
    ) -> None:
        """`exports` maps paths at or below /srv, none below another, to options as in exports(5).

        With `ext4`, a second disk of `disk_bytes` has that filesystem at EXT4.

        Keep the disk and the console log in `directory`; without one, use a temporary directory. The machine runs the
        shell script `beside` as root, parallel to the server, and has Debian's Python and `files` for it.
        """
        super().__init__("the kernel's NFS server")
        self._wiped = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="kernel-server-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.exports = dict(exports)
        self.log = self.directory / "console.log"
        self._beside = beside
        self._files = dict(files or {})
        self._disk_bytes = disk_bytes
        self._ext4 = ext4

    def start(self) -> None:
        """Boot, and return when every version answers.

        Raises VmMissing, or ServerFailed if it does not come up.
        """
        if self._server is None:
            self._server = self._new_server()
        self._server.start()
        self._server.wait_ready(READY_S)

    def stop(self) -> None:
        """Turn the power off, and delete a temporary directory."""
        if self._server is not None:
            self._server.stop()
        if self._wiped:
            shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self) -> None:
        """Turn the power off and on, and wait until it serves again."""
        self._running().restart(READY_S)

    def answers(self) -> bool:
        """Return True if NFSv3, NFSv4 and MOUNT answer a NULL call now."""
        return null_call(self.mount_port, program=MOUNT_PROGRAM, version=3) and all(
            null_call(self.port, program=NFS_PROGRAM, version=version) for version in (3, 4)
        )

    def _new_server(self) -> Server:
        names = ("disk.img", "ext4.img") if self._ext4 else ("disk.img",)
        drives = [_empty_drive(self.directory / name, self._disk_bytes) for name in names]
        lines = [
            f"{path} *({options},no_subtree_check,fsid={number})\n"
            for number, (path, options) in enumerate(self.exports.items(), start=1)
        ]
        files = {
            "role": _SERVE.format(mount_port=_MOUNT_PORT, more=_MORE_EXT4 if self._ext4 else "").encode(),
            "etc/exports": "".join(lines).encode(),
            "beside": self._beside.encode(),
            **self._files,
        }
        forwarded = {self.port: _NFS_PORT, self.mount_port: _MOUNT_PORT}
        forwarding = "".join(f",hostfwd=tcp:127.0.0.1:{port}-:{inside}" for port, inside in forwarded.items())
        python = bool(self._beside)
        devices = [word for drive in drives for word in ("-drive", drive)]
        command = _machine(self.directory, files, network=forwarding, devices=devices, python=python)
        return Server("the kernel's NFS server", command, log=self.log, ready=self.answers)


class KernelClient:
    """The kernel's NFS client, in a machine that boots for each script.

    A boot takes about 7 s on an idle machine with two cores.
    """

    def run(
        self,
        script: str,
        environment: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 120.0,
        files: Mapping[str, bytes] | None = None,
        python: bool = False,
        disks: int = 0,
    ) -> Ran:
        """Run a shell script as root, with the variables of `environment`.

        $HOST is the loopback of this machine. The machine has busybox, and Debian's mount, umount and setpriv. It has
        mount.nfs, but neither statd nor a port mapper: NFSv3 needs `nolock` and `mountport`. It gets `files` too, by
        their paths without the leading slash; with `python`, Debian's Python as /usr/bin/python3; and empty disks of
        1 GiB, the first one as /dev/vda (modprobe virtio_blk first). Raises VmMissing, or ServerFailed if the script
        does not finish.
        """
        variables = {"HOST": HOST} | dict(environment or {})
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
        given = {"role": _RUN.encode(), "environment": "".join(lines).encode(), "script": script.encode()}
        with tempfile.TemporaryDirectory(prefix="kernel-client-") as name:
            directory = Path(name)
            output, console = directory / "output", directory / "console.log"
            devices = ["-serial", f"file:{output}"]
            for number in range(disks):
                devices += ["-drive", _empty_drive(directory / f"disk{number}.img", 1 << 30)]
            command = _machine(directory, {**given, **(files or {})}, devices=devices, python=python)
            machine = Server("the kernel's NFS client", command, log=console, ready=output.exists)
            machine.start()
            try:
                machine.wait(timeout_s)
            except ServerFailed as exc:
                raise ServerFailed(f"{exc}\nOutput of the script so far:\n{tail(output)}") from exc
            finally:
                machine.kill()
            written, _, status = output.read_text(errors="replace").rpartition("status ")
            if not status:
                raise ServerFailed(f"the kernel's NFS client ended before its script:\n{tail(console)}")
            return Ran(written, int(status))


def _empty_drive(file: Path, size_bytes: int) -> str:
    """Create a sparse file, and return the value of QEMU's -drive for it."""
    with file.open("wb") as sparse:
        sparse.truncate(size_bytes)
    # unsafe: writes of the guest stay in the page cache of this machine, which survives the guest.
    return f"if=virtio,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file={file}"


def _machine(
    directory: Path,
    files: Mapping[str, bytes],
    *,
    network: str = "",
    devices: Sequence[str] = (),
    python: bool = False,
) -> list[str | Path]:
    """Return the command that boots the image with more files.

    The console is on standard output.
    """
    reason = missing()
    image = vm_image.present()
    if reason or image is None:
        raise VmMissing(reason)
    initrd = directory / "initrd"
    parts = [image.initrd.read_bytes(), image.python.read_bytes() if python else b"", vm_image.archive(files)]
    initrd.write_bytes(b"".join(parts))
    return emulate(image.kernel, initrd, memory_mb=512, network=network, devices=devices)


def emulate(
    kernel: Path,
    initrd: Path,
    *,
    memory_mb: int,
    network: str = "",
    devices: Sequence[str | Path] = (),
    parameters: str = "",
) -> list[str | Path]:
    """Return the command that boots a kernel on two emulated processors.

    The console is on standard output. The first network card is on QEMU's user network; `network` adds options to it,
    `parameters` adds kernel parameters.
    """
    # nice: the emulation must not slow down the tests that wait for its answers.
    return [
        *("nice", "-n", "10", QEMU, "-accel", "tcg,thread=multi,tb-size=256", "-m", str(memory_mb), "-smp", "2"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", kernel, "-initrd", initrd),
        *("-append", f"console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on {parameters}".rstrip()),
        *("-netdev", f"user,id=net{network}", "-device", "virtio-net-pci,netdev=net,romfile=", *devices),
    ]


def missing() -> str:
    """Return why no virtual machine can run here, or ""."""
    if platform.machine() != "x86_64":
        return f"the virtual machine is x86-64, and this machine is {platform.machine()}"
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed: run python -m testbed install"
    return "" if vm_image.present() else "the image for QEMU is not built: run python -m testbed install"


def install_vm(progress: Progress = silent) -> None:
    """Install QEMU and build the image if they are missing. Raises VmMissing."""
    if not missing():
        return
    try:
        if not shutil.which(QEMU):
            packages.install(PACKAGES, progress)
        vm_image.locate(progress)
    except (packages.NotInstalled, vm_image.ImageMissing) as exc:
        raise VmMissing(f"{missing()}: {exc}") from exc
    if missing():
        raise VmMissing(missing())

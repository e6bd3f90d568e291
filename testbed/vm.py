"""The Linux kernel's NFS server and client, in virtual machines that QEMU emulates without help of the processor.

    with KernelServer() as server:                       # NFSv3 and v4 on 127.0.0.1:server.port, an XFS as /srv
        server.pause()

    KernelClient().run("mount -t nfs -o vers=4.1,port=$PORT $HOST:/nfs /mnt && ls /mnt", {"PORT": "12049"})

They boot Debian's kernel from testbed.vm_image. A machine is a process of the user who starts it, without privileges.
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
"""This machine's loopback, as virtual machines see it (QEMU's user networking)."""

EXPORTS: Mapping[str, str] = {"/srv": "rw,no_root_squash,insecure"}
"""By default: the whole filesystem, for root and from every port."""

READY_S = 120.0
"""It takes about 10 s on an idle machine of two cores."""

_NFS_PORT, _MOUNT_PORT = 2049, 20048
_DISK_BYTES = 2 << 30

_SERVE = """
set -e
modprobe -a virtio_blk xfs nfsd
# It refuses a disk with a filesystem on it: after a restart the old one is there again.
mkfs.xfs -q -K /dev/vda 2>/dev/null || true
mount -t xfs -o prjquota /dev/vda /srv
mkdir -p $(cut -d' ' -f1 /etc/exports)
mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
rpcbind -w
exportfs -ar
rpc.nfsd --grace-time 10 8
# Serve at once, where a real server makes the clients of a past life wait for 90 s.
echo Y > /proc/fs/nfsd/v4_end_grace || true
exec rpc.mountd -F -p {mount_port}
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
    """There can be no virtual machine here; the text says why."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a script wrote, both streams together, and its exit status."""

    output: str
    status: int


class KernelServer(NfsServer):
    """The kernel's NFS server with an XFS of 2 GiB at /srv, ready on entry and ended on exit, or by `start` and `stop`.

    `port` (NFS) and `mount_port` (MOUNT, of v3) are on 127.0.0.1 and stay the same for life, and so does what is on the
    filesystem. Clients keep their source ports, so that an export without `insecure` refuses those from 1024.
    """

    def __init__(self, exports: Mapping[str, str] = EXPORTS, *, directory: Path | None = None) -> None:
        """`exports` are paths at or below /srv, none below another, and their options as in exports(5).

        A `directory` that is given holds the disk and the console's log afterwards; else they are wiped.
        """
        super().__init__("the kernel's NFS server")
        self._wiped = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="kernel-server-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.exports = dict(exports)
        self.log = self.directory / "console.log"

    def start(self) -> None:
        """Boot and return when every version answers. Raises VmMissing, and ServerFailed when it does not come up."""
        if self._server is None:
            self._server = self._new_server()
        self._server.start()
        self._server.wait_ready(READY_S)

    def stop(self) -> None:
        """Turn the power off, and wipe a directory of our own."""
        if self._server is not None:
            self._server.stop()
        if self._wiped:
            shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self) -> None:
        """Turn the power off and on, and wait until it serves again."""
        self._running().restart(READY_S)

    def answers(self) -> bool:
        """Whether NFSv3, NFSv4 and MOUNT answer a NULL call now."""
        return null_call(self.mount_port, program=MOUNT_PROGRAM, version=3) and all(
            null_call(self.port, program=NFS_PROGRAM, version=version) for version in (3, 4)
        )

    def _new_server(self) -> Server:
        disk = self.directory / "disk.img"
        with disk.open("wb") as sparse:
            sparse.truncate(_DISK_BYTES)
        lines = [
            f"{path} *({options},no_subtree_check,fsid={number})\n"
            for number, (path, options) in enumerate(self.exports.items(), start=1)
        ]
        files = {"role": _SERVE.format(mount_port=_MOUNT_PORT).encode(), "etc/exports": "".join(lines).encode()}
        forwarded = {self.port: _NFS_PORT, self.mount_port: _MOUNT_PORT}
        forwarding = "".join(f",hostfwd=tcp:127.0.0.1:{ours}-:{theirs}" for ours, theirs in forwarded.items())
        # unsafe: what the guest wrote is in our kernel's cache, which outlives the machine.
        drive = f"if=virtio,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file={disk}"
        command = _machine(self.directory, files, network=forwarding, devices=["-drive", drive])
        return Server("the kernel's NFS server", command, log=self.log, ready=self.answers)


class KernelClient:
    """The kernel's NFS client in a machine that boots for each script, in about 7 s on an idle machine of two cores."""

    def run(self, script: str, environment: Mapping[str, str] | None = None, *, timeout_s: float = 120.0) -> Ran:
        """Run a shell script as root, with `environment` as variables and $HOST for this machine's loopback.

        It has Debian's mount (with mount.nfs, but neither statd nor a port mapper: give v3 `nolock` and `mountport`),
        umount and setpriv, and busybox. Raises VmMissing, and ServerFailed when the machine did not run it to its end.
        """
        variables = {"HOST": HOST} | dict(environment or {})
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in variables.items()]
        files = {"role": _RUN.encode(), "environment": "".join(lines).encode(), "script": script.encode()}
        with tempfile.TemporaryDirectory(prefix="kernel-client-") as name:
            directory = Path(name)
            output, console = directory / "output", directory / "console.log"
            command = _machine(directory, files, devices=["-serial", f"file:{output}"])
            machine = Server("the kernel's NFS client", command, log=console, ready=output.exists)
            machine.start()
            try:
                machine.wait(timeout_s)
            except ServerFailed as exc:
                raise ServerFailed(f"{exc}\nThe script so far:\n{tail(output)}") from exc
            finally:
                machine.kill()
            written, _, status = output.read_text(errors="replace").rpartition("status ")
            if not status:
                raise ServerFailed(f"the kernel's NFS client ended before its script did:\n{tail(console)}")
            return Ran(written, int(status))


def _machine(
    directory: Path, files: Mapping[str, bytes], *, network: str = "", devices: Sequence[str] = ()
) -> list[str | Path]:
    """The command that boots the image with more files; its console is on the standard output."""
    reason = missing()
    image = vm_image.present()
    if reason or image is None:
        raise VmMissing(reason)
    initrd = directory / "initrd"
    initrd.write_bytes(image.initrd.read_bytes() + vm_image.archive(files))
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
    """The command that boots a kernel on two emulated processors, with its console on the standard output.

    Its first network card is on QEMU's user network, of which `network` are further options; `parameters` are more of
    the kernel's own.
    """
    # nice: whoever waits for the machine's answers should not have to wait for the machine itself.
    return [
        *("nice", "-n", "10", QEMU, "-accel", "tcg,thread=multi,tb-size=256", "-m", str(memory_mb), "-smp", "2"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", kernel, "-initrd", initrd),
        *("-append", f"console=ttyS0 panic=-1 quiet mitigations=off random.trust_cpu=on {parameters}".rstrip()),
        *("-netdev", f"user,id=net{network}", "-device", "virtio-net-pci,netdev=net,romfile=", *devices),
    ]


def missing() -> str:
    """Why no virtual machine can run here, or "" when one can."""
    if platform.machine() != "x86_64":
        return f"its virtual machine is an x86-64, and this is a {platform.machine()}"
    if not shutil.which(QEMU):
        return f"{QEMU} is not installed: python -m testbed install"
    return "" if vm_image.present() else "the image that QEMU boots is not built: python -m testbed install"


def install_vm(progress: Progress = silent) -> None:
    """Install QEMU and build the image unless they are there. Raises VmMissing."""
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

"""The disk that nodes boot from: Debian with its kernel, containerd, the kubelet and kube-proxy, and images for pods.

`python -m tests.e2e.nodes.image` builds it in minutes, unless it exists. The build runs at the speed of this processor:
what a node would do, such as importing images, the node's programs do in a chroot.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from testcontainers.core.docker_client import DockerClient

from testbed import binaries, docker, packages, vm
from testbed.binaries import Progress, cache, silent
from tests.conformance import images
from tests.e2e.containers import PROVISIONER
from tests.e2e.nodes import debian, workloads
from tests.e2e.nodes.workloads import Archive

PACKAGES = (*vm.PACKAGES, *debian.PACKAGES, "e2fsprogs")
SUITE = "trixie"
NODE_PACKAGES = (
    *("linux-image-cloud-amd64", "kmod", "iproute2", "nftables", "conntrack", "procps"),
    *("containerd", "runc", "containernetworking-plugins", "nfs-common"),
)
DISK_BYTES = 8 << 30
"""Its size on nodes; it occupies less than a third of that here."""

KEPT_S = 3600.0
"""The disk of another build of the provisioner is kept this long after its last use."""

_ROOTFS = Path(__file__).parent / "rootfs"
_INITRD = shlex.quote(f"{_ROOTFS}/etc/initramfs-tools")
_BEFORE_THE_KERNEL = (
    '--setup-hook=mkdir -p "$1/etc"',
    f"--setup-hook=copy-in {_INITRD} /etc",
)
_IMPORT = """
set -eu
# A bind mount keeps containerd's mounts below it and in this namespace.
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mount -t tmpfs tmpfs run
chroot . containerd &
server=$!
trap 'kill $server; wait $server || true' EXIT
for _ in $(seq 100); do
  if chroot . ctr version; then break; fi
  sleep 0.2
done
chroot . ctr --namespace k8s.io images import "$2"
# Pods need only the unpacked images; their layers would double the disk.
chroot . ctr --namespace k8s.io content prune references
"""


class NodesMissing(Exception):
    """There can be no nodes on this machine, or no disk for them; the text says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """The files that QEMU boots. All nodes share the disk, and none writes to it."""

    kernel: Path
    initrd: Path
    disk: Path


def missing() -> str:
    """Return why no node can run here, even after a build, or ""."""
    if platform.machine() != "x86_64":
        return f"nodes are x86-64 machines, and this is a {platform.machine()}"
    if os.geteuid() != 0:
        return "a node's disk, its NFS server and its API server's names take root"
    lacking = [name for name in (vm.QEMU, "mmdebstrap", "mkfs.ext4", "unshare") if not shutil.which(name)]
    if lacking and not shutil.which("apt-get"):
        return f"{', '.join(lacking)} is not installed, and there is no apt-get"
    return docker.unanswered()


def present() -> Image | None:
    """Return the image with Docker's current build of the provisioner, if it is built."""
    return _image(_disk(_home()))


def locate(progress: Progress = silent) -> Image:
    """Build what is missing, and return the image with Docker's current build of the provisioner.

    The provisioner's image takes half a minute, the rest some minutes, once. Raises NodesMissing.
    """
    reason = missing()
    if reason:
        raise NodesMissing(reason)
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    with binaries.locked(home / ".lock", progress):
        try:
            _install(progress)
            if not (home / "tree").exists():
                _build_tree(home, progress)
            disk = _disk(home)
            if not disk.exists():
                _build_disk(disk, progress)
        except (
            debian.CommandFailed,
            binaries.BinariesMissing,
            packages.NotInstalled,
        ) as exc:
            raise NodesMissing(f"the nodes' disk cannot be built: {exc}") from exc
    os.utime(disk)
    _forget_others(disk)
    found = _image(disk)
    assert found is not None
    return found


def _install(progress: Progress) -> None:
    if not (shutil.which(vm.QEMU) and shutil.which("mmdebstrap") and Path(debian.KEYRING).exists()):
        packages.install(PACKAGES, progress)


def _home() -> Path:
    """Return the directory of builds with these versions of our modules, files and Kubernetes."""
    ours = [Path(module.__file__ or "") for module in (debian, images, workloads)] + [Path(__file__)]
    ours += sorted(path for path in _ROOTFS.rglob("*") if path.is_file())
    recipe = hashlib.sha256(b"\0".join(path.read_bytes() for path in ours)).hexdigest()[:8]
    return cache() / f"nodes-{binaries.kubernetes_version()}-{recipe}"


def _disk(home: Path) -> Path:
    """Return the disk with the provisioner's current image, beside the tree of all disks."""
    identity = str(DockerClient().client.images.get(PROVISIONER).id)
    return home / f"disk-{identity.removeprefix('sha256:')[:12]}"


def _image(disk: Path) -> Image | None:
    kernels = list(disk.parent.glob("tree/boot/vmlinuz-*"))
    if not kernels or not disk.exists():
        return None
    return Image(
        kernels[0],
        kernels[0].with_name(kernels[0].name.replace("vmlinuz", "initrd.img")),
        disk,
    )


def _forget_others(disk: Path) -> None:
    for other in disk.parent.glob("disk-*"):
        if other != disk and time.time() - other.stat().st_mtime > KEPT_S:
            other.unlink()


def _build_tree(home: Path, progress: Progress) -> None:
    """Build the root file system with all images except the provisioner's."""
    programs = binaries.locate(tuple(binaries.NODE_PACKAGES), binaries.NODE, progress=progress)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=home) as name:
        archive, tree = Path(name, "workloads.tar"), Path(name, "tree")
        with Archive(archive) as opened:
            workloads.add_all(opened, Path(name, "layer.tar"), progress)
            images.add_all(opened, Path(name), progress)
        progress(f"nodes: making the root filesystem of {' '.join(NODE_PACKAGES)}")
        debian.bootstrap(
            tree,
            suite=SUITE,
            packages=NODE_PACKAGES,
            options=["--format=directory", *_BEFORE_THE_KERNEL],
        )
        shutil.copytree(_ROOTFS, tree, dirs_exist_ok=True)
        for program in ("kubelet", "kube-proxy"):
            shutil.copy2(programs / program, tree / "usr/local/sbin")
        # QEMU's user network answers DNS there; nothing here needs it.
        (tree / "etc/resolv.conf").unlink(missing_ok=True)
        (tree / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
        _import(tree, archive, progress)
        # The rename makes the tree appear complete or not at all.
        os.rename(tree, home / "tree")


def _build_disk(disk: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=disk.parent) as name:
        archive, tree, unfinished = (
            Path(name, "provisioner.tar"),
            Path(name, "tree"),
            Path(name, "disk"),
        )
        with archive.open("wb") as file:
            file.writelines(DockerClient().client.images.get(PROVISIONER).save(named=PROVISIONER))
        debian.command("cp", "--archive", "--reflink=auto", disk.parent / "tree", tree)
        _import(tree, archive, progress)
        progress("nodes: writing their disk")
        with unfinished.open("wb") as file:
            file.truncate(DISK_BYTES)
        # Checksums would cost emulated processors time for no benefit.
        debian.command("mkfs.ext4", "-q", "-O", "^metadata_csum", "-E", "lazy_itable_init=1,lazy_journal_init=1",
                       "-d", tree, unfinished)  # fmt: skip
        os.replace(unfinished, disk)


def _import(tree: Path, archive: Path, progress: Progress) -> None:
    """Import the images of an archive with the root file system's containerd."""
    progress(f"nodes: importing the images of {archive.name}")
    inside = tree / archive.name
    os.rename(archive, inside)
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    debian.command(*alone, "sh", "-c", _IMPORT, "import", tree, f"/{archive.name}", timeout_s=600)
    inside.unlink()


def main() -> int:
    """Build what is missing and print the disk's path, or why there can be no nodes; return the exit status."""
    try:
        print(locate(lambda line: print(line, file=sys.stderr, flush=True)).disk)
    except NodesMissing as exc:
        print(exc, file=sys.stderr)
        return 0 if missing() else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

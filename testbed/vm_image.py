"""The image of the virtual machine: Debian's kernel and an initrd.

The initrd contains kernel modules, busybox and the NFS programs; a second one contains Debian's Python. The packages
come from the apt sources of this machine; they are unpacked, never installed. The image stays in the cache under a name
that depends on this module.
Building needs no root.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.binaries import Progress, cache, silent
from testbed.processes import tail

KERNEL = "linux-image-cloud-amd64"
"""Debian's metapackage for the newest kernel for virtual machines."""

PACKAGES = (
    "busybox-static",
    "dash",
    "e2fsprogs",
    "mount",
    "nfs-common",
    "nfs-kernel-server",
    "rpcbind",
    "util-linux",
    "xfsprogs",
)
PROGRAMS = (
    *("dash", "mount", "umount", "setpriv", "mount.nfs"),
    *("rpcbind", "exportfs", "rpc.nfsd", "rpc.mountd"),
    *("mkfs.xfs", "xfs_quota", "mke2fs"),
)
"""The programs besides busybox, with their libraries. dash, because the shell of busybox prefers its own mount."""

FILES = ("netconfig",)
"""Files in /etc that libtirpc needs for TCP."""

MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "nfs", "nfsv3", "nfsv4", "nfsd", "xfs", "ext4", "quota_v2")
"""Kernel modules, loaded with their dependencies; a module without a file is built into the kernel."""

_EMPTY_LIBRARIES = ("libdl", "libpthread", "librt", "libutil")
"""Libraries that are part of glibc now; wheels still name them."""

PROTOCOLS = "tcp 6 TCP\nudp 17 UDP\n"
SERVICES = "sunrpc 111/tcp\nsunrpc 111/udp\nnfs 2049/tcp\nnfs 2049/udp\n"
ACCOUNTS = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n_rpc:x:100:65534::/run/rpcbind:/bin/false\n"

INIT = """#!/sbin/dash
export PATH=/sbin:/bin
busybox mkdir /proc
mount -t proc proc /proc
busybox --install -s /bin
ln -sf /sbin/dash /bin/sh
ln -s /bin/busybox /sbin/modprobe
mkdir -p /sys /dev /tmp /mnt /srv /run/rpcbind /var/lib/nfs/rpc_pipefs
ln -s /run /var/run
chmod 1777 /tmp
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe -a virtio_pci virtio_net
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
. /role
reboot -f
"""
"""The first process: prepares the machine, runs /role, and then turns the machine off."""

_DIRECTORY, _FILE = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755


class ImageMissing(Exception):
    """The image does not exist and cannot be built; the text says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel, and an initrd; append `archive` with a file /role to the initrd."""

    kernel: Path
    initrd: Path
    python: Path
    """A second initrd to append: Debian's Python as /usr/bin/python3, with its standard library."""

    @property
    def version(self) -> str:
        """The kernel's release, such as `6.1.0-9-cloud-amd64`."""
        return self.kernel.name.removeprefix("vmlinuz-")


def present() -> Image | None:
    """Return the newest built image, or None."""
    return max((_image(found) for found in cache().glob(f"vm-*-{_recipe()}")), key=_built_at, default=None)


def locate(progress: Progress = silent) -> Image:
    """Return the image.

    Build it if it is missing, with a download of 30 MB. Raises ImageMissing.
    """
    return present() or _build(progress)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a cpio archive (format newc) of executable files, owned by root.

    It contains their parent directories too. The kernel unpacks concatenated archives in order
    (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    above = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    entries = [(name, _DIRECTORY, b"") for name in sorted(above)]
    entries += [(name, _FILE, content) for name, content in files.items()]
    return b"".join(_entry(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, content: bytes) -> bytes:
    # inode, mode, uid, gid, links, mtime, size, device numbers, length of the name, checksum.
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _recipe() -> str:
    """Return a key that differs for each version of this module."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]


def _image(directory: Path) -> Image:
    return Image(next(directory.glob("vmlinuz-*")), directory / "initrd", directory / "python")


def _built_at(image: Image) -> float:
    return image.initrd.stat().st_mtime


def _build(progress: Progress) -> Image:
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vm-", dir=cache()) as unfinished:
        root, result = Path(unfinished, "root"), Path(unfinished, "result")
        result.mkdir()
        python = _python_package()
        below = _with_libraries([f"{python}-minimal", f"lib{python}-stdlib"])
        _unpack([_kernel_package(), *{*_with_libraries(PACKAGES), *below}], root, progress)
        progress("virtual machine: writing its initrd")
        (kernel,) = root.glob("boot/vmlinuz-*")
        os.rename(kernel, result / kernel.name)
        release = kernel.name.removeprefix("vmlinuz-")
        (result / "initrd").write_bytes(archive(dict(_files(root, release))))
        (result / "python").write_bytes(archive(dict(_python_files(root, python))))
        # Rename is atomic; another process can have built the same image in the meantime.
        target = cache() / f"vm-{release}-{_recipe()}"
        if not target.exists():
            os.rename(result, target)
    progress(f"virtual machine: Linux {release} is in {target}")
    return _image(target)


def _kernel_package() -> str:
    found = re.search(r"Depends: (linux-image-\S+)", _apt("apt-cache", "depends", KERNEL, check=False))
    if found is None:
        raise ImageMissing(f"apt does not know {KERNEL}: this needs Debian; run apt-get update")
    return found[1]


def _python_package() -> str:
    found = re.search(r"Depends: (python3\.\d+)$", _apt("apt-cache", "depends", "python3"), re.MULTILINE)
    if found is None:
        raise ImageMissing("apt does not know python3: this needs Debian; run apt-get update")
    return found[1]


def _with_libraries(packages: Sequence[str]) -> list[str]:
    """Return the packages and the library packages that they depend on.

    Dependencies of libraries count too, but only on other libraries.
    """
    known: dict[str, None] = {}
    fresh = set(packages)
    while fresh:
        known |= dict.fromkeys(sorted(fresh))
        depends = _apt("apt-cache", "depends", "--important", *sorted(fresh))
        fresh = set(re.findall(r"Depends: (lib\S+)$", depends, re.MULTILINE)) - known.keys()
    return list(known)


def _unpack(packages: Sequence[str], root: Path, progress: Progress) -> None:
    """Download packages and unpack them below `root`."""
    root.mkdir()
    downloads = root.parent / "downloads"
    downloads.mkdir()
    progress(f"virtual machine: downloading {len(packages)} packages with apt-get, {packages[0]} first")
    _apt("apt-get", "download", "-q", *packages, directory=downloads)
    progress("virtual machine: unpacking")
    for package in sorted(downloads.glob("*.deb")):
        _apt("dpkg-deb", "-x", str(package), str(root))


def _apt(*command: str, directory: Path = Path("/"), check: bool = True) -> str:
    """Run a command of apt or dpkg and return its output."""
    with tempfile.NamedTemporaryFile(prefix="vm-image-", suffix=".log") as log:
        try:
            done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise ImageMissing(f"{command[0]}: {exc}") from exc
        if check and done.returncode:
            raise ImageMissing(f"{' '.join(command[:2])} failed:\n{tail(Path(log.name))}")
    return done.stdout


def _files(root: Path, release: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the initrd: path and content."""
    yield "init", INIT.encode()
    yield "etc/passwd", ACCOUNTS.encode()
    yield "etc/protocols", PROTOCOLS.encode()
    yield "etc/services", SERVICES.encode()
    for name in FILES:
        yield f"etc/{name}", (root / "etc" / name).read_bytes()
    yield "bin/busybox", _program(root, "busybox").read_bytes()
    programs = [_program(root, name) for name in PROGRAMS]
    for program in programs:
        yield f"sbin/{program.name}", program.read_bytes()
    yield from _libraries(root, programs)
    yield from _modules(root, release)


def _python_files(root: Path, python: str) -> Iterator[tuple[str, bytes]]:
    """Yield Python as /usr/bin/python3: the program, its library, and the shared libraries of both."""
    program, library = root / "usr/bin" / python, root / "usr/lib" / python
    yield "usr/bin/python3", program.read_bytes()
    extensions = sorted(library.glob("lib-dynload/*.so"))
    for path in sorted(library.rglob("*")):
        if path.is_file() and path.suffix in (".py", ".so") and "test" not in path.relative_to(library).parts:
            yield f"usr/lib/{python}/{path.relative_to(library)}", path.read_bytes()
    yield from _libraries(root, [program, *extensions])
    for path in root.rglob("*.so.?"):
        if path.name.split(".")[0] in _EMPTY_LIBRARIES:
            yield f"lib/{path.name}", path.read_bytes()


def _program(root: Path, name: str) -> Path:
    for directory in ("bin", "sbin", "usr/bin", "usr/sbin"):
        if (root / directory / name).is_file():
            return root / directory / name
    raise ImageMissing(f"no package contains the program {name}")


def _libraries(root: Path, programs: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield the libraries that the programs need, as the unpacked dynamic linker resolves them."""
    linker = next(path for path in root.rglob("ld-linux-x86-64.so.2") if not path.is_symlink())
    places = [str(root / prefix / "lib/x86_64-linux-gnu") for prefix in (".", "usr")]
    found: dict[str, Path] = {}
    for program in programs:
        listing = _apt(str(linker), "--library-path", ":".join(places), "--list", str(program))
        if "not found" in listing:
            raise ImageMissing(f"{program.name} lacks a library:\n{listing}")
        found |= {name: Path(place) for name, place in re.findall(r"(\S+) => (/\S+)", listing)}
    yield f"lib64/{linker.name}", linker.read_bytes()
    for name, place in found.items():
        if "/" not in name:
            yield f"lib/{name}", place.read_bytes()


def _modules(root: Path, release: str) -> Iterator[tuple[str, bytes]]:
    """Yield the modules, and the index modules.dep of their dependencies (depmod(8))."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in root.rglob("*.ko*")}
    directory = f"lib/modules/{release}"
    waiting, index = list(MODULES), {}
    while waiting:
        name = waiting.pop()
        if name in index or name not in files:
            continue
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        stated = re.search(rb"\0depends=([^\0]*)\0", content)
        index[name] = stated[1].decode().replace("-", "_").split(",") if stated and stated[1] else []
        waiting += index[name]
        yield f"{directory}/{name}.ko", content
    lines = [f"{name}.ko: {' '.join(f'{other}.ko' for other in _below(name, index))}\n" for name in index]
    yield f"{directory}/modules.dep", "".join(lines).encode()


def _below(name: str, index: Mapping[str, Sequence[str]]) -> list[str]:
    """Return all dependencies of a module; each module comes before those that it depends on."""
    order: dict[str, None] = {}
    for other in index[name]:
        if other in index:
            for one in (other, *_below(other, index)):
                order.pop(one, None)
                order[one] = None
    return list(order)

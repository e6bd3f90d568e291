"""The images of the pods in Kubernetes' storage tests, under their exact names, from Debian packages: no registry.

The names and versions are those of test/utils/image/manifest.go of the pinned release of Kubernetes.
`python -m tests.conformance.images` builds them, and the suite itself, unless they exist.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed import binaries
from testbed.binaries import BinariesMissing, Progress, silent
from testbed.commands import exit_status, to_terminal
from tests.conformance import suite
from tests.e2e.nodes import cluster, workloads
from tests.e2e.nodes.cluster import NodeCluster
from tests.e2e.nodes.debian import CommandFailed
from tests.e2e.nodes.workloads import Archive, Workload

REGISTRY = "registry.k8s.io/e2e-test-images"
ALIASES = {
    "docker.io/library/pause:latest": "registry.k8s.io/pause:3.10.2",
    "docker.io/library/nginx:latest": f"{REGISTRY}/nginx:1.27.0-2",
}
"""Images that each node has already, and their further names."""

BUSYBOX = f"{REGISTRY}/busybox:1.37.0-2"
AGNHOST = f"{REGISTRY}/agnhost:2.66.1"
DNS_TOOLS = Workload(
    name=f"{REGISTRY}/glibc-dns-testing:2.1.1",
    suite="trixie",
    packages=("bind9-dnsutils",),
    command=("sleep", "infinity"),
)

_BUSYBOX = "/usr/bin/busybox"
_IMPORT_S = 900.0


def locate(progress: Progress = silent) -> Path:
    """Return an archive of the images that nodes lack, as `docker save` writes it; build it if it is missing.

    Raises BinariesMissing, CommandFailed.
    """
    agnhost = binaries.locate(tuple(suite.AGNHOST.packages), suite.AGNHOST, progress=progress) / "agnhost"
    recipe = b"".join(Path(name).read_bytes() for name in (__file__, workloads.__file__))
    home = agnhost.parent
    archive = home / f"images-{hashlib.sha256(recipe).hexdigest()[:8]}.tar"
    with binaries.locked(home / ".lock", progress):
        if not archive.exists():
            with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=home) as unfinished:
                os.replace(_write(Path(unfinished), agnhost, progress), archive)
    return archive


def _write(directory: Path, agnhost: Path, progress: Progress) -> Path:
    busybox, applets, program, tools = (
        directory / f"{name}.tar" for name in ("busybox", "applets", "program", "tools")
    )
    progress(f"building the images {BUSYBOX}, {AGNHOST} and {DNS_TOOLS.name}")
    workloads.write_layer(busybox, workloads.PAUSE)
    _write_applets(applets, busybox)
    with tarfile.open(program, "w") as layer:
        layer.add(agnhost, "agnhost")
    workloads.write_layer(tools, DNS_TOOLS)
    with Archive(directory / "images.tar") as archive:
        archive.add(BUSYBOX, [busybox, applets], command=["sh"])
        archive.add(AGNHOST, [busybox, applets, program], command=["pause"], entrypoint=["/agnhost"])
        archive.add(DNS_TOOLS.name, [tools], command=DNS_TOOLS.command)
    return directory / "images.tar"


def _write_applets(layer: Path, busybox: Path) -> None:
    """Write a layer with what the package of busybox lacks: a name for each applet, /bin and /tmp."""
    with tempfile.TemporaryDirectory() as name:
        with tarfile.open(busybox) as packed:
            packed.extract(f".{_BUSYBOX}", name, filter="tar")
        listed = subprocess.run([f"{name}{_BUSYBOX}", "--list"], capture_output=True, text=True, check=True)
    links = {f"usr/bin/{applet}": _BUSYBOX for applet in listed.stdout.split() if applet != "busybox"}
    with tarfile.open(layer, "w") as packed:
        for path, target in (links | {"bin": "usr/bin"}).items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            packed.addfile(entry)
        for path, mode in (("tmp", 0o1777), ("root", 0o700)):
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            packed.addfile(entry)


def provide(nodes: NodeCluster, archive: Path) -> None:
    """Import the archive into the containerd of each node, which reads it from the export, and add the aliases.

    Raises ScriptFailed, ServerFailed.
    """
    shared = nodes.export / archive.name
    shutil.copyfile(archive, shared)
    aliases = "; ".join(f"ctr --namespace k8s.io images tag {old} {new}" for old, new in ALIASES.items())
    script = f"""
        set -e
        mount -t nfs -o vers=4.1,port={nodes.nfs_port},proto=tcp,ro {nodes.nfs_server}:{nodes.nfs_path} /mnt
        trap 'umount /mnt' EXIT
        ctr --namespace k8s.io images import /mnt/{archive.name}
        {aliases}
    """
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.run(script, timeout_s=_IMPORT_S), nodes.nodes))
    finally:
        shared.unlink()


def main() -> int:
    """Build the suite and the images of its pods, and print the path of the images; return the exit status."""
    progress = to_terminal()
    if reason := cluster.missing():
        print(reason, file=sys.stderr)
        return 0

    def build() -> int:
        suite.locate(progress)
        print(locate(progress))
        return 0

    return exit_status(build, BinariesMissing, CommandFailed)


if __name__ == "__main__":
    sys.exit(main())

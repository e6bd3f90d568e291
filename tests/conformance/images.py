"""The images of the pods in Kubernetes' storage tests, under their exact names, from Debian packages: no registry.

The names and versions are those of test/utils/image/manifest.go of the pinned release of Kubernetes. Two more of its
images are further names of the nodes' own ones (tests.e2e.nodes.workloads).
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from testbed import binaries
from testbed.binaries import Progress
from tests.e2e.nodes import workloads
from tests.e2e.nodes.workloads import Archive, Workload

REGISTRY = "registry.k8s.io/e2e-test-images"
BUSYBOX = f"{REGISTRY}/busybox:1.37.0-2"
AGNHOST = f"{REGISTRY}/agnhost:2.66.1"
DNS_TOOLS = Workload(
    name=f"{REGISTRY}/glibc-dns-testing:2.1.1",
    suite="trixie",
    packages=("bind9-dnsutils",),
    command=("sleep", "infinity"),
)

PROGRAM = replace(
    binaries.CONTROL_PLANE,
    name="agnhost",
    module=Path(__file__).parent,
    packages={"agnhost": "k8s.io/kubernetes/test/images/agnhost"},
    takes="a minute",
    named_by=None,
)
"""The program in some pods, from Kubernetes' own module."""

_BUSYBOX = "/usr/bin/busybox"


def add_all(archive: Archive, directory: Path, progress: Progress) -> None:
    """Build the images and add them to an archive; `directory` is for temporary files.

    Raises BinariesMissing, CommandFailed.
    """
    agnhost = binaries.locate(("agnhost",), PROGRAM, progress=progress) / "agnhost"
    progress(f"nodes: building the images {BUSYBOX}, {AGNHOST} and {DNS_TOOLS.name}")
    busybox, applets, program, tools = (
        directory / f"{name}.tar" for name in ("busybox", "applets", "program", "tools")
    )
    workloads.write_layer(busybox, workloads.PAUSE)
    _write_applets(applets, busybox)
    with tarfile.open(program, "w") as layer:
        layer.add(agnhost, "agnhost")
    workloads.write_layer(tools, DNS_TOOLS)
    archive.add(BUSYBOX, layers=[busybox, applets], command=["sh"])
    archive.add(AGNHOST, layers=[busybox, applets, program], command=["pause"], entrypoint=["/agnhost"])
    archive.add(DNS_TOOLS.name, layers=[tools], command=DNS_TOOLS.command)


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

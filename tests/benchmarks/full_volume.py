"""Writers on a full volume behind knfsd, and what their neighbours pay: docs/development/sizes.md has the figures.

    python -m tests.benchmarks.full_volume

Two virtual machines, one with the server (XFS with project quotas) and one with the client, run on emulated processors:
times are several times those of a real machine. The client runs this module again, with the argument `client`.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MI = 1 << 20
BLOCK = 65536
LIMITS = {"edge": 8 * MI, "off": 8 * MI - 20480}
"""A limit where a WRITE ends, and one in the middle of a WRITE."""
KINDS = {"direct": os.O_DIRECT, "buffered": 0, "sync": os.O_SYNC}
EXPORT, HERE = "/srv/full", "tests.benchmarks.full_volume"
PATIENCE_S = 90.0
READY = "ready"
VERSIONS = ("4.2", "3")


# --------------------------------------------------------------------------------------------------- the server


def make_volumes() -> None:
    """Create one volume per run, on the server."""
    from provisioner.quota import linux

    names = [f"{limit}-{version}-{kind}" for limit in LIMITS for version in VERSIONS for kind in KINDS]
    for project, name in enumerate([*names, "edge-loop", "off-loop", "neighbour"], start=100):
        directory = Path(EXPORT, name)
        directory.mkdir(parents=True)
        directory.chmod(0o777)
        descriptor = os.open(directory, os.O_RDONLY)
        linux.set_project(descriptor, project, inherits=True)
        linux.set_limit(descriptor, project, LIMITS.get(name.partition("-")[0], 1 << 30))
    Path(EXPORT, READY).touch()


# --------------------------------------------------------------------------------------------------- the client


@contextmanager
def mounted(name: str, version: str, at: str) -> Iterator[Path]:
    """Mount a directory of the export."""
    Path(at).mkdir(exist_ok=True)
    options = os.environ["OPTIONS3" if version == "3" else "OPTIONS4"]
    source = f"{os.environ['HOST']}:{EXPORT}/{name}"
    subprocess.run(["mount", "-t", "nfs", "-o", f"{options},nosharecache", source, at], check=True)
    try:
        yield Path(at)
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def write(file: Path, kind: str, size: int) -> int:
    """Write a file; return the number of the error that the program gets, from write, fsync or close."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | KINDS[kind], 0o666)
    block, error = mmap.mmap(-1, BLOCK), 0
    try:
        for _ in range(size // BLOCK):
            os.write(descriptor, block)
        os.fsync(descriptor)
    except OSError as exc:
        error = exc.errno or 0
    with suppress(OSError):
        os.close(descriptor)
    return error


def as_child(work: Callable[[], int]) -> int:
    """Run something in a child as uid 1000; return its pid. Its exit status is the result."""
    if not (child := os.fork()):
        status = 255
        try:
            os.setgroups([])
            os.setgid(1000)
            os.setuid(1000)
            status = work()
        finally:
            os._exit(status)
    return child


def fill(limit: str, version: str, kind: str) -> None:
    """Write more than a volume may hold, and print when the error comes and how many WRITEs that took."""
    with mounted(f"{limit}-{version}-{kind}", version, "/mnt") as at:
        began, result = time.monotonic(), f"no error in {PATIENCE_S:.0f} s"
        child = as_child(lambda: write(at / "file", kind, 12 * MI))
        while time.monotonic() < began + PATIENCE_S:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                name = errno.errorcode.get(status >> 8, "no error")
                result = f"{name} after {time.monotonic() - began:.1f} s"
                break
            time.sleep(0.02)
        else:
            os.kill(child, signal.SIGTERM)
        lines = [line.split() for line in Path("/proc/self/mountstats").read_text().splitlines()]
        writes = sum(int(words[1]) for words in lines if words[:1] == ["WRITE:"])
        print(f"{version} {limit} {kind}: {result}, {writes} WRITEs", flush=True)


def neighbour(at: Path) -> float:
    """Write four files of 4 MiB; return how long it took."""
    began = time.monotonic()
    for number in range(4):
        with (at / f"file-{number}").open("wb") as file:
            file.write(bytes(4 * MI))
            file.flush()
            os.fsync(file.fileno())
    return time.monotonic() - began


def insist(at: Path) -> int:
    """Append to a full volume again and again, as a program that retries does."""
    while True:
        with suppress(OSError), (at / "file").open("ab") as file:
            file.write(bytes(MI))
            file.flush()
            os.fsync(file.fileno())


def measure() -> None:
    """Print all figures."""
    for version in VERSIONS:
        for limit in LIMITS:
            for kind in KINDS:
                fill(limit, version, kind)
    with mounted("neighbour", "4.2", "/mnt") as at:
        print(f"neighbour alone: {neighbour(at):.1f} s", flush=True)
        for limit in LIMITS:
            with mounted(f"{limit}-loop", "4.2", "/tmp/full") as full:
                child = as_child(lambda: insist(full))
                time.sleep(8.0)
                print(f"neighbour beside a writer on a full volume ({limit}): {neighbour(at):.1f} s", flush=True)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


# --------------------------------------------------------------------------------------------------- this machine


def main() -> None:
    """Run both machines, and print what the client measures."""
    from testbed.vm import KernelClient, KernelServer
    from tests.support.product import product

    run = f"PYTHONPATH=/product /usr/bin/python3 -m {HERE}"
    files = product(f"{HERE.replace('.', '/')}.py")
    exports = {EXPORT: "rw,async,no_root_squash,insecure"}
    with KernelServer(exports, beside=f"{run} server\n", files=files) as server:
        options = {
            "OPTIONS4": f"vers=4.2,port={server.port}",
            "OPTIONS3": f"vers=3,nolock,proto=tcp,port={server.port},mountport={server.mount_port}",
        }
        wait = (
            f"mount -t nfs -o $OPTIONS4 $HOST:{EXPORT} /mnt; until [ -e /mnt/{READY} ]; do sleep 1; done; umount /mnt"
        )
        script = f"set -e\nmodprobe -a nfs nfsv3 nfsv4\n{wait}\nuname -r\n{run} client\n"
        print(KernelClient().run(script, options, timeout_s=1800.0, files=files, python=True).output)


if __name__ == "__main__":
    {"server": make_volumes, "client": measure}.get(sys.argv[-1], main)()

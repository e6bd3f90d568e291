"""Runs in a virtual machine that mounts volumes over NFS as a node does, and prints what a tenant meets there.

Each line of the input names one volume: NFS version, mount options, path, and capacity in bytes.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

from tests.support.tenants import FULL, as_user, mounted

BLOCK = 65536
AT = Path("/mnt")
PATIENCE_S = 120.0


def fill(name: str, uid: int, limit_bytes: int) -> int:
    """Write a file as a user, without a cache, until the volume is full; return how many bytes were accepted."""
    child = as_user(uid, lambda: append(name, limit_bytes))
    assert os.waitpid(child, 0)[1] == 0
    return (AT / name).stat().st_size


def append(name: str, limit_bytes: int) -> int:
    """Append to a file until the volume is full or the file has a size; return 0, or 1 if another error came."""
    file = os.open(AT / name, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o666)
    os.lseek(file, 0, os.SEEK_END)  # NFS has no O_APPEND with O_DIRECT
    block = mmap.mmap(-1, BLOCK)
    block.write(b"x" * BLOCK)
    try:
        while os.fstat(file).st_size < limit_bytes:
            os.write(file, block)
    except OSError as exc:
        return int(exc.errno not in FULL)
    finally:
        os.close(file)
    return 0


def remove(name: str, size: int) -> None:
    """Remove a file of this size, and wait until the server has freed its space: XFS frees it in the background."""
    (AT / name).unlink()
    until = time.monotonic() + PATIENCE_S
    while (space := os.statvfs(AT)).f_bfree * space.f_frsize < size // 2 and time.monotonic() < until:
        time.sleep(0.1)


def use(version: str, options: str, path: str, capacity: int) -> None:
    """Fill a volume as two users, check what was written first, and go on once its claim was raised."""
    kept = os.urandom(BLOCK)
    with mounted(path, options):
        space = os.statvfs(AT)
        print("size", version, space.f_blocks * space.f_frsize, flush=True)
        with (AT / "kept").open("wb") as file:
            file.write(kept)
            os.fsync(file.fileno())
        for uid in (1000, 0):
            print("accepted", version, uid, fill(f"file-{uid}", uid, 2 * capacity) + BLOCK, flush=True)
            remove(f"file-{uid}", capacity)
    with mounted(path, options):
        print("kept", version, (AT / "kept").read_bytes() == kept, flush=True)
        (AT / "marker").mkdir()
        fill("more", 1000, 2 * capacity)
        full = (AT / "more").stat().st_size
        (AT / "marker").rename(AT / "full")  # the admin raises the claim now
        until = time.monotonic() + PATIENCE_S
        while (AT / "more").stat().st_size == full and time.monotonic() < until:
            append("more", full + BLOCK)
            time.sleep(0.05)
        print("raised", version, (AT / "more").stat().st_size > full, flush=True)
        (AT / "more").unlink()


if __name__ == "__main__":
    for line in sys.stdin:
        words = line.split()
        use(words[0], words[1], words[2], int(words[3]))

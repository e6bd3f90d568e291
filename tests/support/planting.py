"""A directory with everything that a copy keeps, and what a copy of it must have."""

from __future__ import annotations

import os
import stat
from pathlib import Path

Found = tuple[dict[bytes, object], list[list[bytes]]]


def plant(root: Path, *, files: int = 40) -> None:
    """Fill a directory as a tenant would: files, holes, links, FIFOs, odd names, modes, owners and times."""
    root.mkdir(exist_ok=True)
    for number in range(files):
        (root / f"dir {number % 7}" / f"sub {number % 3}").mkdir(parents=True, exist_ok=True)
        (root / f"dir {number % 7}" / f"file {number}").write_bytes(os.urandom(number % 40 * 997))
    (root / "large").write_bytes(os.urandom(3_000_001))
    with (root / "sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(9 << 20)
    (root / "zero").write_bytes(b"")
    for number in range(3):
        (root / f"dir {number}" / "linked").hardlink_to(root / "large")
    (root / "dangling").symlink_to("../no where")
    (root / "to itself").symlink_to("to itself")
    os.mkfifo(root / "fifo", 0o622)
    os.link(root / "fifo", root / "dir 1" / "fifo too")
    (root / "empty").mkdir()
    with open(os.fsencode(root) + b"/bytes \xff\xfe\n", "wb") as odd:
        odd.write(b"odd")
    if os.geteuid() == 0:
        os.chown(root / "large", 1000, 1001)
        os.chown(root / "dangling", 1002, 1003, follow_symlinks=False)
    (root / "large").chmod(0o4755)
    (root / "dir 3").chmod(0o2570)
    for place, ns in ((root / "large", 10**18 + 7), (root / "dir 4", 10**18 + 11), (root, 10**18 + 13)):
        os.utime(place, ns=(10**18, ns))


def found_in(root: Path, *, symlink_times: bool = False) -> Found:
    """Return what a copy must keep, by path, and the groups of hard links.

    NFS-Ganesha does not set the times of symlinks.
    """
    found: dict[bytes, object] = {}
    linked: dict[int, list[bytes]] = {}
    for place, directories, names in os.walk(os.fsencode(root)):
        for name in (b".", *directories, *names):
            path = os.path.join(place, name)
            seen = os.lstat(path)
            data = b""
            if stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as file:
                    data = file.read()
            text = os.readlink(path) if stat.S_ISLNK(seen.st_mode) else b""
            key = os.path.relpath(path, os.fsencode(root))
            time = 0 if text and not symlink_times else seen.st_mtime_ns
            found[key] = (oct(seen.st_mode), seen.st_uid, seen.st_gid, time, data, text)
            if not stat.S_ISDIR(seen.st_mode):
                linked.setdefault(seen.st_ino, []).append(key)
    return found, sorted(sorted(paths) for paths in linked.values() if len(paths) > 1)

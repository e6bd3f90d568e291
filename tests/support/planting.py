"""A directory with everything that a copy keeps, and what a copy of it must have.

It needs only Python's library: it runs in virtual machines too.
"""

from __future__ import annotations

import hashlib
import os
import random
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


# ------------------------------------------------------------------------------------------- large trees

_BYTES = [bytes([each]) for each in range(1, 256) if each != ord("/")]
_MODES = (0o644, 0o600, 0o755, 0o444, 0o000, 0o4755, 0o2711, 0o1777)
_YEAR_2001_NS, _YEAR_2033_NS = 10**18, 2 * 10**18
_LARGE_BYTES, _SPARSE_BYTES, _CHUNK_BYTES = 24 << 20, 160 << 20, 1 << 20


def plant_many(root: Path, entries: int) -> None:
    """Fill a directory with so many mixed entries, the same ones each time, as root or as another user.

    Names have any bytes. There are files of all sizes, sparse ones, unreadable ones, hard links within the tree, FIFOs,
    symlinks, empty directories, and extended attributes where the file system has them.
    """
    some, top = random.Random(entries), os.fsencode(root)
    directories, files = [top], list[bytes]()
    os.mkdir(top)
    for number in range(entries - 3):
        parent = some.choice(directories)
        kind, path = some.choices(_KINDS, _WEIGHTS)[0], parent + b"/" + _name(some, number)
        if kind == "directory" and parent.count(b"/") - top.count(b"/") < _DEPTH:
            os.mkdir(path)
            if number % 3:  # the others stay empty
                directories.append(path)
        elif kind == "link" and files:
            os.link(some.choice(files[-20:]), path)
        else:
            kind = _plant(path, kind, some, number)
            files += [path] if kind == "file" else []
        if kind in ("file", "directory") and number % 5 == 0:
            _attribute(path, some)
    _plant_large(top, some)
    for place, names, others in os.walk(top, topdown=False):
        for name in (*names, *others, b"."):
            _dress(os.path.join(place, name), some)


def _plant(path: bytes, kind: str, some: random.Random, number: int) -> str:
    """Create an entry without a content of other entries; return what it is."""
    if kind == "symlink":
        os.symlink(some.choice([b"../no where", b"/etc/passwd", b"x" * 1000, _name(some, number)]), path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        kind = "file"
        with open(path, "wb") as file:
            size_bytes = some.choice([0, 1, 700, 4096, 5000, 70_000]) if number % 50 else 700_001
            file.write(some.randbytes(size_bytes))
            if number % 31 == 0:
                file.truncate(size_bytes + 300_000)
    return kind


def _plant_large(top: bytes, some: random.Random) -> None:
    """Create a large file, a sparse one, and one that is a hole."""
    with open(top + b"/large", "wb") as file:
        for number in range(_LARGE_BYTES // _CHUNK_BYTES):
            file.write(some.randbytes(_CHUNK_BYTES - number))
    with open(top + b"/sparse", "wb") as file:
        for begin in (5, 70 << 20, _SPARSE_BYTES - (9 << 20)):
            file.seek(begin)
            file.write(some.randbytes(3 << 20))
        file.truncate(_SPARSE_BYTES)
    with open(top + b"/hole", "wb") as file:
        file.truncate(_SPARSE_BYTES // 4)


_KINDS, _WEIGHTS = ("file", "directory", "symlink", "fifo", "link"), (63, 12, 10, 3, 12)
_DEPTH = 12


def _name(some: random.Random, number: int) -> bytes:
    """Return a name that no other entry has, also for a server that folds names; some are as long as names can be."""
    unique = b"%d " % number
    rest = some.choice([8, 30, 255 - len(unique)]) if number % 7 == 0 else 8
    return unique + b"".join(some.choices(_BYTES, k=rest))


def _attribute(path: bytes, some: random.Random) -> None:
    try:
        for name in (b"user.comment", b"user.\xff odd"):
            os.setxattr(path, name, some.randbytes(some.choice([0, 10, 500])), follow_symlinks=False)
    except OSError:
        pass  # the file system has none


def _dress(path: bytes, some: random.Random) -> None:
    """Give an entry an owner, a mode and times."""
    is_link, is_directory = os.path.islink(path), os.path.isdir(path) and not os.path.islink(path)
    if os.geteuid() == 0:
        os.chown(
            path, some.choice([0, 1000, 65534, 2**31 + 5]), some.choice([0, 1001, 2**31 + 7]), follow_symlinks=False
        )
    if not is_link:
        mode = some.choice(_MODES)
        os.chmod(path, mode if os.geteuid() == 0 else mode | (0o700 if is_directory else 0o400))
    times = some.randrange(_YEAR_2001_NS, _YEAR_2033_NS), some.randrange(_YEAR_2001_NS, _YEAR_2033_NS)
    os.utime(path, ns=times, follow_symlinks=False)


def differences(one: Path, other: Path, *, symlink_times: bool, attributes: bool) -> list[str]:
    """Return how a copy differs from its source, by path; the first is how many entries the source has."""
    seen = [_facts(os.fsencode(root), symlink_times=symlink_times, attributes=attributes) for root in (one, other)]
    found = [
        f"{path!r}: {seen[0].get(path)} was copied as {seen[1].get(path)}"
        for path in sorted(seen[0].keys() | seen[1].keys())
        if seen[0].get(path) != seen[1].get(path)
    ]
    used = [
        sum(os.stat(os.fsencode(root) + b"/" + name).st_blocks for name in (b"sparse", b"hole"))
        for root in (one, other)
    ]
    if used[1] * 512 > used[0] * 512 + (8 << 20):
        found.append(f"files with holes take {used[1]} blocks instead of {used[0]}")
    return [f"{len(seen[0])} entries", *found]


def _facts(root: bytes, *, symlink_times: bool, attributes: bool) -> dict[bytes, tuple[object, ...]]:
    """Return all that a copy keeps, by path; of several hard links the first path stands for the file."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    for place, directories, names in os.walk(root):
        directories.sort()
        for name in (b".", *directories, *sorted(names)):
            path = os.path.join(place, name)
            key, seen = os.path.relpath(path, root), os.lstat(path)
            text, digest = b"", ""
            extra: tuple[tuple[str, bytes], ...] = ()
            if stat.S_ISLNK(seen.st_mode):
                text = os.readlink(path)
            elif stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha1").hexdigest()
            if attributes and (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
                extra = tuple(sorted((each, os.getxattr(path, each)) for each in os.listxattr(path)))
            time = seen.st_mtime_ns if symlink_times or not text else 0
            size = 0 if stat.S_ISDIR(seen.st_mode) else seen.st_size
            names_of = key if stat.S_ISDIR(seen.st_mode) else first.setdefault(seen.st_ino, key)
            found[key] = (oct(seen.st_mode), seen.st_uid, seen.st_gid, time, size, text, digest, names_of, extra)
    return found

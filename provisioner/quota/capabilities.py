"""The rights of the agent's process: what it has, what it keeps, and which user it becomes.

Setting limits and reading usage takes CAP_SYS_ADMIN, setting project ids CAP_FOWNER, and reaching directories of others
CAP_DAC_READ_SEARCH, all in the initial user namespace. Everything else is dropped. The agent becomes the owner of the
ledger, as root without further rights cannot write into a ledger that belongs to another user.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

KEPT = {"CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3, "CAP_SYS_ADMIN": 21}
"""What the agent needs, and keeps."""
_SETGID, _SETUID = 6, 7

_VERSION_3 = 0x2008_0522
_KEEPCAPS, _BOUNDING_DROP, _NO_NEW_PRIVS = 8, 24, 38
_LAST_POSSIBLE = 63

_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> tuple[str, ...]:
    """Return the capabilities that the agent needs and the process does not have."""
    effective = _effective()
    return tuple(name for name, bit in KEPT.items() if not effective >> bit & 1)


def is_in_user_namespace() -> bool:
    """Return True if the process is in a user namespace of its own, where capabilities do not reach file systems."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


def become(uid: int, gid: int) -> bool:
    """Become a user and keep the three capabilities; return False if the process has no right to.

    Drops everything else, for good.
    """
    may_change = _effective() >> _SETUID & _effective() >> _SETGID & 1
    is_user = (os.geteuid(), os.getegid()) == (uid, gid)
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    for bit in range(_LAST_POSSIBLE + 1):
        if bit not in KEPT.values():
            _libc.prctl(_BOUNDING_DROP, bit, 0, 0, 0)  # fails for numbers that the kernel does not know
    if may_change and not is_user:
        _libc.prctl(_KEEPCAPS, 1, 0, 0, 0)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _keep(bit for bit in KEPT.values() if _permitted() >> bit & 1)
    return bool(is_user or may_change)


def _sets() -> tuple[int, ...]:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data):
        return (0,) * 6
    return struct.unpack("=6I", data.raw)


def _effective() -> int:
    low, _, _, high, _, _ = _sets()
    return low | high << 32


def _permitted() -> int:
    _, low, _, _, high, _ = _sets()
    return low | high << 32


def _keep(bits: Iterable[int]) -> None:
    kept = sum(1 << bit for bit in bits)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", kept, kept, 0, 0, 0, 0))
    if _libc.capset(header, data):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

"""XDR, the external data representation (RFC 4506): encoders are functions, the decoder is a cursor.

All values are big-endian and padded to four bytes. The cursor never reads past its end, and compares each length with
the number of bytes left before it uses the length. So no reply can make the client use more memory than the reply.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

from provisioner.core.errors import ProvisionerError

T = TypeVar("T")

_UINT = struct.Struct(">I")
_HYPER = struct.Struct(">Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class MalformedReply(ProvisionerError):
    """The reply has bytes that the protocol does not allow; the text says what was expected."""


def uint(value: int) -> bytes:
    """Unsigned integer, 4 bytes (section 4.2).

    Booleans (4.4) and enumerations (4.3) look the same.
    """
    return _UINT.pack(value)


def hyper(value: int) -> bytes:
    """Unsigned hyper integer, 8 bytes (section 4.5)."""
    return _HYPER.pack(value)


def opaque(data: bytes) -> bytes:
    """Variable-length opaque data (section 4.10)."""
    return _UINT.pack(len(data)) + data + _PADDING[len(data) % 4]


def string(text: str) -> bytes:
    """String (section 4.11).

    Surrogate escapes become the original bytes of a name that is not UTF-8.
    """
    return opaque(text.encode("utf-8", "surrogateescape"))


def array(items: Iterable[bytes]) -> bytes:
    """Variable-length array of encoded items (section 4.13)."""
    encoded = tuple(items)
    return _UINT.pack(len(encoded)) + b"".join(encoded)


def optional(item: bytes | None) -> bytes:
    """Optional data: a boolean, then the item if present (section 4.19)."""
    return _UINT.pack(0) if item is None else _UINT.pack(1) + item


class Cursor:
    """A position in received bytes that advances with each decoded value.

    Every method raises MalformedReply.
    """

    __slots__ = ("_data", "_end", "_offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self._offset = offset
        self._end = len(data)

    @property
    def left(self) -> int:
        """Number of bytes that are not decoded yet."""
        return self._end - self._offset

    def uint(self) -> int:
        """Unsigned integer (section 4.2)."""
        offset = self._offset
        if offset + 4 > self._end:
            raise MalformedReply("the reply ends where a number was expected")
        self._offset = offset + 4
        return int.from_bytes(self._data[offset : offset + 4], "big")

    def hyper(self) -> int:
        """Unsigned hyper integer (section 4.5)."""
        offset = self._offset
        if offset + 8 > self._end:
            raise MalformedReply("the reply ends where a long number was expected")
        self._offset = offset + 8
        return int.from_bytes(self._data[offset : offset + 8], "big")

    def unpack(self, numbers: struct.Struct) -> tuple[int, ...]:
        """A structure of numbers only (section 4.14), decoded in one step."""
        offset = self._offset
        if offset + numbers.size > self._end:
            raise MalformedReply("the reply ends where a structure was expected")
        self._offset = offset + numbers.size
        return numbers.unpack_from(self._data, offset)

    def bool(self) -> bool:
        """Boolean (section 4.4)."""
        value = self.uint()
        if value > 1:
            raise MalformedReply(f"{value} where a boolean was expected")
        return value == 1

    def fixed(self, size_bytes: int) -> bytes:
        """Fixed-length opaque data (section 4.9)."""
        offset = self._offset
        padded = size_bytes + (-size_bytes & 3)
        if offset + padded > self._end:
            raise MalformedReply(f"the reply ends where {size_bytes} bytes were expected")
        self._offset = offset + padded
        return self._data[offset : offset + size_bytes]

    def opaque(self, limit_bytes: int) -> bytes:
        """Variable-length opaque data of at most `limit_bytes` (section 4.10)."""
        size_bytes = self.uint()
        if size_bytes > limit_bytes:
            raise MalformedReply(f"{size_bytes} bytes where at most {limit_bytes} are allowed")
        return self.fixed(size_bytes)

    def string(self, limit_bytes: int) -> str:
        """String (section 4.11); bytes that are not UTF-8 become surrogate escapes."""
        return self.opaque(limit_bytes).decode("utf-8", "surrogateescape")

    def array(self, item: Callable[[Cursor], T], limit: int | None = None) -> list[T]:
        """Variable-length array (section 4.13) of at most `limit` items, each of at least four bytes."""
        count = self.uint()
        if limit is not None and count > limit:
            raise MalformedReply(f"an array of {count} items where at most {limit} are allowed")
        if count * 4 > self.left:
            raise MalformedReply(f"an array of {count} items in {self.left} bytes")
        return [item(self) for _ in range(count)]

    def optional(self, item: Callable[[Cursor], T]) -> T | None:
        """Optional data (section 4.19)."""
        return item(self) if self.bool() else None

    def skip(self) -> None:
        """Ignore the remaining bytes."""
        self._offset = self._end

    def finish(self) -> None:
        """Check that no bytes are left; more bytes mean that the reply has another format."""
        if self.left:
            raise MalformedReply(f"{self.left} bytes more than expected")


def void(_: Cursor) -> None:
    """Void (section 4.16): a result without bytes."""

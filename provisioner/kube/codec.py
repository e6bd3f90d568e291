"""Decodes the API server's JSON to values of core.objects: objects, pages of lists, lines of watches.

Bytes in, values out. One pass of msgspec decodes what a Go server writes. JSON that a Go server does not write, such as
null for a field, takes a second, slower pass. An item that neither pass can read must not end the loop over all other
items: it is left out of a page, becomes a bookmark in a watch (so that the next watch resumes after it), and is passed
to `on_undecodable`. Code that is about to destroy something reads the object live first: there, an unreadable object is
an error, not an absence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import msgspec
from msgspec import Raw, Struct, field

from provisioner.core.objects import (
    Claim,
    Metadata,
    Namespace,
    Snapshot,
    SnapshotClass,
    SnapshotContent,
    StorageClass,
    Volume,
)
from provisioner.kube import errors
from provisioner.ports.cluster import Item, Page, WatchEvent

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the whole object: unused here, and often the largest part of an object in the cache."""

LINE_BYTES = 64 << 20
"""Limit for one line of a watch; etcd stores no object above 1.5 MiB by default."""

OnUndecodable = Callable[[str, str, str], None]
"""Called for an item that is left out, with the kind, `namespace/name` as far as known, and the error."""


class _ListMetadata(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_token: str = field(default="", name="continue")


class _List(Struct, Generic[Item]):
    kind: str = ""
    metadata: _ListMetadata = _ListMetadata()
    items: list[Item] = []


class _RawList(Struct):
    kind: str = ""
    metadata: _ListMetadata = _ListMetadata()
    items: list[Raw] | None = None


class _Line(Struct, Generic[Item]):
    type: str
    object: Item


class _RawLine(Struct):
    type: str
    object: Raw


class _NamedMetadata(Struct, rename="camel"):
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None


class _Named(Struct):
    metadata: _NamedMetadata | None = None


_raw_list_decoder = msgspec.json.Decoder(_RawList)
_raw_line_decoder = msgspec.json.Decoder(_RawLine)
_named_decoder = msgspec.json.Decoder(_Named)

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError)
"""What decoding raises for unexpected bytes."""


@dataclass(frozen=True, slots=True)
class Codec(Generic[Item]):
    """Decodes one kind. All methods raise DECODE_ERRORS for bytes that are not an answer of the API server."""

    kind: str
    """The kind of one object; a list has this plus `List`."""
    item_type: type[Item]
    _item: msgspec.json.Decoder[Item]
    _list: msgspec.json.Decoder[_List[Item]]
    _line: msgspec.json.Decoder[_Line[Item]]

    def item(self, body: bytes) -> Item:
        """Decode one object."""
        try:
            item = self._item.decode(body)
        except msgspec.ValidationError:
            item = msgspec.convert(_without_nulls(msgspec.json.decode(body)), self.item_type)
        if not item.metadata.name or not item.metadata.uid:
            raise msgspec.ValidationError(f"not a {self.kind}")
        return _lean(item)

    def page(self, body: bytes, on_undecodable: OnUndecodable) -> Page[Item]:
        """Decode one page of a list."""
        answer: _List[Item] | _RawList
        try:
            answer = decoded = self._list.decode(body)
            items = [_lean(item) for item in decoded.items]
        except msgspec.ValidationError:
            answer = raw = _raw_list_decoder.decode(body)
            items = [item for data in raw.items or () if (item := self._item_or_none(data, on_undecodable))]
        # JSON from another program must not pass for a cluster without claims.
        if answer.kind != f"{self.kind}List" or not answer.metadata.resource_version:
            raise msgspec.ValidationError(f"not a {self.kind}List")
        return Page(items, answer.metadata.resource_version, answer.metadata.continue_token)

    def event(self, call: str, line: bytes, on_undecodable: OnUndecodable) -> WatchEvent[Item] | None:
        """Decode one line of a watch; None for a line to ignore. Raises the port's error for a line of type ERROR."""
        try:
            decoded = self._line.decode(line)
        except msgspec.ValidationError:
            return self._odd_event(call, line, on_undecodable)
        match decoded.type:
            case "ADDED" | "MODIFIED" | "DELETED" as type_:
                item = _lean(decoded.object)
                return WatchEvent(type_, item.metadata.resource_version, item)
            case "BOOKMARK":
                return WatchEvent("BOOKMARK", decoded.object.metadata.resource_version)
        return self._odd_event(call, line, on_undecodable)

    def _odd_event(self, call: str, line: bytes, on_undecodable: OnUndecodable) -> WatchEvent[Item] | None:
        """Decode a line that is an error, has nulls, cannot be read, or has an unknown type."""
        raw = _raw_line_decoder.decode(line)
        match raw.type:
            case "ERROR":
                raise errors.watch_failed(call, bytes(raw.object))
            case "ADDED" | "MODIFIED" | "DELETED" as type_:
                item = self._item_or_none(raw.object, on_undecodable)
                if item is not None:
                    return WatchEvent(type_, item.metadata.resource_version, item)
        _, version = _key_and_version(raw.object)
        return WatchEvent("BOOKMARK", version) if version else None

    def _item_or_none(self, data: Raw, on_undecodable: OnUndecodable) -> Item | None:
        try:
            return self.item(bytes(data))
        except DECODE_ERRORS as exc:
            on_undecodable(self.kind, _key_and_version(data)[0], str(exc))
            return None


def _lean(item: Item) -> Item:
    """Drop kubectl's copy of the item. Only here can the dict be changed: no other code has the item yet."""
    item.metadata.annotations.pop(LAST_APPLIED, None)
    return item


def _key_and_version(data: Raw) -> tuple[str, str]:
    """Return `namespace/name` and resourceVersion of an unreadable object, as far as these can be read."""
    try:
        metadata = _named_decoder.decode(bytes(data)).metadata or _NamedMetadata()
    except DECODE_ERRORS:
        return "?", ""
    name = metadata.name or "?"
    return (f"{metadata.namespace}/{name}" if metadata.namespace else name), metadata.resource_version or ""


def _without_nulls(value: object) -> object:
    """Drop all fields that are null: to Go, null and a missing field are the same."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


CLAIMS: Codec[Claim] = Codec(
    "PersistentVolumeClaim",
    Claim,
    msgspec.json.Decoder(Claim),
    msgspec.json.Decoder(_List[Claim]),
    msgspec.json.Decoder(_Line[Claim]),
)
VOLUMES: Codec[Volume] = Codec(
    "PersistentVolume",
    Volume,
    msgspec.json.Decoder(Volume),
    msgspec.json.Decoder(_List[Volume]),
    msgspec.json.Decoder(_Line[Volume]),
)
CLASSES: Codec[StorageClass] = Codec(
    "StorageClass",
    StorageClass,
    msgspec.json.Decoder(StorageClass),
    msgspec.json.Decoder(_List[StorageClass]),
    msgspec.json.Decoder(_Line[StorageClass]),
)
SNAPSHOTS: Codec[Snapshot] = Codec(
    "VolumeSnapshot",
    Snapshot,
    msgspec.json.Decoder(Snapshot),
    msgspec.json.Decoder(_List[Snapshot]),
    msgspec.json.Decoder(_Line[Snapshot]),
)
SNAPSHOT_CONTENTS: Codec[SnapshotContent] = Codec(
    "VolumeSnapshotContent",
    SnapshotContent,
    msgspec.json.Decoder(SnapshotContent),
    msgspec.json.Decoder(_List[SnapshotContent]),
    msgspec.json.Decoder(_Line[SnapshotContent]),
)
SNAPSHOT_CLASSES: Codec[SnapshotClass] = Codec(
    "VolumeSnapshotClass",
    SnapshotClass,
    msgspec.json.Decoder(SnapshotClass),
    msgspec.json.Decoder(_List[SnapshotClass]),
    msgspec.json.Decoder(_Line[SnapshotClass]),
)


class _Owned(Struct):
    metadata: Metadata


_owned_decoder = msgspec.json.Decoder(_Owned)


def uid(body: bytes) -> str:
    """Decode the uid of any object. Raises msgspec.DecodeError."""
    return _owned_decoder.decode(body).metadata.uid


_namespace_decoder = msgspec.json.Decoder(Namespace)


def namespace(body: bytes) -> Namespace:
    """Decode a namespace. Raises msgspec.DecodeError."""
    found = _namespace_decoder.decode(body)
    if not found.metadata.name or not found.metadata.uid:
        raise msgspec.ValidationError("not a Namespace")
    return found


class LineSplitter:
    """Splits a stream of chunks into lines of any length; reads each byte once."""

    def __init__(self) -> None:
        """Start with nothing pending."""
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without line ends and blank lines.

        Raises msgspec.DecodeError for a line without end: it must not fill the memory.
        """
        first, *others = chunk.split(b"\n")
        self._parts.append(first)
        self._size += len(first)
        if self._size > LINE_BYTES:
            raise msgspec.DecodeError(f"a line is longer than {LINE_BYTES >> 20} MiB")
        if not others:
            return []
        lines = [b"".join(self._parts), *others[:-1]]
        self._parts = [others[-1]]
        self._size = len(others[-1])
        return [line for line in lines if line.strip()]

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return any(part.strip() for part in self._parts)

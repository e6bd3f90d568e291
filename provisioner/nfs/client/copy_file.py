"""Copies of files within the server: by CLONE, which shares the stored data, or by COPY (RFC 7862).

How does a retry tell an interrupted copy from a file of another user?

1. Create the target exclusively, with a mode that denies reading (UNFINISHED_MODE), and with an access time that is
   computed from the source: the mark.
2. Copy the content, and wait until it is on stable storage.
3. Set mode, owner and times of the source, which removes the mark.

A target with that mode and that access time is an unfinished copy of this source, and a retry starts it again. Every
other entry at the target is refused with PathExists. This includes a finished copy, which a retry finds if only the
very last reply was lost.

The copy keeps no file open, so an interruption leaves nothing on the server except the target, which the caller
continues or removes. Two copies to one target must not run at the same time. Access control lists and extended
attributes are not copied, and COPY can fill the holes of a sparse file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from provisioner.nfs.client import errors
from provisioner.nfs.client.deadline import Deadline
from provisioner.nfs.client.interface import Place
from provisioner.nfs.client.nfs4 import Client4, lookup_ops
from provisioner.nfs.protocol import nfs4, nfs4_files
from provisioner.nfs.protocol.nfs4 import Status
from provisioner.nfs.protocol.nfs4_files import FileAttributes, Time
from provisioner.ports.tree import Cause, ExportError, PathExists, PathMissing

UNFINISHED_MODE = 0o200
COPY_BYTES = 16 << 20
"""Size of one COPY: small enough that a slow server still replies within the time limit."""

How = Literal["clone", "copy"]

# The server does not support CLONE, or not between these two files. COPY can still work.
_NO_CLONE = frozenset({Status.NFS4ERR_NOTSUPP, Status.NFS4ERR_XDEV, Status.NFS4ERR_OP_ILLEGAL})
_NO_COPY = frozenset({Status.NFS4ERR_NOTSUPP, Status.NFS4ERR_OP_ILLEGAL, Status.NFS4ERR_OFFLOAD_NO_REQS})
# OPEN: the name has an entry of some type.
_TAKEN = frozenset({Status.NFS4ERR_EXIST, Status.NFS4ERR_SYMLINK, Status.NFS4ERR_ISDIR, Status.NFS4ERR_WRONG_TYPE})


@dataclass(frozen=True, slots=True)
class _File:
    """A file by its handle, with its place for messages."""

    place: Place
    handle: bytes
    attributes: FileAttributes


async def clone(client: Client4, deadline: Deadline, source: Place, target: Place) -> How:
    """Clone a file: content at one point in time, mode, owner and times.

    Returns how it was done.

    If the server cannot share the stored data, this falls back to `copy`, which promises less and raises the same.
    """
    original, made = await _begin(client, deadline, source, target)
    how: How = "clone" if await _share(client, deadline, original, made) else "copy"
    if how == "copy":
        await _copy_content(client, deadline, original, made)
    await _finish(client, deadline, original, made)
    return how


async def copy(client: Client4, deadline: Deadline, source: Place, target: Place) -> None:
    """Copy a file: content, mode, owner and times.

    The copy can miss data that is written while it runs.

    After an interruption, another call starts the copy again. Raises PathMissing; Cause.SYMLINK if the source is not a
    regular file or a parent is not a directory; PathExists for any entry at the target that is not an unfinished copy
    of this source; Cause.OTHER with a hint if the server does not support copying.
    """
    original, made = await _begin(client, deadline, source, target)
    await _copy_content(client, deadline, original, made)
    await _finish(client, deadline, original, made)


async def _begin(client: Client4, deadline: Deadline, source: Place, target: Place) -> tuple[_File, _File]:
    """Return the source, and an empty target that carries the mark of the source."""
    if client.version != "4.2":
        raise errors.copy_unsupported(client.server, str(target), f"this is NFS {client.version}")
    original = await _find(client, deadline, source)
    if not original.attributes.regular:
        raise ExportError(Cause.SYMLINK, f"{source}: not a regular file")
    target = await client.resolve_prefix(deadline, target)
    attributes = nfs4_files.settable(mode=UNFINISHED_MODE, accessed=_mark(original.handle))
    getfh, getattr_ = nfs4.getfh(), nfs4_files.getattr()
    to_parent, create = lookup_ops(target.parent), nfs4_files.create(target.name, attributes)
    answer = await client.run(deadline, *to_parent, create, getfh, nfs4_files.close(), getattr_)
    if answer.status == Status.NFS4_OK:
        return original, _File(target, answer[getfh], answer[getattr_])
    if answer.completed == len(to_parent) and answer.status in _TAKEN:
        return original, await _begin_again(client, deadline, original, target)
    refusal = client.refusal(answer, target)
    raise PathMissing(str(target.parent)) if refusal.cause is Cause.NOT_FOUND else refusal


async def _begin_again(client: Client4, deadline: Deadline, original: _File, target: Place) -> _File:
    """Truncate an unfinished copy that an earlier attempt left at the target.

    Raises PathExists for any other entry.
    """
    found = await _find(client, deadline, target)
    seen = found.attributes
    unfinished = seen.regular and seen.mode == UNFINISHED_MODE and seen.accessed == _mark(original.handle)
    if not unfinished or found.handle == original.handle:
        raise PathExists(str(target))
    empty = nfs4.setattr(nfs4_files.settable(size_bytes=0))
    await client.complete(deadline, target, nfs4.putfh(found.handle), empty)
    return found


async def _share(client: Client4, deadline: Deadline, original: _File, made: _File) -> bool:
    """CLONE the content; return False if the server cannot clone these files."""
    between = _between(original, made)
    answer = await client.run(deadline, *between, nfs4_files.clone(), nfs4_files.commit())
    if answer.completed == len(between) and answer.status in _NO_CLONE:
        return False
    if answer.status != Status.NFS4_OK:
        raise client.refusal(answer, made.place)
    return True


async def _copy_content(client: Client4, deadline: Deadline, original: _File, made: _File) -> None:
    """COPY the whole file, then COMMIT; repeat both if the server restarted in between.

    A changed verifier shows the restart: the server has lost data that was not on stable storage (RFC 8881 section
    18.3.3).
    """
    while True:
        unstable = await _copy_bytes(client, deadline, original, made)
        commit = nfs4_files.commit()
        answer = await client.complete(deadline, made.place, nfs4.putfh(made.handle), commit)
        if unstable <= {answer[commit]}:
            return
        await deadline.pause(ExportError(Cause.NOT_YET, f"{made.place}: the server restarted while it copied"))


async def _copy_bytes(client: Client4, deadline: Deadline, original: _File, made: _File) -> set[bytes]:
    """COPY in portions.

    Returns the verifiers of data that the server has not yet written to stable storage.
    """
    unstable: set[bytes] = set()
    size_bytes, offset = original.attributes.size_bytes, 0
    between = _between(original, made)
    while offset < size_bytes:
        copy = nfs4_files.copy(offset, min(size_bytes - offset, COPY_BYTES))
        answer = await client.run(deadline, *between, copy)
        if answer.completed == len(between) and answer.status in _NO_COPY:
            raise errors.copy_unsupported(client.server, str(made.place), nfs4.status_name(answer.status))
        if answer.status != Status.NFS4_OK:
            raise client.refusal(answer, made.place)
        copied = answer[copy]
        if not copied.size_bytes:
            raise ExportError(Cause.OTHER, f"{original.place}: the file ends after {offset} bytes and had {size_bytes}")
        offset += copied.size_bytes
        if not copied.stable:
            unstable.add(copied.verifier)
    return unstable


async def _finish(client: Client4, deadline: Deadline, original: _File, made: _File) -> None:
    """Set owner, mode and times.

    The owner comes first, because changing it clears the set-user-ID bits (chown(2)). Mode and times come last, because
    they remove the mark.
    """
    wanted, seen = original.attributes, made.attributes
    operations: list[nfs4.Operation[object]] = [nfs4.putfh(made.handle)]
    if (wanted.owner, wanted.group) != (seen.owner, seen.group):
        operations.append(nfs4.setattr(nfs4_files.settable(owner=wanted.owner, group=wanted.group)))
    last = nfs4_files.settable(mode=wanted.mode, accessed=wanted.accessed, modified=wanted.modified)
    await client.complete(deadline, made.place, *operations, nfs4.setattr(last))


async def _find(client: Client4, deadline: Deadline, place: Place) -> _File:
    resolved = await client.resolve_prefix(deadline, place)
    getfh, getattr_ = nfs4.getfh(), nfs4_files.getattr()
    answer = await client.complete(deadline, resolved, *lookup_ops(resolved), getfh, getattr_)
    return _File(place, answer[getfh], answer[getattr_])


def _between(original: _File, made: _File) -> tuple[nfs4.Operation[object], ...]:
    """Return operations that make the source the saved file handle and the target the current one."""
    return nfs4.putfh(original.handle), nfs4.savefh(), nfs4.putfh(made.handle)


def _mark(handle: bytes) -> Time:
    """Return a time computed from a source: 31 bits of seconds and microseconds, which every server can store."""
    digest = hashlib.sha256(b"an unfinished copy of " + handle).digest()
    microseconds = int.from_bytes(digest[4:8], "big") % 10**6
    return Time(int.from_bytes(digest[:4], "big") >> 1, microseconds * 1000)

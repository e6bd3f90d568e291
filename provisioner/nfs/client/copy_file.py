"""Copies of files that the server makes by itself: by CLONE, which shares what is stored, or by COPY (RFC 7862).

How is a copy that was interrupted told from somebody else's file? A target is made exclusively, with a mode by which
nobody may read it, and with a time of access that is computed from the source. Mode, owner and times of the source come
last, once the content is stable: whoever finds a target with that mode and that time has found an unfinished copy of
this source, and begins it again. Everything else that is there is refused, a finished copy too: after the loss of the
very last answer that is what another attempt finds. Nothing is kept open meanwhile: an interruption leaves nothing at
the server but the target, which is the caller's to go on with or to remove. Two attempts at one target must not run at
the same time. Access control lists and extended attributes stay behind, and COPY may fill the holes of a sparse file.
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
"""How much one COPY is asked for: a server that takes long over it must not seem to be dead."""

How = Literal["clone", "copy"]

# CLONE: not here, or not between these two. COPY may do it all the same.
_NO_CLONE = frozenset({Status.NFS4ERR_NOTSUPP, Status.NFS4ERR_XDEV, Status.NFS4ERR_OP_ILLEGAL})
_NO_COPY = frozenset({Status.NFS4ERR_NOTSUPP, Status.NFS4ERR_OP_ILLEGAL, Status.NFS4ERR_OFFLOAD_NO_REQS})
# OPEN: something is there under that name, whatever it is.
_TAKEN = frozenset({Status.NFS4ERR_EXIST, Status.NFS4ERR_SYMLINK, Status.NFS4ERR_ISDIR, Status.NFS4ERR_WRONG_TYPE})


@dataclass(frozen=True, slots=True)
class _File:
    """A file by its handle, with its name for messages."""

    place: Place
    handle: bytes
    attributes: FileAttributes


async def clone(client: Client4, deadline: Deadline, source: Place, target: Place) -> How:
    """Make the target a clone of a file: content at one moment, mode, owner and times. Says which way it went.

    Where the server cannot share what is stored, by `copy`, which promises less, and raises the same.
    """
    original, made = await _begin(client, deadline, source, target)
    how: How = "clone" if await _share(client, deadline, original, made) else "copy"
    if how == "copy":
        await _copy_content(client, deadline, original, made)
    await _finish(client, deadline, original, made)
    return how


async def copy(client: Client4, deadline: Deadline, source: Place, target: Place) -> None:
    """Make the target a copy of a file: content, mode, owner and times. What is written meanwhile may be in it or not.

    The whole copy is one attempt; after an interruption another one begins it again. Raises PathMissing,
    Cause.SYMLINK where the source is no regular file or a parent no directory, PathExists for what is at the target and
    is not an unfinished copy of this source, Cause.OTHER with a hint where the server does not copy by itself.
    """
    original, made = await _begin(client, deadline, source, target)
    await _copy_content(client, deadline, original, made)
    await _finish(client, deadline, original, made)


async def _begin(client: Client4, deadline: Deadline, source: Place, target: Place) -> tuple[_File, _File]:
    """The source, and an empty target that carries its mark."""
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
    """The unfinished copy that an earlier attempt has left at the target, emptied. Raises PathExists for all else."""
    found = await _find(client, deadline, target)
    seen = found.attributes
    ours = seen.regular and seen.mode == UNFINISHED_MODE and seen.accessed == _mark(original.handle)
    if not ours or found.handle == original.handle:
        raise PathExists(str(target))
    empty = nfs4.setattr(nfs4_files.settable(size_bytes=0))
    await client.complete(deadline, target, nfs4.putfh(found.handle), empty)
    return found


async def _share(client: Client4, deadline: Deadline, original: _File, made: _File) -> bool:
    """CLONE; False where the server cannot do it for these files."""
    between = _between(original, made)
    answer = await client.run(deadline, *between, nfs4_files.clone(), nfs4_files.commit())
    if answer.completed == len(between) and answer.status in _NO_CLONE:
        return False
    if answer.status != Status.NFS4_OK:
        raise client.refusal(answer, made.place)
    return True


async def _copy_content(client: Client4, deadline: Deadline, original: _File, made: _File) -> None:
    """COPY until all is there, and COMMIT; once more when the server has restarted in between."""
    while True:
        unstable = await _copy_bytes(client, deadline, original, made)
        commit = nfs4_files.commit()
        answer = await client.complete(deadline, made.place, nfs4.putfh(made.handle), commit)
        if unstable <= {answer[commit]}:
            return
        await deadline.pause(ExportError(Cause.NOT_YET, f"{made.place}: the server restarted while it copied"))


async def _copy_bytes(client: Client4, deadline: Deadline, original: _File, made: _File) -> set[bytes]:
    """COPY as often as it takes. Gives the verifiers of what the server has not written to stable storage."""
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
            raise ExportError(Cause.OTHER, f"{original.place}: it ends after {offset} bytes and had {size_bytes}")
        offset += copied.size_bytes
        if not copied.stable:
            unstable.add(copied.verifier)
    return unstable


async def _finish(client: Client4, deadline: Deadline, original: _File, made: _File) -> None:
    """Owner first, since a change of it takes set-user-ID bits away (chown(2)); what takes the mark away last."""
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
    """The source becomes the saved file handle and the target the current one."""
    return nfs4.putfh(original.handle), nfs4.savefh(), nfs4.putfh(made.handle)


def _mark(handle: bytes) -> Time:
    """A time that stands for a source: of 31 bits of seconds, and microseconds, which every server keeps."""
    digest = hashlib.sha256(b"an unfinished copy of " + handle).digest()
    microseconds = int.from_bytes(digest[4:8], "big") % 10**6
    return Time(int.from_bytes(digest[:4], "big") >> 1, microseconds * 1000)

"""ports.refusals: cause and advice for every error of errno, NFSv3, NFSv4 and MOUNT in each call."""

from __future__ import annotations

import errno
import os
from typing import get_args

import pytest

from provisioner.nfs.protocol import nfs3, nfs4
from provisioner.nfs.protocol.mount3 import MountRefused, MountStatus
from provisioner.ports.refusals import Call, inside, refusal
from provisioner.ports.tree import Cause, ExportError, ModeRefused, NotEmpty, PathExists, PathMissing

NAMES = sorted(
    {
        *errno.errorcode.values(),
        *(status.name for status in nfs3.Status),
        *(status.name for status in nfs4.Status if status),
        *(str(MountRefused(status)) for status in MountStatus),
        "nfsstat3 99",
        "nfsstat4 99",
    }
)
CALLS: tuple[Call, ...] = get_args(Call)


def refused(name: str, call: Call, *, uid: int = 0) -> ExportError:
    return refusal(name, call, "a/b", uid=uid, gid=uid)


@pytest.mark.parametrize("call", CALLS)
def test_every_error_of_every_call_has_detail_and_advice(call: Call) -> None:
    """Every error has the path as detail, and advice; an unknown one has the error's name and the call."""
    for name in NAMES:
        error = refused(name, call)
        assert "a/b" in error.detail
        assert error.advice
        assert "{" not in error.advice.replace("${", "")
        if error.cause is Cause.OTHER and type(error) is ExportError:
            assert f"{call}: {name}" in error.event_message("nas:/x")


# One name for all three ways to an export; the call; the cause; words of the advice.
RULES: list[tuple[str, Call, Cause, str]] = [
    ("PERM", "chmod", Cause.DENIED, 'mode: "0"'),
    ("ACCES", "chmod", Cause.DENIED, 'mode: "0"'),
    ("NOTSUPP", "chmod", Cause.DENIED, 'mode: "0"'),
    ("INVAL", "chmod", Cause.DENIED, 'mode: "0"'),
    ("PERM", "chown", Cause.DENIED, "leave uid and gid out"),
    ("NOTSUPP", "chown", Cause.DENIED, "leave uid and gid out"),
    ("INVAL", "chown", Cause.DENIED, "leave uid and gid out"),
    ("ACCES", "mkdir", Cause.DENIED, "no_root_squash"),
    ("ACCES", "symlink", Cause.DENIED, "name a directory below it"),
    ("PERM", "symlink", Cause.UNSUPPORTED, "symbolic links"),
    ("NOTSUPP", "symlink", Cause.UNSUPPORTED, "symbolic links"),
    ("NOTSUPP", "rename", Cause.UNSUPPORTED, "file system"),
    ("PERM", "remove", Cause.DENIED, "immutable"),
    ("PERM", "rename", Cause.DENIED, "immutable"),
    ("XDEV", "rename", Cause.NESTED, "on-delete=retain"),
    ("MLINK", "mkdir", Cause.OTHER, "${.PVC.namespace}"),
    ("INVAL", "mkdir", Cause.OTHER, "name"),
    ("NAMETOOLONG", "mkdir", Cause.NAME_TOO_LONG, "shorter"),
    ("NOSPC", "mkdir", Cause.NO_SPACE, "space"),
    ("DQUOT", "symlink", Cause.QUOTA, "quota"),
    ("ROFS", "mkdir", Cause.READ_ONLY, "rw"),
    ("STALE", "lookup", Cause.STALE, "exports"),
    ("NOTDIR", "lookup", Cause.SYMLINK, "directories"),
    ("NODEV", "readdir", Cause.OTHER, "disk"),
]


@pytest.mark.parametrize(("key", "call", "cause", "words"), RULES)
def test_all_drivers_share_one_table(key: str, call: Call, cause: Cause, words: str) -> None:
    """One table holds for mounted exports and all NFS versions, and the advice fits the call that failed."""
    names = {f"E{key}" if key != "NOTSUPP" else "EOPNOTSUPP", f"NFS3ERR_{key}", f"NFS4ERR_{key}"}
    for name in names:
        error = refused(name, call)
        assert error.cause is cause, name
        assert words in error.advice, name
        assert isinstance(error, ModeRefused) is (call == "chmod")


def test_errors_of_one_protocol_only() -> None:
    """Errors that only errno or one NFS version has are known as well."""
    assert refused("EBUSY", "rename").cause is Cause.NESTED
    assert refused("NFS4ERR_FILE_OPEN", "rename").cause is Cause.NESTED
    assert refused("NFS4ERR_FILE_OPEN", "remove").cause is Cause.NOT_YET
    assert isinstance(refused("NFS4ERR_ATTRNOTSUPP", "chmod"), ModeRefused)
    assert "numeric owners" in refused("NFS4ERR_BADOWNER", "chown").advice
    assert refused("NFS4ERR_WRONGSEC", "lookup").cause is Cause.KERBEROS
    assert refused("EKEYEXPIRED", "mkdir").cause is Cause.KERBEROS
    assert "open files" in refused("EMFILE", "open").advice
    assert "mounted on the directory" in refused("NFS3ERR_JUKEBOX", "rename").advice


def test_another_user_is_named_by_number() -> None:
    """The advice for a user other than root names the user and the missing permission, and not root_squash."""
    assert refused("EACCES", "mkdir", uid=7).advice == "uid 7 and gid 7 need write permission there"
    assert refused("EACCES", "readdir", uid=7).advice == "uid 7 and gid 7 need read and search permission there"
    assert "uid 7" in refused("EPERM", "chown", uid=7).advice


@pytest.mark.parametrize(
    ("name", "call", "kind"),
    [
        ("ENOENT", "mkdir", PathMissing),
        ("NFS4ERR_NOENT", "rename", PathMissing),
        ("NFS3ERR_EXIST", "mkdir", PathExists),
        ("ENOTEMPTY", "rmdir", NotEmpty),
        ("EBUSY", "remove", NotEmpty),
    ],
)
def test_types_of_errors(name: str, call: Call, kind: type[ExportError]) -> None:
    """The errors that callers catch by type have their own types."""
    assert type(refused(name, call)) is kind


@pytest.mark.parametrize(("names", "cause"), [(("a", ".snapshot", "x"), Cause.DENIED), (("a", "x"), Cause.READ_ONLY)])
def test_a_snapshot_does_not_make_an_export_read_only(names: tuple[str, ...], cause: Cause) -> None:
    """A read-only entry that belongs to a snapshot does not make the export read-only."""
    error = inside(names, refused("EROFS", "remove"))
    assert error.cause is cause
    assert ("snapshots" in error.advice) is (cause is Cause.DENIED)
    denied = refused("EPERM", "remove")
    assert inside(names, denied) is denied


def test_the_detail_has_the_kernels_text() -> None:
    """The detail has the name of the error and, if the kernel knows the error, its text."""
    assert refused("NFS4ERR_XDEV", "rename").detail == f"a/b: rename: NFS4ERR_XDEV, {os.strerror(errno.EXDEV)}"
    assert refused("NFS4ERR_SERVERFAULT", "mkdir").detail == "a/b: mkdir: NFS4ERR_SERVERFAULT"

"""ports.errors: the same cause has the same words in an event and in `check`, for all drivers."""

from __future__ import annotations

import errno
import os

import pytest

from provisioner.mounted.errnos import translated
from provisioner.nfs.client import errors
from provisioner.nfs.protocol.nfs3 import Status as Status3
from provisioner.nfs.protocol.nfs4 import Status as Status4
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError


@pytest.mark.parametrize("cause", list(Cause), ids=lambda cause: cause.name)
def test_every_cause_has_advice(cause: Cause) -> None:
    """Every cause has advice, which is part of the event; a driver's hint replaces it."""
    error = ExportError(cause)
    assert error.advice
    assert error.event_message("nas:/x") == f"export nas:/x {cause.value}: {error.advice}"
    assert ExportError(cause, hint="do this").advice == "do this"


def test_an_unknown_error_has_the_servers_text() -> None:
    """An error without a specific cause is in the event as the server reported it, and only once."""
    error = ExportError(Cause.OTHER, "a/b: mkdir: NFS4ERR_IO", answer="mkdir: NFS4ERR_IO")
    assert "(mkdir: NFS4ERR_IO)" in error.event_message("nas:/x")
    assert "(a listing has no end)" in ExportError(Cause.OTHER, "a listing has no end").event_message("nas:/x")
    outputs = ExportError(Cause.OTHER, "it has no end", hint="it has no end: look at it").event_message("nas:/x")
    assert outputs.count("it has no end") == 1


@pytest.mark.parametrize(
    ("status3", "status4", "number"),
    [
        (Status3.NFS3ERR_ROFS, Status4.NFS4ERR_ROFS, errno.EROFS),
        (Status3.NFS3ERR_NOSPC, Status4.NFS4ERR_NOSPC, errno.ENOSPC),
        (Status3.NFS3ERR_DQUOT, Status4.NFS4ERR_DQUOT, errno.EDQUOT),
        (Status3.NFS3ERR_STALE, Status4.NFS4ERR_STALE, errno.ESTALE),
    ],
)
def test_all_drivers_report_the_same(status3: int, status4: int, number: int) -> None:
    """A full, read-only or stale export has the same text with all drivers and NFS versions."""
    outputs = {
        error.event_message("nas:/x")
        for error in (
            errors.refused3(status3, "one attempt", Credentials()),
            errors.refused4(status4, "another attempt", Credentials()),
            translated(OSError(number, os.strerror(number)), "a/b", "/"),
        )
    }
    assert len(outputs) == 1

"""Machine reasons of errors, for logs and metrics."""

from __future__ import annotations

import pytest

from provisioner.core import errors
from provisioner.core.errors import InvalidRecord, ProvisionerError
from provisioner.core.reasons import Reason
from provisioner.ledger.errors import AlreadyThere, ArchiveUnusable, PathTaken, UnreadableRecord
from provisioner.ports.tree import Cause, ExportError


def test_reasons_are_few_words() -> None:
    """An error is counted by the name of its type or of its cause, and never by its text."""
    assert InvalidRecord("of default/data").reason == "InvalidRecord"
    assert {ExportError(cause, "of default/data").reason for cause in (Cause.NO_SPACE, Cause.STALE)} == {
        "NoSpace",
        "Stale",
    }


@pytest.mark.parametrize(
    "kind",
    [
        errors.UnknownParameter,
        errors.InvalidParameter,
        errors.InvalidMountOption,
        errors.InvalidPath,
        errors.MissingLabel,
        errors.MissingAnnotation,
        errors.InvalidRecord,
        PathTaken,
        UnreadableRecord,
        AlreadyThere,
        ArchiveUnusable,
    ],
)
def test_reasons_of_refusals(kind: type[ProvisionerError]) -> None:
    """Every error that refuses a claim has one of the documented machine reasons."""
    assert kind("why").reason in set(Reason)

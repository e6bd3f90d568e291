"""What metrics say of an error."""

from __future__ import annotations

from provisioner.core.errors import InvalidRecord
from provisioner.ports.tree import Cause, ExportError


def test_reasons_are_few_words() -> None:
    """An error is counted under the name of its kind, or of its cause, and never under its text."""
    assert InvalidRecord("of default/data").reason == "InvalidRecord"
    assert {ExportError(cause, "of default/data").reason for cause in (Cause.NO_SPACE, Cause.STALE)} == {
        "NoSpace",
        "Stale",
    }

"""Looks at another export while one is being opened.

Errors on the way name the other export, not the one that is being opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.ports.tree import ExportError


@contextmanager
def look_at(other: str) -> Iterator[None]:
    """Raise the errors of this block as errors of export `other`, with the same cause."""
    try:
        yield
    except ExportError as exc:
        detail = f"export {other}: {exc.detail}"
        hint = f"the error is of export {other}, which must respond before this one can be used: {exc.advice}"
        raise ExportError(exc.cause, detail, hint=hint, answer=exc.answer) from exc

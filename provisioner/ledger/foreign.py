"""Looks at another export on the way to one: its errors name the other export, not the one that is being opened."""

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
        hint = f"that is export {other}, which must answer before this one can be used: {exc.advice}"
        raise ExportError(exc.cause, detail, hint=hint, answer=exc.answer) from exc

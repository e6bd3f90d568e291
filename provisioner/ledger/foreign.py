"""Looks at other exports that are in the way of one: what they meet is told as the other's, and not as that one's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.ports.tree import ExportError


@contextmanager
def look_at(other: str) -> Iterator[None]:
    """Errors within this are those of another export: they name it, and keep their cause."""
    try:
        yield
    except ExportError as exc:
        detail = f"export {other}: {exc.detail}"
        hint = f"that is export {other}, which has to be looked at before this one is used: {exc.advice}"
        raise ExportError(exc.cause, detail, hint=hint, answer=exc.answer) from exc

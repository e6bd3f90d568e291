"""Tells two names of one export from an export and its copy.

In both cases two exports show the same id. The id travels with a copy of the files, and so does everything else that
was written there. A fresh mark does not: it is created on the one export, and shows up on the other one only if both
are the same directory.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol, TypeVar

from provisioner.ledger import layout
from provisioner.ledger.foreign import look_at
from provisioner.ports.tree import Cause, ExportError, PathMissing, Tree


class Opened(Protocol):
    """An open export: `Export`, as far as this module needs it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def id(self) -> str: ...  # noqa: D102

    def marked(self, name: str) -> AbstractAsyncContextManager[None]: ...  # noqa: D102


Other = TypeVar("Other", bound=Opened)


async def find(tree: Tree, id: str, others: Iterable[Other]) -> Other | None:
    """Return the one of the others that is the export of this tree, or None.

    Raises Cause.COPY if one of them has the id and is another directory.
    """
    same = next((other for other in others if other.id == id), None)
    if same is None:
        return None
    mark = f"{layout.MARK}{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        # Only this step asks the other export: its errors are reported as that export's.
        with look_at(same.name):
            await stack.enter_async_context(same.marked(mark))
        try:
            await tree.read_symlink(layout.mark(mark))
        except PathMissing as exc:
            raise ExportError(Cause.COPY, f"the other export is {same.name}", hint=_HINT.format(same.name)) from exc
    return same


_HINT = (
    "use only one of this export and {}; to use both, find out which one is the copy and remove .provisioner from it:"
    " that one then gets a ledger of its own"
)

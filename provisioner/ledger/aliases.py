"""Whether two exports with one id are one directory under two names, or a directory and its copy.

The id travels with a copy of the files, and so does all else that is written there. What tells the two apart is a fresh
mark: made in the one, it is seen in the other only where both are the same directory.
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
    """An export that was opened: `Export`, as far as this module needs it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def id(self) -> str: ...  # noqa: D102

    def marked(self, name: str) -> AbstractAsyncContextManager[None]: ...  # noqa: D102


Other = TypeVar("Other", bound=Opened)


async def find(tree: Tree, id: str, others: Iterable[Other]) -> Other | None:
    """The one of the others that is the export of this tree, by its id. Raises Cause.COPY where it only has its id."""
    same = next((other for other in others if other.id == id), None)
    if same is None:
        return None
    mark = f"{layout.MARK}{uuid.uuid4().hex}"
    async with AsyncExitStack() as stack:
        with look_at(same.name):
            await stack.enter_async_context(same.marked(mark))
        try:
            await tree.read_symlink(layout.mark(mark))
        except PathMissing as exc:
            raise ExportError(Cause.COPY, f"of {same.name}", hint=_HINT.format(same.name)) from exc
    return same


_HINT = (
    "use only one of it and {}; to use both, make sure which one is the copy, and remove .provisioner from that one:"
    " it then gets a ledger of its own"
)

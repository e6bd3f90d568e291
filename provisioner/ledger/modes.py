"""Directories on servers that do not set modes, as many with NFSv4 ACLs.

Only a mode that a class names is required; a default mode is optional.
"""

from __future__ import annotations

from collections.abc import Awaitable

from provisioner.core.locations import RelPath
from provisioner.ports.tree import PARENT_MODE, ModeRefused, Ownership, Tree

PARENT = Ownership(mode=PARENT_MODE)
"""The default mode of the directories above a volume's own."""


async def make_directory(tree: Tree, path: RelPath, ownership: Ownership) -> str:
    """Create a directory as `Tree.make_directory` does.

    Returns the server's answer if it refused a default mode.
    """
    return await _tolerate_refusal(tree.make_directory(path, ownership), ownership)


async def set_access(tree: Tree, path: RelPath, ownership: Ownership) -> str:
    """Set owner and mode as `Tree.set_access` does.

    Returns the server's answer if it refused a default mode.
    """
    return await _tolerate_refusal(tree.set_access(path, ownership), ownership)


def tolerated(refusal: ModeRefused, ownership: Ownership) -> str:
    """Return the server's answer if it refused a default mode. Raises the refusal of a mode that a class names."""
    if ownership.mode_asked:
        raise refusal
    return refusal.answer


async def _tolerate_refusal(call: Awaitable[None], ownership: Ownership) -> str:
    try:
        await call
    except ModeRefused as exc:
        return tolerated(exc, ownership)
    return ""

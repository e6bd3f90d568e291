"""Directories on servers that do not set modes, as many with NFSv4 ACLs: a default mode is not insisted on."""

from __future__ import annotations

from collections.abc import Awaitable

from provisioner.core.locations import RelPath
from provisioner.ports.tree import ModeRefused, Ownership, Tree


async def make_directory(tree: Tree, path: RelPath, access: Ownership) -> str:
    """Make a directory as Tree.make_directory does. Return the server's answer where it refused a default mode."""
    return await _leniently(tree.make_directory(path, access), access)


async def set_access(tree: Tree, path: RelPath, access: Ownership) -> str:
    """Set owner and mode as Tree.set_access does. Return the server's answer where it refused a default mode."""
    return await _leniently(tree.set_access(path, access), access)


async def _leniently(call: Awaitable[None], access: Ownership) -> str:
    try:
        await call
    except ModeRefused as exc:
        if access.mode_asked:
            raise
        return exc.answer
    return ""

"""Follows the objects of one kind, for `--watch`: yields each object that changes, over broken watches too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from provisioner.commands.session import KINDS
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.ports.cluster import ApiUnavailable, Cluster, Expired

Item = TypeVar("Item", Claim, Volume, StorageClass)

_PAUSE_S = 1.0
"""Before the list after a gap: an API server that breaks each watch must not be asked without end."""


async def changes(cluster: Cluster, of: type[Item], version: str) -> AsyncIterator[tuple[Item, bool]]:
    """Yield each object that changes after a version, and whether it was deleted.

    After a gap in the watch, yields all objects. Raises ClusterError if the API server stays unreachable.
    """
    kind = KINDS[of]
    while True:
        try:
            async with aclosing(cluster.watch(kind, version)) as events:
                async for event in events:
                    version = event.version
                    if isinstance(event.item, of):
                        yield event.item, event.type == "DELETED"
        except (Expired, ApiUnavailable):
            await asyncio.sleep(_PAUSE_S)
            token = ""
            while True:
                page = await cluster.list(kind, continue_token=token)
                version, token = page.version, page.continue_token
                for item in page.items:
                    if isinstance(item, of):
                        yield item, False
                if not token:
                    break

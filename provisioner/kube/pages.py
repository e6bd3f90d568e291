"""All pages of a list as one, for commands that look once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from provisioner.ports import AnyItem, Cluster, Kind


async def everything(cluster: Cluster, kind: Kind) -> AsyncIterator[AnyItem]:
    """All objects of a kind. Raises ClusterError, Expired when reading them takes longer than the server waits."""
    token = ""
    while True:
        page = await cluster.list(kind, continue_token=token)
        for item in page.items:
            yield item
        token = page.continue_token
        if not token:
            return

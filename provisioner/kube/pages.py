"""All pages of a list as one, for commands that look once."""

from __future__ import annotations

from typing import TypeVar

from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.ports.cluster import Cluster, Kind

Item = TypeVar("Item", Claim, Volume, StorageClass)

_KINDS: dict[type, Kind] = {Claim: "claims", Volume: "volumes", StorageClass: "classes"}


async def everything(cluster: Cluster, of: type[Item]) -> list[Item]:
    """All objects of a type. Raises ClusterError, Expired when reading them takes longer than the server waits."""
    found: list[Item] = []
    token = ""
    while True:
        page = await cluster.list(_KINDS[of], continue_token=token)
        found += [item for item in page.items if isinstance(item, of)]
        token = page.continue_token
        if not token:
            return found

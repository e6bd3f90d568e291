"""The driver of the port `Cluster` on the real control plane, and volumes that are cleaned up."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from provisioner.kube.cluster import Limits, open_cluster
from provisioner.ports.cluster import Cluster
from testbed.api import Api
from testbed.cluster import ControlPlane

WATCH_S = 4
"""The API server sends a bookmark two seconds before it ends a watch."""


@pytest.fixture
def observed() -> Counter[tuple[str, str, int]]:
    """Counts how often each verb, resource and code was observed."""
    return Counter()


@pytest.fixture
async def cluster(control_plane: ControlPlane, observed: Counter[tuple[str, str, int]]) -> AsyncIterator[Cluster]:
    """The cluster as the administrator, with short watches."""

    def observe(verb: str, resource: str, code: int) -> None:
        observed[verb, resource, code] += 1

    async with open_cluster(
        str(control_plane.kubeconfig),
        provisioner="cluster.local/nfs-provisioner",
        identity="replica-1",
        observe=observe,
        limits=Limits(watch_s=(WATCH_S, WATCH_S)),
    ) as opened:
        yield opened


@pytest.fixture
def prefix(cluster_api: Api) -> Iterator[str]:
    """The name prefix and the label `test` of a test's volumes; they are deleted at the end."""
    prefix = f"v-{secrets.token_hex(4)}"
    yield prefix
    cluster_api.delete(f"/api/v1/persistentvolumes?labelSelector=test={prefix}")

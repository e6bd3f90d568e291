"""Classes with a quota over the daemon's own NFS client, with the real quota agent beside the server."""

from __future__ import annotations

import pytest

from testbed.ganesha import Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import DirectExport
from tests.support.loopback_agent import LoopbackAgent

pytestmark = pytest.mark.timeout(120)

NFS_VERSIONS = ("3", "4.1")
MI = 1 << 20


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """One server with an export per version of NFS."""
    return serve(*(f"/quotas-{version}" for version in NFS_VERSIONS), cached_s=0)


@pytest.mark.parametrize("version", NFS_VERSIONS)
def test_sizes_are_enforced(direct: DirectStorage, server: Ganesha, version: str) -> None:
    """A claim and its expansion wait for the agent, which sees the records that the daemon writes over NFS."""
    export = DirectExport(server, f"/quotas-{version}", version)
    class_name = direct.class_on(export, parameters={"quota": "required"}, allowVolumeExpansion=True)
    direct.claim(class_name)
    direct.failure("data", "no quota agent has reported on export")
    with LoopbackAgent(export.root) as agent:
        volume = direct.bound()
        directory = export.root / volume["spec"]["nfs"]["path"].removeprefix(f"{export.path}/")
        assert agent.limit_of(directory) == MI
        direct.api.patch(f"{direct.claims}/data", {"spec": {"resources": {"requests": {"storage": "3Mi"}}}})
        direct.eventually(lambda: direct.get_claim()["status"]["capacity"]["storage"] == "3Mi", "the claim has grown")
        assert agent.limit_of(directory) == 3 * MI

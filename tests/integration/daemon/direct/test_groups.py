"""A group for every volume over the daemon's own NFS client, on a real server."""

from __future__ import annotations

import os

import pytest

from testbed.ganesha import Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import DirectExport

pytestmark = pytest.mark.timeout(120)

NFS_VERSIONS = ("3", "4.1")
GID = "pv.beta.kubernetes.io/gid"


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """One server with an export per version of NFS."""
    return serve(*(f"/groups-{version}" for version in NFS_VERSIONS))


@pytest.mark.parametrize("version", NFS_VERSIONS)
def test_ids_are_unique_and_used_again(direct: DirectStorage, server: Ganesha, version: str) -> None:
    """Each volume gets an id, its directory has that group and mode 2770, and a purged volume's id is free again."""
    if os.geteuid() != 0:
        pytest.skip("this machine cannot chown: the tests do not run as root")
    export = DirectExport(server, f"/groups-{version}", version)
    class_name = direct.class_on(export, parameters={"gid": "auto", "gidRange": "64000-64001"})
    volumes = {}
    for name in ("one", "two"):
        direct.claim(class_name, name)
        volumes[name] = direct.bound(name)
    gids = {name: int(volume["metadata"]["annotations"][GID]) for name, volume in volumes.items()}
    assert sorted(gids.values()) == [64000, 64001]
    for name, volume in volumes.items():
        found = (export.root / volume["spec"]["nfs"]["path"].removeprefix(f"{export.path}/")).stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o2770, 0, gids[name])
    direct.claim(class_name, "three")
    direct.failure("three", "no group id of gidRange 64000-64001 is free")
    direct.delete_claim("one")
    assert int(direct.bound("three")["metadata"]["annotations"][GID]) == gids["one"]

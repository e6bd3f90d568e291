"""A group for every volume over the daemon's own NFS client, on a real server."""

from __future__ import annotations

import os
from functools import partial

import pytest

from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError, Ownership
from testbed.api import Object
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


def has_access(export: DirectExport, volumes: dict[str, Object], gids: dict[str, int]) -> None:
    """Check that a caller of any uid with a volume's group writes to this volume, and to no other one."""
    paths = {name: volume["spec"]["nfs"]["path"].removeprefix(f"{export.path}/") for name, volume in volumes.items()}

    async def write(tree: DirectTree, name: str) -> None:
        await tree.make_directory((paths[name], "data"), Ownership(mode=None))

    for name, other in (("one", "two"), ("two", "one")):
        pod = Credentials(uid=1234, gid=1234, groups=(gids[name],))
        export.tenant(partial(write, name=name), pod)
        with pytest.raises(ExportError) as refused:
            export.tenant(partial(write, name=other), pod)
        assert refused.value.cause is Cause.DENIED
        assert (export.root / paths[name] / "data").stat().st_gid == gids[name]


@pytest.mark.parametrize("version", NFS_VERSIONS)
def test_ids_are_unique_and_used_again(direct: DirectStorage, server: Ganesha, version: str) -> None:
    """Each volume gets an id by which pods write to it and to no other one; a purged volume's id is free again."""
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
    has_access(export, volumes, gids)
    direct.claim(class_name, "three")
    direct.failure("three", "no group id of gidRange 64000-64001 is free")
    direct.delete_claim("one")
    assert int(direct.bound("three")["metadata"]["annotations"][GID]) == gids["one"]

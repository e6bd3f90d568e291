"""An NFS server that two classes name differently has one ledger in memory."""

from __future__ import annotations

import os

import pytest

from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import DirectExport
from tests.support.disk import disk

pytestmark = pytest.mark.timeout(180)


def test_a_crash_on_a_server_with_two_names(direct: DirectStorage, serve: MakeServer) -> None:
    """After a crash bound claims keep their directories, whether their classes write 127.0.0.1 or localhost."""
    server = serve("/two-names")
    export = DirectExport(server, "/two-names")
    made = {}
    for host in ("127.0.0.1", "localhost"):
        class_name = direct.class_on(export, parameters={"server": host})
        direct.claim(class_name, host.replace(".", "-"))
        made[host] = direct.bound(host.replace(".", "-"))
    direct.daemon.kill()
    for volume in made.values():
        name = volume["metadata"]["name"]
        os.rename(export.root / ".provisioner/volumes" / name, export.root / ".provisioner/pending" / name)
    direct.daemon.start()
    direct.daemon.wait_ready()
    names = {volume["metadata"]["name"] for volume in made.values()}
    direct.eventually(lambda: set(os.listdir(export.root / ".provisioner/volumes")) == names, "the records are settled")
    assert {host: volume["spec"]["nfs"]["server"] for host, volume in made.items()} == {host: host for host in made}
    kept = {volume["metadata"]["annotations"]["nfs-provisioner/directory"] for volume in made.values()}
    assert disk(export.root).directories == kept

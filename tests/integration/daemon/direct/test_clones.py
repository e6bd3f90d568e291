"""Clones over the daemon's own NFS client, on a real server, in each version of NFS and between two.

The tenant works on the server's disk, in directories that the server has not seen before: it caches the others.
"""

from __future__ import annotations

from typing import Any

import pytest

from testbed.ganesha import Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import DirectExport
from tests.support.planting import found_in, plant

pytestmark = pytest.mark.timeout(180)

NFS_VERSIONS = ("3", "4.0", "4.1", "4.2")
SOURCE: dict[str, Any] = {"dataSource": {"kind": "PersistentVolumeClaim", "name": "data"}}


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """One server with an export per version of NFS."""
    return serve(*(f"/clones-{version}" for version in NFS_VERSIONS))


@pytest.mark.parametrize("version", NFS_VERSIONS)
def test_a_clone(direct: DirectStorage, server: Ganesha, version: str) -> None:
    """A clone has all of its source's data."""
    export = DirectExport(server, f"/clones-{version}", version)
    class_name = direct.class_on(export)
    direct.claim(class_name)
    source = direct.bound()
    plant(export.directory(source) / "data")
    direct.claim(class_name, "clone", **SOURCE)
    clone = direct.bound("clone")
    assert found_in(export.directory(clone) / "data") == found_in(export.directory(source) / "data")


@pytest.mark.parametrize(("one", "other"), [("3", "4.1"), ("4.2", "3")])
def test_between_exports(direct: DirectStorage, server: Ganesha, one: str, other: str) -> None:
    """A clone on another export, in another version, has all of its source's data."""
    here, there = (DirectExport(server, f"/clones-{version}", version) for version in (one, other))
    direct.claim(direct.class_on(here))
    source = direct.bound()
    plant(here.directory(source) / "data")
    direct.claim(direct.class_on(there), "clone", **SOURCE)
    clone = direct.bound("clone")
    assert found_in(there.directory(clone) / "data") == found_in(here.directory(source) / "data")


def test_a_server_that_is_away(direct: DirectStorage, serve: MakeServer) -> None:
    """A copy survives that its server is away for a while: it goes on, and the clone is whole."""
    own = serve("/away")
    export = DirectExport(own, "/away", "4.1")
    class_name = direct.class_on(export)
    direct.claim(class_name)
    source = direct.bound()
    plant(export.directory(source) / "data", files=3000)
    direct.claim(class_name, "clone", **SOURCE)
    copies = export.root / ".provisioner" / "copies"
    direct.eventually(lambda: [*copies.glob("*/tree/*")], "the copy has begun")
    own.kill()
    own.start()
    clone = direct.bound("clone", timeout_s=120)
    assert found_in(export.directory(clone) / "data") == found_in(export.directory(source) / "data")

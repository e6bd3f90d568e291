"""Archives on an export that the daemon reaches itself: kept, expired, listed and restored as on a mounted one."""

from __future__ import annotations

import json

import pytest

from testbed.cluster import ControlPlane
from testbed.ganesha import Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.archiving import RESTORE, archive, command, names, records, text_of
from tests.support.direct_export import DirectExport

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """One server with an export per version of NFS."""
    return serve("/archives-3", "/archives-4.2")


@pytest.fixture(params=[pytest.param("3", marks=pytest.mark.thorough), "4.2"])
def export(server: Ganesha, request: pytest.FixtureRequest) -> DirectExport:
    """The export whose classes name one version."""
    return DirectExport(server, f"/archives-{request.param}", request.param)


def test_archives(control_plane: ControlPlane, direct: DirectStorage, export: DirectExport) -> None:
    """One archive expires, one is restored by annotation and one by command, each with its own bytes."""
    kept = direct.class_on(export, "archive")
    short = direct.class_on(export, "archive", parameters={"archiveRetention": "2s"})
    expired = archive(direct, export.root, short, "short")
    one, two = (archive(direct, export.root, kept, name, text=name) for name in ("one", "two"))
    direct.eventually(lambda: names(export.root) == {one, two}, "the first has expired", timeout_s=60)
    provisioner = direct.daemon.provisioner_name
    done = command(control_plane, "archives", provisioner, f"--namespace={direct.namespace}", "-o", "json")
    assert {each["archive"] for each in json.loads(done.stdout)} == {one, two} == set(records(export.root)), expired
    direct.claim(kept, "by-annotation", metadata={"annotations": {RESTORE: one}})
    assert text_of(direct, export.root, "by-annotation") == "one"
    done = command(control_plane, "restore", provisioner, two, f"--claim={direct.namespace}/by-command")
    assert done.returncode == 0, done.stderr
    assert text_of(direct, export.root, "by-command") == "two"
    assert names(export.root) == set()
    direct.eventually(lambda: not records(export.root), "the archives' records are deleted")

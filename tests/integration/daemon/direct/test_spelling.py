"""An export has one name, by which tables, JSON, metrics, log lines and events can be joined."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from testbed.cluster import ControlPlane
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.integration.daemon.direct.exported import DirectExport
from tests.support.archiving import command

pytestmark = pytest.mark.timeout(180)


def test_one_name_everywhere(direct: DirectStorage, serve: MakeServer, control_plane: ControlPlane) -> None:
    """An export at another port than NFS's own is called the same by all that name it."""
    export = DirectExport(serve("/named"), "/named")
    class_name = direct.class_on(export, "archive", parameters={"minFree": "1"})
    direct.claim(class_name, "kept")
    direct.bound("kept")
    direct.claim(class_name, "gone")
    volume = direct.bound("gone")
    direct.delete_claim("gone")
    direct.volume_gone(volume["metadata"]["name"])
    direct.claim(direct.class_on(export, parameters={"minFree": "100%"}), "refused")
    daemon = direct.daemon

    def told(name: str, *flags: str) -> Any:
        return json.loads(command(control_plane, name, daemon.provisioner_name, "-o", "json", *flags).stdout)

    spelled = f"{export.location} port {export.server.port}"
    mine = re.compile(rf'export="({re.escape(export.location)}[^"]*)"')
    assert {each["export"] for each in told("volumes", "-n", direct.namespace)} == {spelled}
    assert {each["export"] for each in told("archives", "-n", direct.namespace)} == {spelled}
    found = told("check", "--no-leader-election")["findings"]
    assert {each["name"] for each in found if each["kind"] == "export" and "/named" in each["name"]} == {spelled}
    assert set(mine.findall(daemon.http("/metrics"))) == {spelled}
    named = {line["export"] for line in daemon.logged() if "/named" in str(line.get("export"))}
    assert named == {spelled}
    assert f"export {spelled} has less free" in direct.failure("refused", "minFree")

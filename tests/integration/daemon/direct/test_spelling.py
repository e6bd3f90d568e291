"""An export has one name in tables, JSON, metrics, log lines and events."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from testbed.cluster import ControlPlane
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.archiving import command
from tests.support.direct_export import DirectExport

pytestmark = pytest.mark.timeout(180)


def test_one_name_everywhere(direct: DirectStorage, serve: MakeServer, control_plane: ControlPlane) -> None:
    """Commands, metrics, log and events write an export on another port in the same way."""
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

    def listed(name: str, *flags: str) -> Any:
        return json.loads(command(control_plane, name, daemon.provisioner_name, "-o", "json", *flags).stdout)

    spelled = f"{export.location} port {export.server.port}"
    mine = re.compile(rf'export="({re.escape(export.location)}[^"]*)"')
    assert {each["export"] for each in listed("volumes", "-n", direct.namespace)} == {spelled}
    assert {each["export"] for each in listed("archives", "-n", direct.namespace)} == {spelled}
    found = listed("check", "--no-leader-election")["findings"]
    assert {each["name"] for each in found if each["kind"] == "export" and "/named" in each["name"]} == {spelled}
    assert set(mine.findall(daemon.http("/metrics"))) == {spelled}
    named = {line["export"] for line in daemon.logged() if "/named" in str(line.get("export"))}
    assert named == {spelled}
    assert f"export {spelled} has less free" in direct.failure("refused", "minFree")

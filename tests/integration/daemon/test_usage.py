"""What a daemon on a real control plane does with the answers of a quota agent: metrics, events, growth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import ServedStorage, Storage
from tests.support.written_answers import WrittenAnswers

pytestmark = pytest.mark.timeout(420)

MI = 1 << 20
LOOK_S = 75.0
"""The daemon looks every 30 s."""
GROWS = {"quota": "preferred", "autoGrow": "20%", "autoGrowLimit": "13Mi"}


@pytest.fixture
def export(export_directory: Path) -> Exported:
    """An export of the test's own."""
    return Exported.new(export_directory)


@pytest.fixture
def own(storage: Storage, daemon: Daemons, export: Exported, namespace: str) -> Iterator[ServedStorage]:
    """Classes and claims on that export, with a daemon of the test's own that serves metrics of single volumes."""
    served = ServedStorage(storage.api, namespace, daemon=start(daemon, export), export=export)
    served.eventually(lambda: (export.root / LEDGER / "export").is_symlink(), "the ledger is there")
    yield served
    served.remove_volumes()
    served.remove_classes()


@pytest.fixture
def agent(own: ServedStorage) -> WrittenAnswers:
    """The stand-in for an agent, after the ledger is there."""
    return WrittenAnswers(own.export.root)


def start(daemon: Daemons, export: Exported, name: str | None = None) -> Daemon:
    """Start a daemon that serves the export."""
    default = {"NFS_SERVER": export.server, "NFS_PATH": export.path}
    flags = ("--no-leader-election", "--volume-metrics", export.flag)
    return daemon(*flags, provisioner_name=name, environment=default)


def gauge(daemon: Daemon, name: str, labels: str) -> float | None:
    """Return the value of a metric whose labels contain this text."""
    found = re.search(
        rf"^nfs_provisioner_{name}\{{[^}}]*{re.escape(labels)}[^}}]*\}} (\S+)$", daemon.http("/metrics"), re.M
    )
    return float(found.group(1)) if found else None


def run(control_plane: ControlPlane, served: ServedStorage, command: str, *flags: str) -> Any:
    """Return what a command prints as JSON."""
    words = [sys.executable, "-m", "provisioner", command, f"--kubeconfig={control_plane.kubeconfig}", "-o", "json"]
    flags = (f"--provisioner-name={served.provisioner}", served.export.flag, *flags)
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    done = subprocess.run([*words, *flags], capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def requests(served: ServedStorage, size: str, name: str = "data") -> None:
    """Wait until a claim requests and has this size."""

    def has() -> bool:
        claim: Object = served.get_claim(name)
        sizes = claim["spec"]["resources"]["requests"]["storage"], claim["status"]["capacity"]["storage"]
        return sizes == (size, size)

    served.eventually(has, f"the claim {name} has grown to {size}", timeout_s=LOOK_S)


def test_a_volume_that_fills_up(
    control_plane: ControlPlane, own: ServedStorage, agent: WrittenAnswers, daemon: Daemons
) -> None:
    """Usage and limit are in metrics and in `volumes`; the claim gets each event once, also over a restart."""
    own.claim(own.own_class({"quota": "preferred"}), size="10Mi")
    volume = own.bound()
    agent.fill(volume, 90, limit_bytes=10 * MI)
    event = own.event("VolumeNearlyFull", timeout_s=LOOK_S)
    assert event["type"] == "Warning"
    assert event["message"].startswith("the volume uses at least 85 % of its limit of 10Mi: expand the claim")
    of_claim = f'namespace="{own.namespace}",persistentvolumeclaim="data"'
    assert gauge(own.daemon, "volume_used_bytes", of_claim) == 9 * MI
    assert gauge(own.daemon, "volume_limit_bytes", of_claim) == 10 * MI
    assert gauge(own.daemon, "volumes_nearly_full", f'{own.export.location}",percent="85"') == 1
    age = gauge(own.daemon, "quota_heartbeat_age_seconds", own.export.location)
    assert age is not None
    assert age < LOOK_S + 30
    (row,) = run(control_plane, own, "volumes", "-n", own.namespace)
    assert (row["used_bytes"], row["limit_bytes"], row["limit_reason"]) == (9 * MI, 10 * MI, "")

    own.daemon.kill()
    agent.fill(volume, 100, limit_bytes=10 * MI)
    again = start(daemon, own.export, own.provisioner)
    own.event("VolumeFull", timeout_s=LOOK_S)
    again.kill()
    agent.beat()
    last = start(daemon, own.export, own.provisioner)
    own.eventually(lambda: gauge(last, "volume_used_bytes", of_claim) == 10 * MI, "a look", timeout_s=LOOK_S)
    own.eventually(lambda: last.logged("volume_filling"), "the level of the last hour is seen again")
    reasons = [(each["reason"], each["count"]) for each in own.events() if each["reason"].startswith("Volume")]
    assert sorted(reasons) == [("VolumeFull", 1), ("VolumeNearlyFull", 1)]
    own.delete_claim()
    own.volume_gone(volume["metadata"]["name"])
    own.eventually(lambda: gauge(last, "volume_used_bytes", of_claim) is None, "the series has ended")


def test_a_claim_grows(own: ServedStorage, agent: WrittenAnswers) -> None:
    """A claim grows once per size in force, up to the limit of its class, with an event for each step."""
    own.claim(own.own_class(GROWS, allowVolumeExpansion=True), size="10Mi")
    volume = own.bound()
    agent.fill(volume, 86, limit_bytes=10 * MI)
    requests(own, "12Mi")
    agent.fill(volume, 99, limit_bytes=10 * MI)  # the agent has not seen the new size yet
    own.event("VolumeNearlyFull", timeout_s=LOOK_S)
    requests(own, "12Mi")
    agent.fill(volume, 90, limit_bytes=12 * MI)
    requests(own, "13Mi")
    messages = {event["message"] for event in own.events(reason="AutoGrow")}
    assert messages == {
        "requested 12Mi instead of 10Mi: the volume uses at least 85 % of its limit",
        "requested 13Mi instead of 12Mi: the volume uses at least 85 % of its limit",
    }
    assert own.get_volume(volume["metadata"]["name"])["spec"]["capacity"] == {"storage": "13Mi"}


def test_a_claim_grows_within_its_resource_quota(own: ServedStorage, agent: WrittenAnswers) -> None:
    """A ResourceQuota stops the growth: one event says so, and the claim stays as it is."""
    own.claim(own.own_class(GROWS, allowVolumeExpansion=True), size="10Mi")
    volume = own.bound()
    quotas = f"/api/v1/namespaces/{own.namespace}/resourcequotas"
    hard = {"requests.storage": "11Mi"}
    own.api.post(quotas, {"metadata": {"name": "storage"}, "spec": {"hard": hard}})
    own.api.patch(f"{quotas}/storage/status", {"status": {"hard": hard, "used": {"requests.storage": "10Mi"}}})
    agent.fill(volume, 90, limit_bytes=10 * MI)
    event = own.event("AutoGrowFailed", timeout_s=LOOK_S)
    assert event["type"] == "Warning"
    assert "requesting 12Mi instead of 10Mi was refused" in event["message"]
    assert "exceeded quota: storage" in event["message"]
    own.event("VolumeNearlyFull")
    agent.fill(volume, 96, limit_bytes=10 * MI)
    own.eventually(lambda: len(own.events(reason="VolumeNearlyFull")) == 2, "the next level", timeout_s=LOOK_S)
    (event,) = own.events(reason="AutoGrowFailed")
    assert event["count"] == 1
    assert own.get_claim()["spec"]["resources"]["requests"] == {"storage": "10Mi"}


def test_check_reports_the_agent(control_plane: ControlPlane, own: ServedStorage, agent: WrittenAnswers) -> None:
    """`check` says that the agent is missing, alive, silent, or on a file system that does not hold root."""

    def found() -> list[Object]:
        report = run(control_plane, own, "check", "--no-leader-election")
        return [each for each in report["findings"] if each["kind"] == "quota agent"]

    assert found() == []
    own.own_class({"quota": "required"} | own.export.parameters)
    (missing,) = found()
    assert not missing["ok"]
    assert "none has reported" in missing["result"]
    agent.beat(limited=2, volumes=3)
    alive, neighbours = found()
    assert (alive["ok"], alive["warning"], alive["name"]) == (True, False, own.export.location)
    assert "alive; version test, on xfs; 3 volumes with a quota, 2 in force" in alive["result"]
    assert "a full volume slows all clients" in neighbours["result"]
    agent.beat(filesystem="ext4", holds_root=False)
    assert "limits do not hold root" in found()[1]["result"]
    agent.beat(at="2026-01-01T00:00:00Z")
    (silent,) = found()
    assert not silent["ok"]
    assert "silent since 2026-01-01T00:00:00Z" in silent["result"]

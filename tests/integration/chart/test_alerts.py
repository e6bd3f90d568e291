"""The alerts, by Prometheus's rule tester: each fires when it should, and only then."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from testbed import prometheus
from tests.integration.chart.rendering import CHART, Renderer

pytestmark = pytest.mark.timeout(120)

OF = 'job="nfs-provisioner",namespace="nfs"'
EXPORT = f'export="nas:/x",{OF}'
HOURS = 6


@dataclass(frozen=True)
class Case:
    """Series with one sample per minute, and when an alert fires for them and when not."""

    alert: str
    series: dict[str, str]
    fires_at: str = ""
    quiet_at: str = ""


def steady(value: float) -> str:
    """Return a series of one value."""
    return f"{value}x{HOURS * 60}"


UP, SIZE, FREE = (f"nfs_provisioner_export_{name}{{{EXPORT}}}" for name in ("up", "size_bytes", "free_bytes"))
TRASH, REFUSED = (f"nfs_provisioner_trash_{name}{{{EXPORT}}}" for name in ("entries", "refused"))
LEADER = f'nfs_provisioner_leader{{pod="a",{OF}}}'
OTHER = f'nfs_provisioner_leader{{pod="b",{OF}}}'
UP_A, UP_B = (f'nfs_provisioner_export_up{{pod="{pod}",{EXPORT}}}' for pod in "ab")
FILES, FILES_FREE = (f"nfs_provisioner_export_{name}{{{EXPORT}}}" for name in ("files", "files_free"))
MEMORY, LIMIT = (
    f'{name}{{pod="a",{OF}}}' for name in ("process_resident_memory_bytes", "nfs_provisioner_memory_limit_bytes")
)
WAITING = f'nfs_provisioner_claims_pending{{class="nfs",pod="a",{OF}}}'
TYPO = f'nfs_provisioner_claims_failing{{class="nfs",reason="MissingLabel",pod="a",{OF}}}'
FAULT = f'nfs_provisioner_claims_failing{{class="nfs",reason="Unreachable",pod="a",{OF}}}'
MADE = f'controller_persistentvolumeclaim_provision_total{{class="nfs",pod="a",source="",{OF}}}'
TYPOS, FAULTS, KEPT = (
    f'nfs_provisioner_failures_total{{pod="a",reason="{reason}",work="{work}",{OF}}}'
    for work, reason in (("provision", "MissingLabel"), ("provision", "Unreachable"), ("delete", "RecordMismatch"))
)
PENDING = f'nfs_provisioner_claim_pending_seconds{{class="nfs",{OF}}}'
ODD = f'nfs_provisioner_unexpected_errors_total{{loop="sweep",pod="a",{OF}}}'
SECOND = f"nfs_provisioner_second_cluster{{{EXPORT}}}"
ORPHANS = f"nfs_provisioner_orphans{{{EXPORT}}}"
FILLED = "nfs_provisioner_volumes_nearly_full"
NEARLY, ALMOST = (f'{FILLED}{{percent="{percent}",{EXPORT}}}' for percent in (85, 95))
SILENCE = f"nfs_provisioner_quota_heartbeat_age_seconds{{{EXPORT}}}"
LACKING = f'nfs_provisioner_volumes_lacking{{lacks="directory-missing",{EXPORT}}}'

CASES = {
    "an export that is down": Case("ExportDown", {UP: steady(0)}, fires_at="6m", quiet_at="4m"),
    "an export that is up": Case("ExportDown", {UP: steady(1)}, quiet_at="5h"),
    "an export that was down for a moment": Case("ExportDown", {UP: "1 0 0 1x60"}, quiet_at="30m"),
    "an export that only one replica misses": Case("ExportDown", {UP_A: steady(0), UP_B: steady(1)}, quiet_at="5h"),
    "a node's problem": Case("ExportDownForReplica", {UP_A: steady(0), UP_B: steady(1)}, fires_at="11m", quiet_at="9m"),
    "the server's problem": Case("ExportDownForReplica", {UP_A: steady(0), UP_B: steady(0)}, quiet_at="5h"),
    "a claim that waits": Case(
        "ClaimsPending", {PENDING: "0+60x360", WAITING: steady(1)}, fires_at="20m", quiet_at="14m"
    ),
    "no claim that waits": Case("ClaimsPending", {PENDING: "0+60x5 _x100", WAITING: "1x5 _x100"}, quiet_at="60m"),
    "a claim that waits for a server": Case(
        "ClaimsPending", {PENDING: "0+60x360", WAITING: steady(1), FAULT: steady(1)}, fires_at="20m"
    ),
    "a claim with a typo": Case(
        "ClaimsPending", {PENDING: "0+60x360", WAITING: steady(1), TYPO: steady(1)}, quiet_at="5h"
    ),
    "a claim that waits beside a typo": Case(
        "ClaimsPending", {PENDING: "0+60x360", WAITING: steady(2), TYPO: steady(1)}, fires_at="20m"
    ),
    "a typo": Case("ClaimsRefused", {TYPO: steady(1)}, fires_at="61m", quiet_at="50m"),
    "no typo": Case("ClaimsRefused", {FAULT: steady(1)}, quiet_at="5h"),
    "nothing but failures": Case("FailureRate", {FAULTS: "0+5x360"}, fires_at="40m", quiet_at="14m"),
    "more failures than volumes": Case("FailureRate", {FAULTS: "0+30x360", MADE: "0+10x360"}, fires_at="40m"),
    "more volumes than failures": Case("FailureRate", {FAULTS: "0+10x360", MADE: "0+30x360"}, quiet_at="5h"),
    "nothing but typos": Case("FailureRate", {TYPOS: "0+30x360"}, quiet_at="5h"),
    "volumes that stay": Case(
        "VolumesNotReclaimed", {KEPT: "0 0 1+0x4 2+0x4 " + "3+1x300"}, fires_at="50m", quiet_at="20m"
    ),
    "a reclaim that failed once": Case("VolumesNotReclaimed", {KEPT: "0x5 1x360"}, quiet_at="40m"),
    "an export without inodes": Case(
        "ExportInodesNearlyUsed", {FILES: steady(1000), FILES_FREE: steady(60)}, fires_at="16m", quiet_at="10m"
    ),
    "an export with inodes": Case(
        "ExportInodesNearlyUsed", {FILES: steady(1000), FILES_FREE: steady(80)}, quiet_at="5h"
    ),
    "a leak": Case("MemoryNearLimit", {MEMORY: steady(95), LIMIT: steady(100)}, fires_at="16m", quiet_at="10m"),
    "enough memory": Case("MemoryNearLimit", {MEMORY: steady(80), LIMIT: steady(100)}, quiet_at="5h"),
    "no limit of memory": Case("MemoryNearLimit", {MEMORY: steady(95), LIMIT: steady(0)}, quiet_at="5h"),
    "two clusters with one id": Case("SecondCluster", {SECOND: "0 1x60"}, fires_at="1m"),
    "one cluster": Case("SecondCluster", {SECOND: steady(0)}, quiet_at="5h"),
    "an orphan": Case("Orphans", {ORPHANS: steady(1)}, fires_at="61m", quiet_at="50m"),
    "errors without end": Case("UnexpectedErrors", {ODD: "0x5 0+1x360"}, fires_at="30m", quiet_at="14m"),
    "one unexpected error": Case("UnexpectedErrors", {ODD: "0x5 1x360"}, quiet_at="30m"),
    "no orphan": Case("Orphans", {ORPHANS: steady(0)}, quiet_at="5h"),
    "a volume without a directory": Case("VolumesLacking", {LACKING: steady(1)}, fires_at="6m", quiet_at="4m"),
    "whole volumes": Case("VolumesLacking", {LACKING: steady(0)}, quiet_at="5h"),
    "two replicas and no leader": Case("NoLeader", {LEADER: steady(0), OTHER: steady(0)}, fires_at="6m", quiet_at="4m"),
    "nothing that runs": Case("NoLeader", {'up{job="other"}': steady(1)}, fires_at="6m"),
    "a leader": Case("NoLeader", {LEADER: steady(0), OTHER: steady(1)}, quiet_at="5h"),
    "a change of leader": Case("NoLeader", {LEADER: "1x10 0x60", OTHER: "0x12 1x60"}, quiet_at="30m"),
    "trash that grows": Case("TrashGrowing", {TRASH: "1+3x360"}, fires_at="3h", quiet_at="30m"),
    "trash that is purged": Case("TrashGrowing", {TRASH: "1000-2x360"}, quiet_at="5h"),
    "trash that comes and goes": Case("TrashGrowing", {TRASH: " ".join(["0 5 3"] * 100)}, quiet_at="4h"),
    "trash that cannot be removed": Case("TrashRefused", {REFUSED: steady(2)}, fires_at="31m", quiet_at="20m"),
    "trash that can": Case("TrashRefused", {REFUSED: steady(0)}, quiet_at="5h"),
    "a full export": Case("ExportNearlyFull", {SIZE: steady(1000), FREE: steady(60)}, fires_at="16m", quiet_at="10m"),
    "a volume at 90 %": Case("VolumesNearlyFull", {NEARLY: steady(1)}, fires_at="16m", quiet_at="10m"),
    "volumes with room": Case("VolumesNearlyFull", {NEARLY: steady(0), ALMOST: steady(0)}, quiet_at="5h"),
    "a volume that grew": Case("VolumesNearlyFull", {NEARLY: "0 1x10 0x60"}, quiet_at="30m"),
    "a full volume": Case("VolumesFull", {NEARLY: steady(1), ALMOST: steady(1)}, fires_at="6m", quiet_at="4m"),
    "a volume that is not yet full": Case("VolumesFull", {NEARLY: steady(3), ALMOST: steady(0)}, quiet_at="5h"),
    "an agent that died": Case("QuotaAgentSilent", {SILENCE: "30x10 60+60x350"}, fires_at="20m", quiet_at="15m"),
    "an agent that never was": Case("QuotaAgentSilent", {SILENCE: " ".join(["Inf"] * 60)}, fires_at="6m"),
    "an agent that works": Case("QuotaAgentSilent", {SILENCE: " ".join(["0 60"] * 150)}, quiet_at="5h"),
    "no agent where nothing asks for one": Case("QuotaAgentSilent", {UP: steady(1)}, quiet_at="5h"),
    "an export with room": Case("ExportNearlyFull", {SIZE: steady(1000), FREE: steady(80)}, quiet_at="5h"),
}


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's tool; skipped where it is missing."""
    reason = prometheus.missing()
    if reason:
        pytest.skip(f"this machine cannot test alerts: {reason}")
    return "promtool"


@pytest.fixture
def rules(render: Renderer, tmp_path: Path) -> Path:
    """The rendered rules as a Prometheus rule file."""
    release = render(CHART / "ci" / "observed.yaml")
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(release.one("PrometheusRule")["spec"]))
    return path


def test_the_rules_are_well_formed(promtool: str, rules: Path) -> None:
    """Prometheus accepts all rules."""
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 rules found" in done.stdout


def test_each_alert_has_both_cases(rules: Path) -> None:
    """Every alert has a case that fires and one that does not."""
    alerts = {rule["alert"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]}
    assert {f"NfsProvisioner{case.alert}" for case in CASES.values() if case.fires_at} == alerts
    assert {f"NfsProvisioner{case.alert}" for case in CASES.values() if case.quiet_at and not case.fires_at} == alerts


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_alert(promtool: str, rules: Path, case: Case) -> None:
    """An alert fires for its case after its time, and for no other case."""
    name = f"NfsProvisioner{case.alert}"
    (rule,) = [each for each in yaml.safe_load(rules.read_text())["groups"][0]["rules"] if each["alert"] == name]
    series = [{"series": key, "values": values} for key, values in case.series.items()]
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    expected = [(at, count) for at, count in ((case.fires_at, 1), (case.quiet_at, 0)) if at]
    tests = [
        {"expr": firing, "eval_time": at, "exp_samples": [{"labels": "{}", "value": count}]} for at, count in expected
    ]
    file = rules.with_name("tests.yaml")
    body = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    file.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": [body]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{rule['expr']}\n{done.stdout}{done.stderr}"

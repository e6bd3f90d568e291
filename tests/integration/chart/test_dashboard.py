"""The dashboard and the alerts in a real Prometheus that scrapes a real daemon, and the checks of promtool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pictures import dashboard
from pictures.dashboard import Span
from testbed import prometheus
from testbed.prometheus import Prometheus, promtool
from tests.integration.chart.rendering import CHART, Renderer
from tests.support.daemon import Daemon, Daemons
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(180)

UNEVENTFUL = {"Failed API requests", "Volumes that fill up", "Heartbeat of the quota agent", "Fullest volumes"}
"""Panels that are empty as long as nothing goes wrong, and without a quota agent."""
QUIET = {"NfsProvisionerNoLeader", "NfsProvisionerExportDown"}


@pytest.fixture
def scraped(daemon: Daemons, tmp_path: Path) -> Daemon:
    """A daemon with one export."""
    (tmp_path / "export").mkdir()
    return daemon(f"--export=nas.example:/x={tmp_path / 'export'}")


@pytest.fixture
def metrics(scraped: Daemon, render: Renderer, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the daemon with a ServiceMonitor's labels and has the chart's alerts."""
    reason = prometheus.missing()
    if reason:
        pytest.skip(f"this machine cannot run Prometheus: {reason}")
    labels = {"job": "nfs-provisioner", "namespace": "nfs", "pod": "nfs-provisioner-0"}
    rules = render(CHART / "ci" / "observed.yaml").one("PrometheusRule")["spec"]
    targets = {f"127.0.0.1:{scraped.port}": labels}
    (tmp_path / "prometheus").mkdir()
    with Prometheus(targets, tmp_path / "prometheus", scrape_interval_s=1, rules=rules) as server:
        yield server


def turn(storage: Storage, classes: list[str], number: int) -> None:
    """Create and reclaim a volume of each class, and create a claim that is refused."""
    storage.claim(classes[0], f"refused-{number}", volumeMode="Block")
    for name in classes:
        storage.claim(name, f"{name}-{number}")
        volume = storage.bound(f"{name}-{number}")
        storage.delete_claim(f"{name}-{number}")
        storage.volume_gone(volume["metadata"]["name"])


def test_no_panel_covers_another() -> None:
    """No two panels share a cell of the 24 columns, including those in folded rows."""
    places = [each.place for panel in dashboard.panels() for each in (panel, *panel.folded)]
    cells = [(place.x + x, place.y + y) for place in places for x in range(place.w) for y in range(place.h)]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_panel_has_data(scraped: Daemon, metrics: Prometheus, storage: Storage) -> None:
    """After a short load every query of the dashboard has an answer, and every panel has data."""
    began_s = time.time()
    export = {"server": "nas.example", "share": "/x"}
    rules = ("delete", "archive")
    classes = [storage.storage_class(scraped.provisioner_name, export | {"onDelete": rule}) for rule in rules]
    storage.claim(classes[0], "stays")

    def empty() -> list[str]:
        span = Span(began_s, time.time(), 1.0)
        return [panel.title for panel in dashboard.all_panels() if not dashboard.lines(panel, metrics, span)]

    for number in range(60):
        turn(storage, classes, number)
        if set(empty()) <= UNEVENTFUL:
            break
    assert set(empty()) <= UNEVENTFUL
    assert metrics.unscraped() == []


def test_the_alerts_are_evaluated(metrics: Prometheus, storage: Storage) -> None:
    """Prometheus evaluates every alert without an error, and none about a missing leader or export fires."""
    storage.eventually(lambda: metrics.query("nfs_provisioner_leader") and not metrics.unscraped(), "a scrape")
    storage.eventually(lambda: "unknown" not in {rule["health"] for rule in metrics.rules()}, "an evaluation")
    rules = {rule["name"]: rule for rule in metrics.rules()}
    assert {name: rule.get("lastError", "") for name, rule in rules.items() if rule["health"] != "ok"} == {}
    storage.eventually(
        lambda: all(rule["state"] == "inactive" for rule in metrics.rules() if rule["name"] in QUIET),
        "no alert is active",
    )
    assert set(rules) >= QUIET


def test_promtool_finds_no_problem(scraped: Daemon, metrics: Prometheus) -> None:
    """Prometheus's tool accepts the configuration, the alerts and the format of the metrics."""
    assert promtool("check", "config", metrics.configuration) == ""
    assert promtool("check", "rules", metrics.configuration.with_name("rules.yaml")) == ""
    assert promtool("check", "metrics", input=scraped.http("/metrics")) == ""

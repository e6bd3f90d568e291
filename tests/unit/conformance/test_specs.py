"""The rules about Kubernetes' storage specs: which apply, what a report says, and what the page shows of it."""

from __future__ import annotations

import pytest

from tests.conformance import page, specs, suite
from tests.conformance.running import Run
from tests.conformance.specs import Result

PREFIX = "[sig-storage] External Storage [Driver: nfs-provisioner] "
DATA = f"{PREFIX}[Testpattern: Dynamic PV (default fs)] volumes should store data"
STRESS = f"{PREFIX}[Testpattern: Dynamic PV (default fs)] volume-stress multiple pods should access it [Serial] [Slow]"
RESTORE = f"{PREFIX}[Feature:VolumeSnapshotDataSource] [Testpattern: Dynamic PV (default fs)] provisioning restores"
SNAPSHOT = f"{PREFIX}[Feature:VolumeSnapshotDataSource] [Testpattern: Dynamic Snapshot] snapshottable should create"
DISRUPTIVE = f"{PREFIX}[Testpattern: Dynamic PV (default fs)] disruptive [Disruptive] should survive [Slow]"

REPORT = f"""<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="Kubernetes e2e suite">
  <testcase name="[SynchronizedBeforeSuite]" time="0.1"></testcase>
  <testcase name="[It] {DATA}" time="12.5"></testcase>
  <testcase name="[It] {STRESS}" time="3"><failure type="timedout">a pod did not start</failure></testcase>
  <testcase name="[It] {RESTORE}" time="0.2"><skipped message="skipped - Driver does not do it"/></testcase>
  <testcase name="[It] {SNAPSHOT}" time="0"><skipped message="skipped"></skipped></testcase>
</testsuite></testsuites>
"""
READ = [
    Result(DATA, "passed", 12.5),
    Result(STRESS, "failed", 3.0, "a pod did not start"),
    Result(RESTORE, "skipped", 0.2, "Driver does not do it"),
    Result(SNAPSHOT, "skipped", 0.0),
]


def test_a_report() -> None:
    """A report gives each spec's state, duration, and reason, and nothing of the set-up."""
    assert list(specs.read(REPORT.encode())) == READ
    assert specs.summary(READ) == "1 passed, 1 failed, 2 skipped"


def test_an_error_is_a_failure() -> None:
    """A spec that panicked counts as failed."""
    report = f'<testsuites><testcase name="[It] {DATA}" time="1"><error message="panicked"/></testcase></testsuites>'
    assert list(specs.read(report.encode())) == [Result(DATA, "failed", 1.0, "panicked")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (DATA, ""),
        (STRESS, ""),
        (RESTORE, ""),
        (f"{DATA} [Feature:VolumeSourceXFS]", ""),
        (f"{DATA} [Feature:SELinux]", "SELinux"),
        (f"{DATA} [Feature:Other]", "off by default"),
        (DISRUPTIVE, "restarts the kubelet"),
        (SNAPSHOT, "spec.csi"),
        (f"{PREFIX}provisioning should provision storage with pvc data source (ROX mode)", "spec.csi"),
    ],
)
def test_which_specs_apply(name: str, reason: str) -> None:
    """Each spec that is left out has a reason."""
    why = specs.reason(name)
    assert reason in why
    assert bool(why) == bool(reason)


def test_serial() -> None:
    """Only specs that their names call serial run alone."""
    assert [specs.serial(name) for name in (DATA, STRESS)] == [False, True]


def test_the_selection() -> None:
    """The selection has what its parts name."""
    assert list(specs.selected([DATA, STRESS, RESTORE])) == [DATA]


def test_the_driver_file() -> None:
    """The capabilities and the promised speed are those that the product documents."""
    driver = suite.DRIVER.read_text()
    assert "pvcDataSource: true" in driver
    assert "Throughput: 20}" in driver


def test_a_run_is_kept() -> None:
    """A run is the same after it was written and read."""
    run = Run({"date": "2026-11-28"}, READ)
    assert Run.load(run.json()) == run


def test_the_page_has_the_results() -> None:
    """Each result of the page comes from results.json: `make conformance-docs` writes it."""
    text = page.PAGE.read_text()
    run = Run.load(page.RESULTS.read_text())
    assert page.render(text, run) == text
    assert not [result.name for result in run.results if result.status == "failed"]
    assert not [result.name for result in run.results if result.status == "skipped" and not result.why]

"""What holds for every test: one control plane a session, and in CI a skipped test is a failed one.

But for those that this machine cannot run at all.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TypeVar

import pytest

from testbed import binaries
from testbed.cluster import ControlPlane, TokenUser

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

CANNOT = "this machine cannot"
"""How the reason of a permitted skip begins; pytest's summary (-ra) prints it in full."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _judged(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _judged(report)


def _judged(report: Report) -> Report:
    """The report, failed when it is a skip that CI does not permit."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(CANNOT):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, for another reason than '{CANNOT} …': {reason}"
    return report


@pytest.fixture(scope="session")
def restricted_user() -> TokenUser:
    """A user who may do nothing until a test gives it a role."""
    return TokenUser.new("restricted", "testers")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, restricted_user: TokenUser) -> Iterator[ControlPlane]:
    """Started once; with xdist, once in each worker."""
    if binaries.present(("etcd", "kube-apiserver", "kube-controller-manager")) is None:
        # Not built here: that takes longer than any test may.
        pytest.fail("the control plane is not built yet: run `make test`, or `python -m testbed build` once")
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), users=[restricted_user]) as cluster:
        yield cluster

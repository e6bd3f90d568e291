"""Fixtures and rules for all tests: one control plane per session, and in CI a skip is a failure.

CI accepts a skip only for what the machine cannot do at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeVar

import pytest
import uvloop

from testbed import binaries
from testbed.cluster import ControlPlane, TokenUser

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

CANNOT = "this machine cannot"
"""The beginning of every accepted skip reason; pytest's summary (-ra) prints the reasons."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests on the daemon's event loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _strict(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _strict(report)


def _strict(report: Report) -> Report:
    """Return the report, as a failure if it is a skip that CI does not accept."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(CANNOT):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, for another reason than '{CANNOT} …': {reason}"
    return report


@pytest.fixture(scope="session")
def restricted_user() -> TokenUser:
    """A user without any rights until a test grants it a role."""
    return TokenUser.new("restricted", "testers")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, restricted_user: TokenUser) -> Iterator[ControlPlane]:
    """A control plane, started once per session; with xdist, once per worker."""
    if binaries.present(("etcd", "kube-apiserver", "kube-controller-manager")) is None:
        # Building takes longer than any test's time limit.
        pytest.fail("the control plane is not built yet: run `make test`, or `python -m testbed build` once")
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), users=[restricted_user]) as cluster:
        yield cluster

"""What holds for every test: in CI a skipped test is a failed one, unless this machine cannot run it at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

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

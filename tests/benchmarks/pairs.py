"""Runs two contestants in turn, A B A B: machines are noisy, so compare ratios, not rates, between runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from testbed.binaries import Progress
from tests.benchmarks import measures
from tests.benchmarks.bench import Bench
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.report import DIRECTORY, Report


def compare(
    bench: Bench, first: Contestant, second: Contestant, *, pairs: int, claims: int, singles: int, progress: Progress
) -> tuple[Report, Path]:
    """Measure pairs and return the report, with the file that has it as JSON; each pair updates the file."""
    report = Report(
        first=first.name, second=second.name, sizes={"pairs": pairs, "claims": claims, "single claims": singles}
    )
    began = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = DIRECTORY / f"{second.name}-{first.name}-{began}.json".replace(" ", "-")
    report.load_average["before"] = os.getloadavg()
    progress("first starts, which are not measured")
    for contestant in (first, second):
        measures.warm_up(bench, contestant)
    measures.ceiling(bench, claims)
    for number in range(pairs):
        progress(f"pair {number + 1} of {pairs}: the API server alone")
        report.raw.append(measures.ceiling(bench, claims))
        for contestant in (first, second):
            progress(f"pair {number + 1} of {pairs}, {contestant.name}")
            measured = measures.measure(bench, contestant, claims=claims, singles=singles)
            report.add(contestant.name, measured.figures)
            report.requests[contestant.name] = measured.requests
        report.load_average["after"] = os.getloadavg()
        report.save(path)
    return report, path

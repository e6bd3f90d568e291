"""Runs two contestants in turn, A B A B: machines are noisy, so compare ratios, not rates, between runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.binaries import Progress
from tests.benchmarks import measures
from tests.benchmarks.bench import Bench
from tests.benchmarks.contestants import Contestant
from tests.benchmarks.figures import Figures
from tests.benchmarks.report import Report

SINGLE = "one claim at a time"
IDLE = "idle leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two contestants on one bench, and the report of what was measured, which each measurement saves."""

    bench: Bench
    contestants: tuple[Contestant, Contestant]
    report: Report
    path: Path
    progress: Progress

    def warm_up(self) -> None:
        """Start both once, unmeasured."""
        self.progress("first starts, which are not measured")
        for contestant in self.contestants:
            measures.warm_up(self.bench, contestant)

    def waiting(self, *, claims: int, pairs: int, singles: int, held: bool = False) -> None:
        """Measure single claims and a backlog; with `held` also a start with Bound volumes, and a list of everything.

        Without single claims, the CPU of a start is that of the latest measurement of single claims.
        """
        for number in range(pairs):
            what = f"{claims:,} claims, pair {number + 1} of {pairs}"
            if singles:
                self.progress(f"{what}: the API server alone")
                self.report.raw.append(measures.ceiling(self.bench, claims))
            for contestant in self.contestants:
                self.progress(f"{what}: {contestant.name}")
                if singles:
                    self._add(SINGLE, contestant, measures.single(self.bench, contestant, singles))
                cpu_start_ms = self.report.values[SINGLE][contestant.name]["cpu_start"][-1]
                backlog = measures.backlog(
                    self.bench, contestant, claims, cpu_start_s=cpu_start_ms / 1e3, held=held, relist=held
                )
                self.report.requests[contestant.name] = backlog.requests
                self._add_backlog(contestant, claims, backlog.figures)

    def _add_backlog(self, contestant: Contestant, claims: int, figures: Figures) -> None:
        held = {key: value for key, value in figures.items() if key in HELD}
        waiting = {key: value for key, value in figures.items() if key not in HELD}
        self._add(f"{claims:,} claims waiting", contestant, waiting)
        if held:
            self._add(f"{claims:,} claims and volumes Bound", contestant, held)

    def idle(self, seconds: float) -> None:
        """Measure what a leader without work costs."""
        for contestant in self.contestants:
            self.progress(f"idle for {seconds:.0f} s: {contestant.name}")
            self._add(IDLE, contestant, measures.idle(self.bench, contestant, seconds))

    def whole(self, *, claims: int, pairs: int) -> None:
        """Measure claims from their creation until they are Bound, on a bench with the whole control plane."""
        for number in range(pairs):
            for contestant in self.contestants:
                self.progress(f"whole control plane, pair {number + 1} of {pairs}: {contestant.name}")
                figures = measures.whole(self.bench, contestant, claims)
                self._add(f"whole control plane, {claims:,} claims", contestant, figures)

    def _add(self, section: str, contestant: Contestant, figures: Figures) -> None:
        self.report.add(section, contestant.name, figures)
        self.report.save(self.path)


HELD = frozenset({"start_held", "cpu_held", "memory_held", "memory_held_peak", "relist_spike"})
"""The figures of a start with Bound claims and volumes."""

"""`make conformance-docs`: writes the table of the last full run into docs/development/conformance.md.

The page has a pair of comments around what is written: `<!-- results: NAME -->` and `<!-- end -->`. With `--take`, the
results of build/conformance become those of the page first.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conformance import specs
from tests.conformance.running import Run
from tests.conformance.specs import Result

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "development" / "conformance.md"
RESULTS = Path(__file__).parent / "results.json"
TAKEN = ROOT / "build" / "conformance" / "results.json"

_BLOCK = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PATTERN = re.compile(r"\[Testpattern: ([^]]*)\]\s+(?:\[[^]]*\]\s+)*?(\S+) (.*)")
_TAG = re.compile(r"\s*\[[A-Za-z:,]+\]")


def main() -> int:
    """Render the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.page", description=__doc__)
    parser.add_argument("--take", action="store_true", help=f"copy {TAKEN.relative_to(ROOT)} first")
    if parser.parse_args().take:
        shutil.copy(TAKEN, RESULTS)
    PAGE.write_text(render(PAGE.read_text(), Run.load(RESULTS.read_text())))
    return 0


def render(page: str, run: Run) -> str:
    """Return a page with the results between its markers. Raises KeyError for an unknown block."""
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]](run)}\n{match[3]}", page)


def about(run: Run) -> str:
    """Return what the run used, and how many specs passed."""
    lines = [f"| {name} | {value} |" for name, value in run.about.items()]
    return "\n".join(["| | |", "|---|---|", *lines, f"| result | **{specs.summary(run.results)}** |"])


def passed(run: Run) -> str:
    """Return a table of the specs that ran, with their results and durations."""
    rows = [
        f"| {_named(result)} | {result.status} | {result.seconds:.0f} s |"
        for result in run.results
        if result.status != "skipped"
    ]
    return "\n".join(["| spec | result | took |", "|---|---|---:|", *rows])


def skipped(run: Run) -> str:
    """Return a table of the specs that did not run, with their reasons."""
    rows = [f"| {_named(result)} | {_reason(result)} |" for result in run.results if result.status == "skipped"]
    return "\n".join(["| spec | why it does not apply |", "|---|---|", *rows])


BLOCKS: Mapping[str, Callable[[Run], str]] = {"about": about, "passed": passed, "skipped": skipped}


def _named(result: Result) -> str:
    name = specs.short(result.name)
    match = _PATTERN.fullmatch(name)
    if match is None:
        return _escaped(name)
    pattern, suite, spec = match.groups()
    return f"**{_escaped(suite)}** {_escaped(_TAG.sub('', spec).strip())} ({_escaped(pattern)})"


def _reason(result: Result) -> str:
    return specs.known_skip(result.name) or _escaped((result.why.splitlines() or [""])[0])


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text)


if __name__ == "__main__":
    sys.exit(main())

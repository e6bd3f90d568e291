"""`make pictures`: run the demonstration and a small cluster, and draw what they show."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory

from pictures import dashboard, drawing, life, terminal
from testbed.binaries import BinariesMissing
from testbed.commands import exit_status
from testbed.ganesha import GaneshaMissing
from testbed.processes import ServerFailed

DIRECTORY = Path(__file__).parents[1] / "docs" / "pictures"
_DEMO = (sys.executable, "-m", "demo")


def main() -> int:
    """Write the pictures, and return the exit status."""
    options = _parser().parse_args()
    failures = (BinariesMissing, CalledProcessError, GaneshaMissing, ServerFailed, terminal.ProgramFailed)
    return exit_status(partial(_draw, options), *failures)


def _draw(options: argparse.Namespace) -> int:
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.only != "dashboard":
        _draw_demonstration(options.directory)
    if options.only != "demo":
        _draw_dashboard(options.directory, options.minutes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pictures", description=__doc__)
    parser.add_argument("--only", choices=["demo", "dashboard"], help="write only these pictures")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes that the dashboard shows")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    return parser


def _draw_demonstration(directory: Path) -> None:
    """Draw its first half, which creates claims, and its second half, which deletes some."""
    start, made, deleted, measured = terminal.parts(terminal.shown(_DEMO, timeout_s=1200.0))
    terminal.draw([*start, "", *made], "make demo", directory / "demo-claims.svg")
    terminal.draw([*deleted, "", *measured], "make demo", directory / "demo-fates.svg")


def _draw_dashboard(directory: Path, minutes: float) -> None:
    """Draw the dashboard as it opens, with the last rows collapsed, and the first of these rows alone."""
    with TemporaryDirectory(prefix="pictures-") as home, life.cluster(Path(home)) as cluster:
        span = life.live(cluster, minutes, partial(print, flush=True))
        ask = partial(dashboard.lines, prometheus=cluster.prometheus, span=span)
        panels = dashboard.panels()
        drawing.draw("nfs-provisioner", panels, ask, span, directory / "dashboard.svg")
        row = next(panel for panel in panels if panel.folded)
        drawing.draw("nfs-provisioner", dashboard.unfolded(row), ask, span, directory / "dashboard-daemon.svg")


if __name__ == "__main__":
    sys.exit(main())

"""`make conformance`: boots two real nodes, installs image and chart, and runs every spec that applies.

build/conformance keeps a JUnit report and the output of each spec, and results.json. The exit status is 1 if a spec
failed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from testbed import helm
from testbed.binaries import BinariesMissing, Progress
from testbed.commands import exit_status, to_terminal
from testbed.processes import ServerFailed
from testbed.waiting import NotInTime
from tests.conformance import faults, running, specs
from tests.conformance.running import Run
from tests.conformance.suite import SuiteFailed
from tests.e2e.installed import Installed
from tests.e2e.nodes import cluster
from tests.e2e.nodes.cluster import NodeCluster
from tests.e2e.nodes.image import NodesMissing
from tests.e2e.nodes.machine import ScriptFailed

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "conformance"


def main() -> int:
    """Run the suite, print what became of each spec, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--faults", type=_faults, default=(), metavar="NAME[,NAME]",
                        help=f"what happens beside the suite: {', '.join(faults.FAULTS)}, or both")  # fmt: skip
    parser.add_argument("--only", default="", metavar="TEXT", help="only specs with this in their names")
    options = parser.parse_args()
    reason = cluster.missing() or helm.missing()
    if reason:
        print(f"skipped: this machine cannot run real nodes: {reason}", file=sys.stderr)
        return 0
    errors = (BinariesMissing, NodesMissing, NotInTime, ScriptFailed, ServerFailed, SuiteFailed)
    return exit_status(partial(_run, options.faults, options.only), *errors)


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    unknown = sorted({*names} - {*faults.FAULTS})
    if unknown:
        raise argparse.ArgumentTypeError(f"no fault {unknown[0]}: choose from {', '.join(faults.FAULTS)}")
    return names


def _run(chosen: Sequence[str], only: str) -> int:
    progress = _timed(to_terminal())
    output = OUTPUT.with_name("-".join((OUTPUT.name, *chosen)))
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        found = _measure(Path(name), output, chosen, only, progress)
    (output / "results.json").write_text(found.json())
    for result in found.results:
        why = f": {result.why.splitlines()[0]}" if result.why else ""
        print(f"{result.status:8}{specs.short(result.name)}{why}")
    print(specs.summary(found.results))
    return int(any(result.status == "failed" for result in found.results))


def _measure(directory: Path, output: Path, during: Sequence[str], only: str, progress: Progress) -> Run:
    with NodeCluster(directory / "nodes") as nodes:
        nodes.ready()
        progress("the nodes are Ready; installing the chart")
        (directory / "release").mkdir()
        release = Installed(nodes, directory / "release")
        release.install()
        suite = running.on_nodes(release, output / "nodes", progress=progress)
        names = [name for name in suite.names() if only in name]
        skipped = running.left_out(names)
        others = {result.name for result in skipped}
        chosen = [name for name in names if name not in others and not specs.at_full_speed(name)]
        progress(f"running {len(chosen)} of {len(names)} specs on two nodes")
        with running.snapshots_of(release), ExitStack() as stack:
            seen = {name: stack.enter_context(faults.FAULTS[name](release)) for name in during}
            done = running.run(suite, chosen, progress=progress)
        about = running.about(release, "; ".join(f"{name}, {len(times)} times" for name, times in seen.items()))
    fast = []
    if any(map(specs.at_full_speed, names)):
        # Without emulated machines beside it.
        fast = running.at_full_speed(directory / "full-speed", progress=progress)
        shutil.copytree(directory / "full-speed" / "specs", output / "full-speed")
    return Run(about, sorted([*done, *fast, *skipped], key=lambda result: result.name))


def _timed(progress: Progress) -> Progress:
    began = time.monotonic()
    return lambda line: progress(f"{time.monotonic() - began:.0f} s, {line}")


if __name__ == "__main__":
    sys.exit(main())

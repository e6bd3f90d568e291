"""Kubernetes' storage tests as one binary, built once and cached like the control plane; each run is one spec.

`python -m tests.conformance.suite` builds it, unless it exists.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from testbed import binaries
from testbed.binaries import BinariesMissing, Progress, silent
from testbed.commands import exit_status, to_terminal
from testbed.processes import tail
from tests.conformance import specs
from tests.conformance.specs import Result

DIRECTORY = Path(__file__).parent
DRIVER = DIRECTORY / "driver.yaml"

SUITE = replace(
    binaries.CONTROL_PLANE,
    name="conformance",
    module=DIRECTORY,
    packages={"conformance.test": "github.com/nfs-provisioner/nfs-provisioner/tests/conformance"},
    takes="8 minutes on two idle cores, 25 on busy ones",
    named_by=None,
    tests=True,
)
"""The suite itself: main_test.go chooses what it contains."""

WITHOUT_NODES = (
    "--num-nodes=1",
    "--allowed-not-ready-nodes=-1",
    "--e2e-verify-service-account=false",
)
"""Flags for a control plane that no node has joined."""

SPEC_S = 3600.0
_DRY_RUN_S = 120.0


def locate(progress: Progress = silent) -> Path:
    """Return the suite's binary; the first call builds it, in minutes. Raises BinariesMissing."""
    (name,) = SUITE.packages
    return binaries.locate((name,), SUITE, progress=progress) / name


class SuiteFailed(Exception):
    """The suite did not run a spec; the text is the end of its output."""


class Suite:
    """The suite against one cluster. `directory` keeps a JUnit report and the output of each spec."""

    def __init__(
        self,
        kubeconfig: Path,
        directory: Path,
        *,
        driver: Mapping[str, Any] | None = None,
        flags: tuple[str, ...] = (),
        progress: Progress = silent,
    ) -> None:
        """`driver` overrides fields of driver.yaml; the first use on a machine builds the binary.

        Raises BinariesMissing.
        """
        binary = locate(progress)
        kubectl = binaries.locate(("kubectl",), binaries.NODE, progress=progress) / "kubectl"
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._running: set[subprocess.Popen[bytes]] = set()
        # JSON is YAML too.
        file = directory / "driver.yaml"
        file.write_text(json.dumps(_merged(yaml.safe_load(DRIVER.read_text()), driver or {})))
        self._command: list[str | Path] = [
            *(binary, f"--kubeconfig={kubeconfig}", "--provider=skeleton", f"--repo-root={directory}"),
            *(
                f"--kubectl-path={kubectl}",
                f"--storage.testdriver={file}",
                "--gather-resource-usage=none",
                "--ginkgo.no-color",
                "--ginkgo.v",
            ),
            *flags,
        ]

    def names(self) -> list[str]:
        """Return the names of all specs for the driver, whether they apply or not."""
        report = self._run("External.Storage", "dry-run", "--ginkgo.dry-run", timeout_s=_DRY_RUN_S)
        return [result.name for result in report if result.status == "passed"]

    def run(self, name: str) -> Result:
        """Run one spec. Raises SuiteFailed if the suite does not run it."""
        began = time.monotonic()
        label = _label(name)
        # The last spec of a file can have a name that begins like another one's.
        found = self._run(f"{re.escape(name)}$", label, timeout_s=SPEC_S)
        results = [result for result in found if result.name == name]
        if len(results) != 1:
            raise SuiteFailed(f"{name}: the report {self._directory / label} has {len(results)} results")
        return replace(results[0], seconds=results[0].seconds or time.monotonic() - began)

    def interrupt(self) -> None:
        """Kill the specs that run in other threads; their `run` raises SuiteFailed."""
        for process in list(self._running):
            process.kill()

    def _run(self, focus: str, label: str, *flags: str, timeout_s: float) -> list[Result]:
        directory = self._directory / label
        directory.mkdir(exist_ok=True)
        report = directory / "junit_01.xml"
        report.unlink(missing_ok=True)
        limits = (f"--ginkgo.timeout={timeout_s:.0f}s", f"--report-dir={directory}")
        command = [*self._command, f"--ginkgo.focus={focus}", *limits, *flags]
        log = directory / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._running.add(process)
        try:
            # The suite's own limit comes first, and it cleans up after that.
            process.wait(timeout_s + 300)
        finally:
            process.kill()
            process.wait()
            self._running.discard(process)
        if not report.exists():
            raise SuiteFailed(f"{label}: no report\n{tail(log)}")
        return list(specs.read(report.read_bytes()))


def _label(name: str) -> str:
    """Return a directory's name for a spec: some names differ only after more bytes than a file name has."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return re.sub(r"[^a-zA-Z0-9]+", "-", specs.short(name)).strip("-")[:150] + f"-{digest}"


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested mapping with some of its fields changed."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def main() -> int:
    """Build the suite, and return the exit status."""

    def build() -> int:
        locate(to_terminal())
        return 0

    return exit_status(build, BinariesMissing)


if __name__ == "__main__":
    sys.exit(main())

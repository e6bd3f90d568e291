"""Prometheus's own tool for rules, from Debian's package; no Prometheus is started by it."""

from __future__ import annotations

import shutil

from testbed import packages
from testbed.binaries import Progress, silent

PACKAGES = ("prometheus",)


def missing() -> str:
    """Why rules cannot be tried here, or "" when they can."""
    return "" if shutil.which("promtool") else "promtool is missing: apt-get install " + " ".join(PACKAGES)


def install_promtool(progress: Progress = silent) -> None:
    """Install promtool unless it is there. Raises packages.NotInstalled."""
    if missing():
        packages.install(PACKAGES, progress)

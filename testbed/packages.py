"""Install the Debian packages of the servers with apt-get, without starting services."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testbed.binaries import Progress, silent
from testbed.processes import tail


class NotInstalled(Exception):
    """The packages cannot be installed here; the text says why."""


def install(packages: Sequence[str], progress: Progress = silent) -> None:
    """Install packages.

    Raises NotInstalled where there is no apt-get, no root, or apt-get fails.
    """
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise NotInstalled("installation needs root on Debian or Ubuntu")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.NamedTemporaryFile(prefix="apt-get-", suffix=".log") as log, _services_stay_off():
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
            progress(f"apt-get {' '.join(words)}")
            done = subprocess.run(
                ["apt-get", *words], stdout=log, stderr=subprocess.STDOUT, env=environment, timeout=600
            )
            if done.returncode:
                raise NotInstalled(f"apt-get {words[0]} failed:\n{tail(Path(log.name))}")
    progress(f"installed: {', '.join(packages)}")


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Keep packages from starting their services.

    A test run must not leave an NFS server running on this machine.
    Debian's invoke-rc.d and deb-systemd-invoke ask /usr/sbin/policy-rc.d; 101 means that the action is forbidden.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()

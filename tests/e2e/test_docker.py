"""`python -m testbed.docker`, which runs the commands of `make image` and `make e2e`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import docker


def ran(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with these arguments and variables."""
    command = [sys.executable, "-m", "testbed.docker", *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)


def test_a_daemon_that_answers_is_used() -> None:
    """A daemon that answers is used, and the exit status is the command's."""
    reason = docker.unanswered()
    if reason:
        pytest.skip(f"this machine cannot run containers: {reason}")
    done = ran("sh", "-c", "docker version && exit 3")
    assert done.returncode == 3
    assert done.stderr.strip() == "docker: using the running daemon"


def test_a_machine_without_docker(tmp_path: Path) -> None:
    """Without Docker and a way to install it, the last line gives the reason, as a failure or as a skip."""
    failed, skipped = ran("true", PATH=str(tmp_path)), ran("--or-skip", "true", PATH=str(tmp_path))
    assert (failed.returncode, skipped.returncode) == (1, 0)
    reason = failed.stderr.splitlines()[-1]
    assert "needs root" in reason
    assert skipped.stderr.splitlines()[-1] == f"skipped: {reason}"

"""`nfs-provisioner quota-agent` as a process, on a file system of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.core.quota import decode_heartbeat

AGENT = [sys.executable, "-m", "provisioner", "quota-agent"]
PATIENCE_S = 30.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An export with a ledger."""
    for part in ("pending", "volumes", "archives", "trash"):
        (tmp_path / ".provisioner" / part).mkdir(parents=True)
    (tmp_path / ".provisioner/export").symlink_to("id")
    return tmp_path


def agent(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the agent to its end."""
    return subprocess.run([*AGENT, *words], text=True, capture_output=True, timeout=PATIENCE_S, check=False)


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent beside the test."""
    process = subprocess.Popen([*AGENT, *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_no_ledger(tmp_path: Path) -> None:
    """Without a ledger the agent says so, and creates none."""
    done = agent("--root", str(tmp_path), "--once")
    assert (done.returncode, "no ledger yet" in done.stdout) == (1, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "relative"], "absolute path"),
        (["--root", "/no/such/directory"], "absolute path"),
        (["--root", "/", "--project-ids", "9-5"], "not a range of project ids"),
        (["--root", "/", "--listen", "nowhere"], "HOST:PORT"),
        ([], "Missing option '--root'"),
    ],
)
def test_settings_that_cannot_be_used(words: list[str], message: str) -> None:
    """Settings that cannot be used end with status 2 and one line that says what to change."""
    done = agent(*words, "--once")
    assert done.returncode == 2, done
    assert message in done.stderr


def test_a_file_system_without_quotas(root: Path) -> None:
    """Where no limit can be set, the heartbeat says what is missing, and the exit status is 1."""
    done = agent("--root", str(root), "--once")
    if not done.returncode:
        pytest.skip("the file system of this machine has project quotas, and this user can set them")
    beat = decode_heartbeat(os.readlink(root / ".provisioner/agent"))
    assert (beat.enforces, bool(beat.lacks)) == (False, True)
    assert beat.lacks.split(":")[0] in done.stdout


def test_the_daemon(root: Path) -> None:
    """The daemon serves metrics and health, needs little memory, and ends cleanly."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running("--root", str(root), "--listen", f"127.0.0.1:{port}") as process:
        assert "ok" in _get(port, "healthz")
        assert 'nfs_provisioner_quota_agent_volumes{root="' in _get(port, "metrics")
        assert str(root) in _get(port, "readyz") or _get(port, "readyz") == "{}"
        assert _get(port, "nothing") == "Not Found\n"
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident_kb = int(status.split("VmRSS:")[1].split()[0])
        assert resident_kb < 40 * 1024
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def _get(port: int, page: str) -> str:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5.0) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as exc:
            return exc.read().decode()
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_ledger_that_appears_later(tmp_path: Path) -> None:
    """An agent that waits for a ledger ends when one of another owner appears: its next start becomes that owner."""
    with running("--root", str(tmp_path)) as process:
        time.sleep(1.0)
        assert process.poll() is None
        (tmp_path / ".provisioner").mkdir()
        os.chown(tmp_path / ".provisioner", 65534, 65534)
        assert process.wait(PATIENCE_S) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_two_owners(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two ledgers with different owners need two agents."""
    other = tmp_path_factory.mktemp("other")
    (other / ".provisioner").mkdir()
    os.chown(other / ".provisioner", 65534, 65534)
    done = agent("--root", str(root), "--root", str(other), "--once")
    assert (done.returncode, "different owners" in done.stderr) == (2, True)


def test_a_port_that_is_taken(root: Path) -> None:
    """A port that is in use ends the agent with one line that says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = agent("--root", str(root), "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2
    assert "choose another address" in done.stderr

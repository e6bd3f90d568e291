"""Like a pod: a user without capabilities, and a server found by the port mapper, each in its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from testbed import ganesha

pytestmark = pytest.mark.timeout(120)

HERE = Path(__file__).parent
SANDBOX = ["unshare", "--net", "--mount", "--fork", "--pid", "--kill-child"]

NETWORK = "ip link set lo up && ip address add 192.0.2.1/32 dev lo"
"""Ganesha asks for its address with AI_ADDRCONFIG: one that is not in 127.0.0.0/8 must be there."""


def script(name: str, directory: Path, prefix: list[str]) -> str:
    """Run a script of this folder with a command prefix, and return its output."""
    command = [*prefix, sys.executable, str(HERE / name), str(directory)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def require(*programs: str) -> None:
    """Skip the test unless it runs as root and this machine has the servers and programs."""
    reason = ganesha.missing(versions=(3, 4))
    lacking = [name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if reason or lacking or os.geteuid() != 0:
        pytest.skip(f"this machine cannot: {reason or ', '.join(lacking) or 'it takes root'}")


@pytest.mark.parametrize(("lowest", "reserved"), [(1024, False), (512, True)])
def test_a_pod_like_process(lowest: int, reserved: bool) -> None:
    """As UID 65534 without capabilities, NFSv4 works, from a port below 1024 if the sysctl allows it."""
    require("setpriv", "unshare", "sysctl", "ip")
    drop = "setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all --inh-caps=-all"
    inside = f'{NETWORK} && sysctl -qw net.ipv4.ip_unprivileged_port_start={lowest} && exec {drop} "$@"'
    with tempfile.TemporaryDirectory(prefix="pod-") as name:
        os.chown(name, 65534, 65534)
        printed = script("pod.py", Path(name), [*SANDBOX, "sh", "-c", inside, "sh"])
    assert printed.splitlines() == [f"{version} reserved={reserved}" for version in ("4.0", "4.1", "4.2")]


def test_a_server_found_by_the_port_mapper() -> None:
    """Without ports, NFSv3 asks rpcbind for both; a server with only NFSv3 works if no version is given."""
    require("unshare", "rpcbind", "ip")
    inside = f'mount -t tmpfs none /run && mkdir /run/ganesha && {NETWORK} && rpcbind -w && exec "$@"'
    with tempfile.TemporaryDirectory(prefix="mapped-") as name:
        problem = ganesha.vfs_problem(Path(name))
        if problem:
            pytest.skip(f"this machine cannot: {problem}")
        printed = script("mapped.py", Path(name), [*SANDBOX, "sh", "-c", inside, "sh"])
    assert printed == "made\nmade\n"

"""`python -m demo` as a process, in a temporary directory that must be empty afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import binaries
from testbed.api import Api
from testbed.cluster import ControlPlane
from testbed.waiting import eventually

pytestmark = pytest.mark.timeout(300)
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager")


class Demo:
    """Starts demonstrations for one test, and finds their leftovers."""

    def __init__(self, directory: Path) -> None:
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        assets = binaries.present(NAMES)
        if assets is None:
            pytest.fail("the control plane is not built yet: run `make test`, or `python -m testbed build` once")
        self._environment = os.environ | {
            "TMPDIR": str(self.temporary),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "KUBEBUILDER_ASSETS": str(assets),
            "DEMO_KUBECONFIG": "",
        }
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *flags: str) -> subprocess.Popen[str]:
        """Start a demonstration with its output in a pipe."""
        command = [sys.executable, "-m", "demo", *flags]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._environment
        )
        self._started.append(process)
        return process

    def run(self, *flags: str) -> tuple[int, str]:
        """Run a demonstration to its end, and return the exit status and the output."""
        process = self.start(*flags)
        output, _ = process.communicate(timeout=200)
        return process.returncode, output

    def printed(self, output: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command that a kept demonstration prints, in a shell with the variables that it prints."""
        lines = [line.strip() for line in output.splitlines()]
        script = [line for line in lines if line.startswith("export ") or line.endswith(f"nfs-provisioner {command}")]
        assert script[-1].endswith(command), output
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["/bin/sh", "-e", "-c", "\n".join(script)],
            env=self._environment | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def left(self) -> list[str]:
        """Return the remaining directories and processes."""
        directories = [str(path) for path in self.temporary.iterdir()]
        return [*directories, *(f"process {pid}" for pid in self._processes())]

    def _processes(self) -> Iterator[int]:
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                environment = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if f"TMPDIR={self.temporary}".encode() in environment:
                yield int(path.parent.name)

    def kill(self) -> None:
        """Kill the remaining processes."""
        for pid in self._processes():
            os.kill(pid, signal.SIGKILL)
        for process in self._started:
            process.wait(10)
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    demo.kill()


def test_the_story_comes_out_as_promised_and_leaves_nothing(demo: Demo) -> None:
    """The demonstration keeps its promises, prints measurements, and leaves no process and no directory."""
    status, output = demo.run()
    assert status == 0, output
    assert "all 14 promises kept" in output or "all 13 promises kept" in output, output  # one more where there is NFS
    assert "✗" not in output
    assert re.search(r"claim created → volume created +\d+ ms \(median of 8\)", output), output
    assert "ProvisioningFailed: the directory '../../intruder' has the component '..'" in output
    assert not demo.left()


MOMENTS = {
    "control plane starts": "starting etcd",
    "daemon starts": "starting the daemon",
    "claims are made": "wordpress",
    "claims are looked at": "✓ mariadb",
    "claims are deleted": "the export, in use",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_any_moment_leaves_nothing(demo: Demo, moment: str) -> None:
    """After Ctrl-C or SIGTERM the status is 130, and no process and no directory stays behind."""
    process = demo.start()
    assert process.stdout is not None
    said = next((line for line in process.stdout if MOMENTS[moment] in line), None)
    assert said is not None, f"it ended before {moment}"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # impatience changes nothing
    status = process.wait(60)  # not communicate(), which loses what came together with that line
    output = process.stdout.read()
    assert status == 130, output
    assert "Interrupted" in output
    assert not demo.left()


def test_signals_in_quick_succession_leave_nothing(demo: Demo) -> None:
    """A signal at any of several other moments leaves nothing behind."""
    for tenths in range(2, 42, 8):
        process = demo.start()
        timer = threading.Timer(tenths / 10, process.send_signal, [signal.SIGTERM])
        timer.start()
        output, _ = process.communicate(timeout=60)
        timer.cancel()
        # Before the program has begun to listen, a signal ends it in the system's way.
        assert process.returncode in (130, -signal.SIGTERM), output
        assert not demo.left(), output


def test_a_kept_demonstration_can_be_used_and_ended(demo: Demo) -> None:
    """With --keep the command returns, the printed commands work as printed, and --stop stops the demonstration."""
    status, output = demo.run("--keep")
    assert status == 0, output
    found = re.search(r"export KUBECONFIG=(\S+)", output)
    assert found is not None, output
    kubeconfig = json.loads(Path(found[1]).read_text())
    server = kubeconfig["clusters"][0]["cluster"]
    token = kubeconfig["users"][0]["user"]["token"]
    api = Api(server["server"], ca_file=Path(server["certificate-authority"]), token=token)
    claims = "/api/v1/namespaces/shop/persistentvolumeclaims"
    assert {claim["metadata"]["name"] for claim in api.list(claims)} >= {"mariadb", "wordpress", "data-web-2"}
    spec = {
        "storageClassName": "nfs-delete",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    api.post(claims, {"metadata": {"name": "mine"}, "spec": spec})
    eventually(lambda: api.get(f"{claims}/mine")["status"]["phase"] == "Bound", "a claim of mine is Bound")
    for command in ("check", "volumes", "archives"):
        done = demo.printed(output, command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "demo.nfs-provisioner/nfs" in done.stderr
    status, output = demo.run("--keep")
    assert (status, "already runs in the background" in output) == (1, True), output
    status, output = demo.run("--stop")
    assert status == 0, output
    assert not demo.left()
    assert demo.run("--stop")[0] == 1


def test_a_cluster_that_was_given_is_left_as_it_was(demo: Demo, control_plane: ControlPlane) -> None:
    """On a user's cluster the demonstration uses names of its own, and deletes all its objects."""
    api = control_plane.api

    def objects() -> set[str]:
        paths = ("/api/v1/namespaces", "/api/v1/persistentvolumes", "/apis/storage.k8s.io/v1/storageclasses")
        return {f"{path}/{each['metadata']['name']}" for path in paths for each in api.list(path)}

    before = objects()
    status, output = demo.run(f"--kubeconfig={control_plane.kubeconfig}")
    assert status == 0, output
    assert not demo.left()
    new = {path for path in objects() - before if "/test-" not in path}
    assert not new


def test_a_demonstration_that_cannot_be_given_says_why(demo: Demo, tmp_path: Path) -> None:
    """Without a usable cluster the status is 1, and the last line states the reason."""
    status, output = demo.run(f"--kubeconfig={tmp_path / 'nowhere'}")
    assert status == 1
    assert "nowhere does not exist" in output.splitlines()[-1]
    assert not demo.left()


def test_the_product_loads_neither_demo_nor_testbed() -> None:
    """The command line and the daemon import neither the demonstration nor the testbed: the image has neither."""
    names = "('demo', 'testbed')"
    code = f"import sys, provisioner.cli, provisioner.commands.run; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"

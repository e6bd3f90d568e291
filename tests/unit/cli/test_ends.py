"""How commands end: with a status and one line for every error, and never with a traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LOOKING = (
    ["volumes"],
    ["claims"],
    ["describe", "shop/data"],
    ["usage"],
    ["move", "--from=old:/x", "--to=new:/y"],
    ["archives"],
    ["orphans"],
    ["instances"],
    ["restore", "archived-x", "--claim=shop/data"],
)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "provisioner", *words]


def environment(**more: str) -> dict[str, str]:
    """An environment without the settings of this machine."""
    return {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | more


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=120, env=environment(**more), check=False
    )


def kubeconfig(directory: Path, server: str) -> Path:
    """A kubeconfig for an API server at a URL."""
    path = directory / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "x"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


@pytest.fixture
def nowhere(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A kubeconfig whose server refuses connections, and its URL: the port is bound and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{held.getsockname()[1]}"
        yield kubeconfig(tmp_path, url), url


@pytest.mark.parametrize("words", [*LOOKING, ["check"]], ids=lambda words: words[0])
def test_without_a_cluster(words: list[str]) -> None:
    """Outside a pod and without a kubeconfig, one line says what to set."""
    done = run(*words)
    message = "nfs-provisioner: not running in a pod, and no kubeconfig: pass --kubeconfig or set KUBECONFIG\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_a_pod_without_an_account() -> None:
    """In a pod without a token, one line says so."""
    done = run("volumes", KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "automountServiceAccountToken" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", LOOKING, ids=lambda words: words[0])
def test_no_api_server(nowhere: tuple[Path, str], words: list[str]) -> None:
    """An API server that is not there is one line with its address and the reason, and status 1."""
    config, url = nowhere
    done = run(*words, f"--kubeconfig={config}")
    message = f"nfs-provisioner: cannot reach the API server {url}: connection refused\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_a_name_that_cannot_be_resolved(tmp_path: Path) -> None:
    """A host name that DNS cannot resolve is one line with the name."""
    done = run("volumes", f"--kubeconfig={kubeconfig(tmp_path, 'https://no-such-server.invalid:6443')}")
    assert done.returncode == 1
    assert "https://no-such-server.invalid:6443: the name no-such-server.invalid cannot be resolved" in done.stderr


def test_recover_reads_exports_without_an_api_server(nowhere: tuple[Path, str], tmp_path: Path) -> None:
    """A dry run with a dead API server still reads the exports, and reports that the comparison is missing."""
    (tmp_path / "export").mkdir()
    export = f"--export=nas:/x={tmp_path / 'export'}"
    done = run("recover", export, f"--kubeconfig={nowhere[0]}")
    assert done.returncode == 1
    assert "looked at export nas:/x" in done.stderr
    assert "cannot reach the API server" in done.stderr
    assert "not compared with a cluster" in done.stderr
    alone = run("recover", export)
    assert alone.returncode == 0
    assert "looked at export nas:/x" in alone.stderr


def test_recover_without_any_export() -> None:
    """Without any export, `recover` reports that there is nothing to look at, not that there is nothing to recover."""
    done = run("recover")
    assert done.returncode == 2
    assert "nothing to look at" in done.stderr
    assert "no --export is given" in done.stderr
    assert "nothing to recover" not in done.stderr


def test_no_command_at_all() -> None:
    """Without a command, the help text is printed as it is, not as an error message."""
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: nfs-provisioner ")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]], ids=" ".join)
def test_a_closed_pipe(words: list[str]) -> None:
    """A closed pipe ends a command quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(
            command(*words), stdout=broken, stderr=subprocess.PIPE, timeout=120, env=environment(), check=False
        )
    assert done.stderr == b""
    assert done.returncode == 1


def test_a_table_into_a_closed_pipe() -> None:
    """A closed pipe ends a command that prints a table quietly."""
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys, click; from provisioner.cli import entry; from provisioner.cli.output import print_table\n"
        "@click.command()\ndef table(): print_table(['A'], [['x']])\n"
        "entry.cli.add_command(table); sys.argv = ['nfs-provisioner', 'table']; entry.main()"
    )
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=broken, stderr=subprocess.PIPE, timeout=120, env=environment()
        )
    assert done.stderr == b""


def test_a_full_disk() -> None:
    """A full disk ends a command with one line."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("--help"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=environment()
        )
    assert (done.returncode, done.stderr) == (
        1,
        "nfs-provisioner: cannot write the output: No space left on device\n",
    )


@pytest.mark.parametrize("words", [*LOOKING, ["check"], ["recover"]], ids=lambda words: words[0])
def test_interrupt(tmp_path: Path, words: list[str]) -> None:
    """Ctrl-C during a call ends a command with status 130 and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = kubeconfig(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        process = subprocess.Popen(
            command(*words, f"--kubeconfig={config}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with silent.accept()[0]:  # it has asked, and waits
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in errors

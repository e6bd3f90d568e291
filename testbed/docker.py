"""Docker from Debian's packages, with a daemon that runs only while a command needs it.

    python -m testbed.docker COMMAND ...

runs a command that needs Docker. It uses a running daemon if there is one. Otherwise it starts a daemon for the time of
the command, with its images in the cache directory, and sets DOCKER_HOST to its socket.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from testbed import packages
from testbed.binaries import Progress, cache, locked, silent
from testbed.commands import exit_status
from testbed.processes import Server, ServerFailed

PACKAGES = ("docker.io", "debootstrap")
"""debootstrap builds a Debian image where no registry is reachable."""

CLIENT = ("docker-cli",)
"""The docker command: a package of its own since Debian 13."""


class DockerMissing(Exception):
    """Docker cannot run here; the text says why, in one line."""


def unanswered(host: str = "") -> str:
    """Return why no daemon answers, or "".

    The daemon is that of `host`, of DOCKER_HOST, or of the default socket.
    """
    if shutil.which("docker") is None:
        return "docker is not installed"
    environment = os.environ | ({"DOCKER_HOST": host} if host else {})
    asked = subprocess.run(
        ["docker", "version", "--format={{.Server.Version}}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return "" if asked.returncode == 0 else (asked.stderr.strip() or "docker version failed").splitlines()[-1]


@contextmanager
def daemon(progress: Progress = silent) -> Iterator[Mapping[str, str]]:
    """Provide a daemon, and yield the environment variables for its clients.

    There are no variables if the machine's own daemon answers.
    A daemon that this starts stops with the context; other processes that need one wait. Raises DockerMissing.
    """
    reason = unanswered()
    if not reason:
        progress("docker: using the running daemon")
        yield {}
        return
    if os.geteuid() != 0:
        raise DockerMissing(f"{reason}; installing and starting a daemon needs root")
    progress(f"docker: {reason}; starting a daemon for this command")
    _install(progress)
    home = cache() / "docker"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / ".lock", progress), tempfile.TemporaryDirectory(prefix="dockerd-") as name:
        socket = f"unix://{name}/docker.sock"
        server = _server(home, Path(name), socket)
        _start(server)
        progress(f"docker: dockerd (process {server.pid}) keeps its images in {home} and stops with this command")
        try:
            yield {"DOCKER_HOST": socket}
        finally:
            server.stop(grace_s=30.0)
            # dockerd leaves this mounted for containers that share the machine's network.
            subprocess.run(["umount", f"{name}/exec/netns/default"], capture_output=True, timeout=30)


def _start(server: Server) -> None:
    server.start()
    try:
        server.wait_ready()
    except ServerFailed as exc:
        server.kill()
        raise DockerMissing(f"the Docker daemon cannot run here: {str(exc).splitlines()[-1]}") from exc


def _server(home: Path, directory: Path, socket: str) -> Server:
    # exec-root and socket need short paths (unix(7)), and are useless after the daemon.
    places = (f"--data-root={home}/data", f"--exec-root={directory}/exec", f"--pidfile={directory}/pid")
    command = ["dockerd", f"--host={socket}", *places]
    log = home / "dockerd.log"
    log.unlink(missing_ok=True)
    return Server("dockerd", command, log=log, ready=lambda: not unanswered(socket))


def _install(progress: Progress) -> None:
    try:
        if shutil.which("dockerd") is None or shutil.which("debootstrap") is None:
            packages.install(PACKAGES, progress)
        if shutil.which("docker") is None:
            packages.install(CLIENT, progress)
    except packages.NotInstalled as exc:
        raise DockerMissing(f"{', '.join(PACKAGES)}: {exc}") from exc


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, or 1 where Docker cannot run."""
    parser = argparse.ArgumentParser(prog="python -m testbed.docker", description=__doc__)
    parser.add_argument("--or-skip", action="store_true", help="where Docker cannot run, print why and exit with 0")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command to run")
    options = parser.parse_args(arguments)
    return exit_status(partial(_run, options), DockerMissing)


def _run(options: argparse.Namespace) -> int:
    try:
        with daemon(lambda line: print(line, file=sys.stderr, flush=True)) as variables:
            return subprocess.run(options.command, env=os.environ | variables).returncode
    except DockerMissing as exc:
        if not options.or_skip:
            raise
        print(f"skipped: {exc}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())

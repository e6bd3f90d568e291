"""Docker for whoever has none: Debian's packages, and a daemon that runs only as long as it is needed.

    python -m testbed.docker COMMAND ...

runs a command that needs Docker. A daemon that answers already is used as it is; else one of ours runs meanwhile, with
its images in the cache directory, on a socket that DOCKER_HOST names.
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
"""The second one makes docker/base-image.sh's image, where no registry answers."""

CLIENT = ("docker-cli",)
"""The command alone: a package of its own since Debian 13."""


class DockerMissing(Exception):
    """There can be no Docker here; the text says why, in one line."""


def unanswered(host: str = "") -> str:
    """Why no daemon answers at DOCKER_HOST or where Docker's command would look, or "" when one does."""
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
    """Variables by which Docker's clients find a daemon that answers: none for the machine's own, or those of ours.

    Ours ends with the context; processes that need it wait for each other. Raises DockerMissing.
    """
    reason = unanswered()
    if not reason:
        progress("docker: the daemon that answers here is used")
        yield {}
        return
    if os.geteuid() != 0:
        raise DockerMissing(f"{reason}; to install and to start one takes root")
    progress(f"docker: {reason}; so one of our own is started")
    _install(progress)
    home = cache() / "docker"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / ".lock", progress), tempfile.TemporaryDirectory(prefix="dockerd-") as name:
        socket = f"unix://{name}/docker.sock"
        server = _server(home, Path(name), socket)
        _start(server)
        progress(f"docker: dockerd (process {server.pid}) keeps its images in {home} and ends with this command")
        try:
            yield {"DOCKER_HOST": socket}
        finally:
            server.stop(grace_s=30.0)
            # It stays mounted, for containers that share the machine's network.
            subprocess.run(["umount", f"{name}/exec/netns/default"], capture_output=True, timeout=30)


def _start(server: Server) -> None:
    server.start()
    try:
        server.wait_ready()
    except ServerFailed as exc:
        server.kill()
        raise DockerMissing(f"no Docker daemon can run here: {str(exc).splitlines()[-1]}") from exc


def _server(home: Path, directory: Path, socket: str) -> Server:
    # exec-root and socket: their paths must be short (unix(7)), and mean nothing once the daemon is gone.
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
    """Run a command; its exit status, or 1 where there can be no Docker."""
    parser = argparse.ArgumentParser(prog="python -m testbed.docker", description=__doc__)
    parser.add_argument("--or-skip", action="store_true", help="where there can be no Docker, say why and succeed")
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

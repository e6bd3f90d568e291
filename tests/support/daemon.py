"""`nfs-provisioner run` as a real process, with its endpoint and its log."""

from __future__ import annotations

import json
import secrets
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.cluster import ControlPlane, TokenUser
from testbed.processes import Server, free_port, tail


class Daemon(Server):
    """One daemon; see Server for start, stop, terminate, wait, kill, pause and resume."""

    def __init__(
        self,
        *,
        provisioner_name: str,
        kubeconfig: Path,
        flags: tuple[str, ...],
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.provisioner_name = provisioner_name
        self.port = free_port()
        command = [
            *(sys.executable, "-m", "provisioner", "run"),
            f"--kubeconfig={kubeconfig}",
            f"--provisioner-name={provisioner_name}",
            f"--listen=127.0.0.1:{self.port}",
            "--lease-namespace=default",
            "--log-format=json",
            *flags,
        ]
        super().__init__(f"nfs-provisioner ({log.stem})", command, log=log, ready=self.ready, environment=environment)

    def ready(self) -> bool:
        """Whether /readyz answers that the daemon is ready."""
        try:
            self.http("/readyz", timeout_s=2.0)
        except OSError:
            return False
        return True

    def http(self, path: str, *, timeout_s: float = 5.0) -> str:
        """Return what its endpoint answers, such as /metrics. Raises OSError, including HTTPError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s) as answer:
            body: bytes = answer.read()
            return body.decode()

    def logged(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return its log lines, of one event or of all, without text that is not JSON, such as tracebacks."""
        lines = []
        for text in self.log.read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and event in (None, line.get("event")):
                lines.append(line)
        return lines


class Daemons:
    """Starts daemons for one test and kills them at its end; the `daemon` fixture."""

    def __init__(self, control_plane: ControlPlane, directory: Path) -> None:
        self._control_plane = control_plane
        self._directory = directory
        self.started: list[Daemon] = []

    def __call__(
        self,
        *flags: str,
        provisioner_name: str | None = None,
        user: TokenUser | None = None,
        kubeconfig: Path | None = None,
        environment: Mapping[str, str] | None = None,
        wait_ready: bool = True,
    ) -> Daemon:
        """Start a daemon with `flags`, by default under a new name and with the administrator's rights.

        Two daemons with one name elect a leader.
        """
        cluster = self._control_plane
        daemon = Daemon(
            provisioner_name=provisioner_name or f"test.example/{secrets.token_hex(4)}",
            kubeconfig=kubeconfig or (cluster.kubeconfig_for(user) if user else cluster.kubeconfig),
            flags=flags,
            log=self._directory / f"daemon-{len(self.started)}.log",
            environment=environment or {},
        )
        self.started.append(daemon)
        daemon.start()
        if wait_ready:
            daemon.wait_ready()
        return daemon

    def log_tails(self) -> str:
        """Return the last log lines of each daemon, for the message of a failure."""
        return "\n".join(f"--- {daemon.name}\n{tail(daemon.log)}" for daemon in self.started)

    def kill(self) -> None:
        """Kill all of them."""
        for daemon in self.started:
            daemon.kill()

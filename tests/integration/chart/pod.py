"""The daemon as the chart runs it: the rendered arguments and environment, its account's token, no capabilities.

Its uid is the chart's if that user can run the tests' Python, else ours; tests/e2e runs the image with the real uid.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from testbed.api import Object
from testbed.cluster import ControlPlane
from testbed.processes import Server
from tests.integration.chart.rendering import Release

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SCRIPT = f"""
set -e
mount -t tmpfs none /run
mkdir -p {ACCOUNT}
cp "$1"/* {ACCOUNT}
mount -o remount,bind,ro /run
mount -o remount,bind,ro /
shift
exec "$@"
"""
"""Makes the root read-only and puts the token where the kubelet does. /var/run is /run."""


def missing() -> str:
    """Return why this machine cannot run such pods, or ""."""
    lacking = [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        return ", ".join(lacking) or "it takes root"
    if not os.path.samefile("/var/run", "/run"):
        return "/var/run is not /run"
    command = ["unshare", "--mount", "true"]
    return "" if subprocess.run(command, capture_output=True, timeout=10).returncode == 0 else "unshare is refused"


def _unprivileged(uid: int, gid: int) -> list[str]:
    return [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--pdeathsig=KILL", "--"),
    ]


def _runs(prefix: Sequence[str]) -> bool:
    """Whether our Python runs behind the prefix: it can be in a home directory that is closed to others."""
    # By way of env: setpriv itself still has the capabilities that it drops.
    command = [*prefix, "env", sys.executable, "-c", ""]
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


class Sandbox:
    """The environment that the kubelet gives the container of an installed release; `command` runs a program in it."""

    def __init__(self, release: Release, control_plane: ControlPlane, directory: Path) -> None:
        """Request the account's token by TokenRequest, as the kubelet does."""
        self._release = release
        self._control_plane = control_plane
        self._namespace = release.one("Deployment")["metadata"]["namespace"]
        self._secrets = self._account(directory / "account")

    def command(self, *arguments: str) -> list[str | Path]:
        """Return the command that runs the program with the daemon's user, rights and variables only."""
        security = self._release.pod["spec"]["securityContext"]
        drop = _unprivileged(security["runAsUser"], security["runAsGroup"])
        if not _runs(drop):
            drop = _unprivileged(os.geteuid(), os.getegid())
        variables = [f"{key}={value}" for key, value in self._variables().items()]
        program = ["env", "-i", *variables, sys.executable, "-m", "provisioner", *arguments]
        return ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", self._secrets, *drop, *program]

    def _variables(self) -> dict[str, str]:
        url = urlsplit(self._control_plane.url)
        cluster = {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}
        return self._release.environment(self._namespace) | cluster

    def _account(self, directory: Path) -> Path:
        account = self._release.pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        token = self._control_plane.api.post(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        directory.mkdir()
        (directory / "token").write_text(token)
        (directory / "namespace").write_text(self._namespace)
        (directory / "ca.crt").write_bytes(self._control_plane.ca_file.read_bytes())
        for file in directory.iterdir():
            file.chmod(0o644)
        return directory


class Pod(Server):
    """The Deployment's container as a process, with the arguments that the chart renders."""

    def __init__(self, release: Release, control_plane: ControlPlane, directory: Path) -> None:
        container = release.container
        self.url = f"http://127.0.0.1:{container['ports'][0]['containerPort']}"
        super().__init__(
            "nfs-provisioner (pod)",
            Sandbox(release, control_plane, directory).command(*container["args"]),
            log=directory / "pod.log",
            ready=lambda: self._passes(container["readinessProbe"]),
        )

    def read(self, path: str) -> str:
        """Return what its endpoint answers. Raises OSError, including HTTPError."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=5.0) as answer:
            body: bytes = answer.read()
            return body.decode()

    def _passes(self, probe: Object) -> bool:
        try:
            self.read(probe["httpGet"]["path"])
        except OSError:
            return False
        return True

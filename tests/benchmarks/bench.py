"""The setup of the measurements: one API server, and a temporary directory for exports.

kube-controller-manager does not run, so that only the measured program and the measurement write: the bench sets the
annotations that hand claims to the program, and the phase Released of volumes. Admission would add the finalizers
kubernetes.io/pvc-protection and pv-protection, which only that manager removes, so its plugin is off: a volume is gone
when the daemon removes its own finalizer, or when the peer, which sets none, deletes it.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.api import Object
from testbed.cluster import ControlPlane, TokenUser
from testbed.processes import Server
from tests.benchmarks import objects, usage
from tests.benchmarks.flood import Flooded, Request, Target, flood
from tests.benchmarks.volume_watch import VOLUMES, VolumeWatch


class Bench:
    """The servers and calls of a measurement; see `open_bench`."""

    def __init__(self, plane: ControlPlane, user: TokenUser, directory: Path, at_end: ExitStack) -> None:
        self.api = plane.api_as(user)
        self.kubeconfig = plane.kubeconfig_for(user)
        self.directory = directory
        (export := directory / "export").mkdir()
        self.export = export
        self.exports = [export]
        """The directories of all exports that the daemon knows."""
        self.volumes = VolumeWatch(self.api)
        self._target = Target(url=plane.url, ca_file=plane.ca_file, token=user.token)
        self._servers = [plane.etcd, plane.api_server]
        self._namespaces = 0
        self._class: Object | None = None
        self._at_end = at_end

    def kill_at_end(self, server: Server) -> None:
        """Kill a server when the bench closes."""
        self._at_end.callback(server.kill)

    def server_cpu_s(self) -> float:
        """Return the seconds of CPU that the API server and etcd have used."""
        return sum(usage.cpu_s(server.pid) for server in self._servers if server.pid is not None)

    def empty_trash(self) -> None:
        """Remove what the daemon, which must not run, keeps of deleted volumes for ten minutes.

        A start of the daemon reads a volume per entry.
        """
        for entry in (entry for export in self.exports for entry in (export / ".provisioner" / "trash").glob("*")):
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink()
            else:
                shutil.rmtree(entry)

    def api_requests(self) -> Counter[str]:
        """Return how many requests for volumes the API server has answered; see `usage.api_requests`."""
        with self.connection() as connection:
            status, text = self._request(connection, "GET", "/metrics")
        if status != 200:
            raise ConnectionError(f"GET /metrics: {status} {text[:500]}")
        return usage.api_requests(text)

    def use_class(self, storage_class: Object) -> None:
        """Create the class of all claims, or replace it."""
        if self._class == storage_class:
            return
        if self._class is not None:
            self.api.delete(f"{objects.CLASSES}/{objects.CLASS}")
        self.api.post(objects.CLASSES, storage_class)
        self._class = storage_class

    def namespace(self, prefix: str) -> str:
        """Create a namespace for one measurement, and return its name."""
        self._namespaces += 1
        name = f"{prefix}-{self._namespaces}"
        self.api.post(objects.NAMESPACES, {"metadata": {"name": name}})
        return name

    def flood(self, *requests: Request) -> Flooded:
        """Send requests as fast as the API server answers."""
        return flood(self._target, requests)

    def create_claims(self, namespace: str, count: int) -> Flooded:
        """Create claims with the annotations that hand them to the program."""
        path = objects.claims_path(namespace)
        return self.flood(*(Request("POST", path, objects.claim(f"claim-{i}")) for i in range(count)))

    def release(self, namespace: str) -> Flooded:
        """Delete a namespace's claims, then set its volumes to Released, as the volume binder does; time only that."""
        path = objects.claims_path(namespace)
        claims = [claim["metadata"]["name"] for claim in self.api.list(path)]
        self.flood(*(Request("DELETE", f"{path}/{name}") for name in claims))
        phase = {"status": {"phase": "Released"}}
        names = self.volumes.names(namespace)
        return self.flood(*(Request("PATCH", f"{VOLUMES}/{name}/status", phase) for name in names))

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        """Open a connection for requests that are timed one by one."""
        host = self._target.url.removeprefix("https://")
        context = ssl.create_default_context(cafile=str(self._target.ca_file))
        connection = http.client.HTTPSConnection(host, context=context, timeout=30.0)
        try:
            connection.connect()
            yield connection
        finally:
            connection.close()

    def post_claim(self, connection: http.client.HTTPSConnection, namespace: str, name: str) -> None:
        """Create a claim on a connection of `connection`. Raises ConnectionError if the API server refuses it."""
        status, text = self._request(
            connection, "POST", objects.claims_path(namespace), json.dumps(objects.claim(name))
        )
        if status != 201:
            raise ConnectionError(f"claim {name}: {status} {text[:500]}")

    def _request(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: str | None = None
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self._target.token}", "Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


@contextmanager
def open_bench() -> Iterator[Bench]:
    """Start the API server, until the context closes; the caller starts the programs that it measures."""
    user = TokenUser.new("bench", "system:masters")
    with TemporaryDirectory(prefix="bench-") as directory:
        plane = ControlPlane(
            Path(directory, "controlplane"),
            users=[user],
            api_server_flags=["--disable-admission-plugins=StorageObjectInUseProtection"],
        )
        with ExitStack() as stack:
            stack.callback(plane.stop)
            for server in (plane.etcd, plane.api_server):
                server.start()
                server.wait_ready()
            yield Bench(plane, user, Path(directory), stack)

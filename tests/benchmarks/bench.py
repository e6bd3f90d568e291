"""The setup of the measurements: one API server, one export in a temporary directory, and one daemon.

kube-controller-manager does not run, so that only the daemon and the measurement write: the bench sets the annotations
that hand claims to the daemon, and the phase Released of volumes. Admission would add the finalizers
kubernetes.io/pvc-protection and pv-protection, which only that manager removes, so its plugin is off: a volume is gone
when the daemon removes its own finalizer.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.cluster import ControlPlane, TokenUser
from tests.benchmarks import objects, usage
from tests.benchmarks.flood import Flooded, Request, Target, flood
from tests.benchmarks.volume_watch import VOLUMES, VolumeWatch
from tests.support.daemon import Daemon


class Bench:
    """The servers and calls of a measurement; see `open_bench`."""

    def __init__(self, plane: ControlPlane, user: TokenUser, daemon: Daemon, export: Path) -> None:
        self.api = plane.api_as(user)
        self.daemon = daemon
        self.export = export
        self.volumes = VolumeWatch(self.api)
        self._target = Target(url=plane.url, ca_file=plane.ca_file, token=user.token)
        self._servers = [plane.etcd, plane.api_server]
        self._namespaces = 0

    def server_cpu_s(self) -> float:
        """Return the seconds of CPU that the API server and etcd have used."""
        return sum(usage.cpu_s(server.pid) for server in self._servers if server.pid is not None)

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
        """Create claims with the annotations that hand them to the daemon."""
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
    def one_by_one(self, namespace: str) -> Iterator[http.client.HTTPSConnection]:
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
        """Create a claim on a connection of `one_by_one`. Raises ConnectionError for a refusal."""
        headers = {"Authorization": f"Bearer {self._target.token}", "Content-Type": "application/json"}
        connection.request("POST", objects.claims_path(namespace), json.dumps(objects.claim(name)), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise ConnectionError(f"claim {name}: {answer.status} {body[:500].decode(errors='replace')}")


@contextmanager
def open_bench(*, workers: int) -> Iterator[Bench]:
    """Start the API server and create the class, until the context closes; the caller starts the daemon."""
    user = TokenUser.new("bench", "system:masters")
    with TemporaryDirectory(prefix="bench-") as directory:
        (export := Path(directory, "export")).mkdir()
        plane = ControlPlane(
            Path(directory, "controlplane"),
            users=[user],
            api_server_flags=["--disable-admission-plugins=StorageObjectInUseProtection"],
        )
        daemon = Daemon(
            provisioner_name=objects.PROVISIONER,
            kubeconfig=plane.kubeconfig_for(user),
            flags=(f"--export={objects.SERVER}:{objects.SHARE}={export}", f"--workers={workers}"),
            log=Path(directory, "daemon.log"),
            environment={},
        )
        try:
            for server in (plane.etcd, plane.api_server):
                server.start()
                server.wait_ready()
            bench = Bench(plane, user, daemon, export)
            bench.api.post(objects.CLASSES, objects.storage_class())
            yield bench
        finally:
            daemon.kill()
            plane.stop()

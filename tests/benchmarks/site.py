"""Where it is all measured: one API server, one export in a temporary directory, and one daemon, started when needed.

kube-controller-manager does not run, so that nobody but the daemon and the measurement writes: the bench itself
puts the annotations on claims that say "yours", and sets the phase of volumes to Released. Admission would put the
finalizers kubernetes.io/pvc-protection and pv-protection on them, which only that manager takes away again, so its
plugin is off: a volume is gone when the daemon has taken its own finalizer off.
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
from tests.benchmarks.sightings import VOLUMES, Sightings
from tests.support.daemon import Daemon


class Site:
    """See `open_site`."""

    def __init__(self, plane: ControlPlane, user: TokenUser, daemon: Daemon, export: Path) -> None:
        self.api = plane.api_as(user)
        self.daemon = daemon
        self.export = export
        self.sightings = Sightings(self.api)
        self._target = Target(url=plane.url, ca_file=plane.ca_file, token=user.token)
        self._servers = [plane.etcd, plane.api_server]
        self._namespaces = 0

    def server_cpu_s(self) -> float:
        """Seconds of CPU that the API server and etcd have used."""
        return sum(usage.cpu_s(server.pid) for server in self._servers if server.pid is not None)

    def namespace(self, prefix: str) -> str:
        """A new namespace: each measurement has its own."""
        self._namespaces += 1
        name = f"{prefix}-{self._namespaces}"
        self.api.post(objects.NAMESPACES, {"metadata": {"name": name}})
        return name

    def flood(self, *requests: Request) -> Flooded:
        """Send requests as fast as they are taken."""
        return flood(self._target, requests)

    def create_claims(self, namespace: str, count: int) -> Flooded:
        """Claims that the cluster handed to us already."""
        path = objects.claims_path(namespace)
        return self.flood(*(Request("POST", path, objects.claim(f"claim-{i}")) for i in range(count)))

    def release(self, namespace: str) -> Flooded:
        """Delete the claims of a namespace, and then say of its volumes what the volume binder would; that is timed."""
        path = objects.claims_path(namespace)
        claims = [claim["metadata"]["name"] for claim in self.api.list(path)]
        self.flood(*(Request("DELETE", f"{path}/{name}") for name in claims))
        phase = {"status": {"phase": "Released"}}
        names = self.sightings.names(namespace)
        return self.flood(*(Request("PATCH", f"{VOLUMES}/{name}/status", phase) for name in names))

    @contextmanager
    def one_by_one(self, namespace: str) -> Iterator[http.client.HTTPSConnection]:
        """A connection that stays open, for requests of which each is timed."""
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
def open_site(*, workers: int) -> Iterator[Site]:
    """Start the API server and make the class; the daemon is the caller's to start. All ends with the context."""
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
            site = Site(plane, user, daemon, export)
            site.api.post(objects.CLASSES, objects.storage_class())
            yield site
        finally:
            daemon.kill()
            plane.stop()

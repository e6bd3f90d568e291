"""The setup of the measurements: an API server, and a temporary directory for exports.

By default kube-controller-manager does not run, so that only the measured program and the measurement write: the bench
sets the annotations that hand claims to the program, and the phases of claims and volumes. Admission would add the
finalizers kubernetes.io/pvc-protection and pv-protection, which only that manager removes, so its plugin is off: a
volume is gone when the daemon removes its own finalizer, or when the peer, which sets none, deletes it.

With `whole=True` the manager runs, admission is complete, and the bench only creates and deletes claims.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.api import Api, ApiError, Object
from testbed.cluster import ControlPlane, TokenUser
from testbed.processes import Server
from testbed.waiting import eventually
from tests.benchmarks import objects, usage
from tests.benchmarks.flood import Flooded, Request, Target, flood
from tests.benchmarks.watching import VolumeWatch, Watch, claim_moment

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_FLOW_CONTROL = "/apis/flowcontrol.apiserver.k8s.io/v1"
_PAGE = "5000"
_SEEN_S = 120.0
"""Until the cache of the API server has what was written into etcd."""
PROGRAM = "program"
"""The user of the measured program, and the FlowSchema that counts its requests."""


class Bench:
    """The servers and calls of a measurement; see `open_bench`."""

    def __init__(
        self, plane: ControlPlane, *, user: TokenUser, program: TokenUser, directory: Path, at_end: ExitStack
    ) -> None:
        self.api = plane.api_as(user)
        self.kubeconfig = plane.kubeconfig_for(program)
        self.directory = directory
        self.volumes = VolumeWatch(self.api)
        self._plane = plane
        self._target = Target(url=plane.url, ca_file=plane.ca_file, token=user.token)
        self._servers = [plane.etcd, plane.api_server]
        self._namespaces = 0
        self._classes: Sequence[Object] = ()
        self._at_end = at_end

    def kill_at_end(self, server: Server) -> None:
        """Kill a server when the bench closes."""
        self._at_end.callback(server.kill)

    def server_cpu_s(self) -> float:
        """Return the seconds of CPU that the API server and etcd have used."""
        return sum(usage.cpu_s(server.pid) for server in self._servers if server.pid is not None)

    def metrics(self) -> str:
        """Return the metrics of the API server."""
        with self.connection() as connection:
            status, text = self._request(connection, "GET", "/metrics")
        if status != 200:
            raise ConnectionError(f"GET /metrics: {status} {text[:500]}")
        return text

    def api_requests(self) -> Counter[str]:
        """Return how many requests for volumes the API server has answered; see `usage.api_requests`."""
        return usage.api_requests(self.metrics())

    def use_classes(self, classes: Sequence[Object]) -> None:
        """Create the classes of all claims, in place of those of another program."""
        if self._classes == classes:
            return
        for one in self._classes:
            self.api.delete(f"{objects.CLASSES}/{one['metadata']['name']}")
        for one in classes:
            self.api.post(objects.CLASSES, one)
        self._classes = classes

    def namespace(self, prefix: str) -> str:
        """Create a namespace for one measurement, and return its name."""
        self._namespaces += 1
        name = f"{prefix}-{self._namespaces}"
        self.api.post(objects.NAMESPACES, {"metadata": {"name": name}})
        return name

    def flood(self, *requests: Request) -> Flooded:
        """Send requests as fast as the API server answers."""
        return flood(self._target, requests)

    def create_claims(self, namespace: str, count: int) -> None:
        """Create pending claims that are handed to the program: one per class by the API server, the others as copies.

        The copies go straight into etcd, where 10,000 of them take seconds.
        """
        classes = len(self._classes)
        path = objects.claims_path(namespace)
        for number in range(min(classes, count)):
            template = self.api.post(path, objects.claim(number, classes=classes))
            self._write(objects.copies(template, (count - 1 - number) // classes, step=classes))

    def bind(self, namespace: str) -> None:
        """Set a namespace's claims and their volumes to Bound, as the volume binder does."""
        self._write(map(objects.bound, self.items(objects.claims_path(namespace))))
        self._set_phase(namespace, "Bound")

    def release(self, namespace: str) -> None:
        """Remove a namespace's claims, then set its volumes to Released, as the volume binder does."""
        claims = [objects.bound(claim) for claim in self.items(objects.claims_path(namespace))]
        self._plane.erase(map(objects.key, claims))
        if claims:
            self._wait_seen(objects.path(claims[-1]))
        self._set_phase(namespace, "Released")

    def _set_phase(self, namespace: str, phase: str) -> None:
        volumes = (one for one in self.items(objects.VOLUMES) if one["spec"]["claimRef"]["namespace"] == namespace)
        self._write(objects.in_phase(volume, phase) for volume in volumes)

    def _write(self, items: Iterable[Object]) -> None:
        """Write objects into etcd, and wait until the cache of the API server has the last one."""
        path = ""

        def keyed() -> Iterator[tuple[str, Object]]:
            nonlocal path
            for item in items:
                path = objects.path(item)
                yield objects.key(item), item

        self._plane.write(keyed())
        if path:
            self._wait_seen(path)

    def _wait_seen(self, path: str) -> None:
        """Wait until the cache of the API server has an object, or its absence, as etcd has it."""
        eventually(
            lambda: self._version(path, resourceVersion="0") == self._version(path),
            f"the API server has read {path}",
            timeout_s=_SEEN_S,
        )

    def _version(self, path: str, **query: str) -> str:
        """Return the resourceVersion of an object; empty if it does not exist."""
        try:
            return str(self.api.get(path, **query)["metadata"]["resourceVersion"])
        except ApiError as exc:
            if exc.status != 404:
                raise
            return ""

    def items(self, path: str) -> Iterator[Object]:
        """Yield the items of a collection, page by page."""
        query = {"limit": _PAGE}
        while True:
            page = self.api.get(path, **query)
            yield from page["items"]
            if not (token := page["metadata"].get("continue")):
                return
            query["continue"] = token

    def watch_claims(self) -> Watch:
        """Watch when claims become Bound."""
        return Watch(self.api, objects.CLAIMS, claim_moment)

    def expire(self) -> None:
        """Make every client list again: the history of etcd is gone, and the API server restarts."""
        # Compact first, while the API server still runs: a leader must not miss its Lease for long.
        self._plane.compact()
        server = self._plane.api_server
        server.kill()
        server.start()
        # It reads all objects before it is ready.
        server.wait_ready(timeout_s=300.0)
        self.volumes = VolumeWatch(self.api)

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

    def post_claim(self, connection: http.client.HTTPSConnection, namespace: str, claim: Object) -> None:
        """Create a claim on a connection of `connection`. Raises ConnectionError if the API server refuses it."""
        status, text = self._request(connection, "POST", objects.claims_path(namespace), json.dumps(claim))
        if status != 201:
            raise ConnectionError(f"claim {claim['metadata']['name']}: {status} {text[:500]}")

    def _request(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: str | None = None
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {self._target.token}", "Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


@contextmanager
def open_bench(*, whole: bool = False) -> Iterator[Bench]:
    """Start the API server, until the context closes; the caller starts the programs that it measures."""
    user, program = TokenUser.new("bench", "system:masters"), TokenUser.new(PROGRAM)
    with TemporaryDirectory(prefix="bench-") as directory:
        plane = ControlPlane(
            Path(directory, "controlplane"),
            users=[user, program],
            api_server_flags=[] if whole else ["--disable-admission-plugins=StorageObjectInUseProtection"],
        )
        with ExitStack() as stack:
            stack.callback(plane.stop)
            for server in (plane.etcd, plane.api_server, *([plane.controller_manager] if whole else [])):
                server.start()
                server.wait_ready()
            _admit(plane.api_as(user))
            yield Bench(plane, user=user, program=program, directory=Path(directory), at_end=stack)


def _admit(api: Api) -> None:
    """Give the program all rights, and a FlowSchema of its own that never delays a request: its metric counts them."""
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": PROGRAM}
    role = {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "cluster-admin"}
    api.post(f"{_RBAC}/clusterrolebindings", {"metadata": {"name": PROGRAM}, "subjects": [subject], "roleRef": role})
    rule = {
        "subjects": [{"kind": "User", "user": {"name": PROGRAM}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
        ],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    spec = {"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "exempt"}, "rules": [rule]}
    api.post(f"{_FLOW_CONTROL}/flowschemas", {"metadata": {"name": PROGRAM}, "spec": spec})

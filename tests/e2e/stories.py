"""Shared code of the stories on real nodes: pods as small values, and a namespace that runs them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from testbed.api import ApiError, Object
from tests.e2e.nodes.cluster import NodeCluster
from tests.support.storage import Storage

MARIADB_10_11, MARIADB_11_8, NGINX, PROMETHEUS = "mariadb:10.11", "mariadb:11.8", "nginx", "prometheus"

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
"""The label of a namespace that accepts only restricted pods (Kubernetes, Pod Security Admission)."""

IDLE = ("sh", "-c", "trap exit TERM; sleep infinity & wait")
"""The command of a pod for `Story.run`, which exits on SIGTERM."""

PATIENCE_S = 420.0
"""For what takes a minute on idle emulated processors."""


def pod_spec(
    image: str,
    *command: str,
    uid: int = 1000,
    claims: Mapping[str, str] | None = None,
    configs: Mapping[str, str] | None = None,
    scratch: Sequence[str] = (),
    ready: Object | None = None,
    fs_group: int | None = None,
    **fields: object,
) -> Object:
    """Return the spec of a pod with one restricted container; `fields` override what is set here.

    `claims` and `configs` map mount paths to claims and ConfigMaps, `scratch` lists the paths of empty directories, and
    `ready` is the readiness probe, such as {"tcpSocket": {"port": 80}}.
    """
    sources: dict[str, Object] = {}
    for path, name in (claims or {}).items():
        sources[path] = {"name": name, "persistentVolumeClaim": {"claimName": name}}
    for path, name in (configs or {}).items():
        sources[path] = {"name": name, "configMap": {"name": name}}
    for number, path in enumerate(scratch):
        sources[path] = {"name": f"scratch-{number}", "emptyDir": {}}
    container: Object = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command or IDLE),
        "volumeMounts": [{"name": source["name"], "mountPath": path} for path, source in sources.items()],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if ready:
        patient = {"periodSeconds": 2, "timeoutSeconds": 20, "failureThreshold": 200}
        container["readinessProbe"] = ready | patient
    security: Object = {"runAsNonRoot": True, "runAsUser": uid, "seccompProfile": {"type": "RuntimeDefault"}}
    if fs_group is not None:
        security["fsGroup"] = fs_group
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 120,
        "securityContext": security,
        "containers": [container],
        "volumes": list(sources.values()),
    } | fields


def pod(name: str, spec: Object) -> Object:
    """Return a pod that `Story.ready` finds by its name."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def workload(kind: str, name: str, spec: Object, **fields: object) -> Object:
    """Return a Deployment or StatefulSet whose pods `Story.ready` finds by its name; `fields` extend its spec."""
    labels = {"app": name}
    own = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": own | fields}


def service(name: str, port: int) -> Object:
    """Return a Service for the pods of the workload of that name."""
    spec = {"selector": {"app": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def config_map(name: str, files: Mapping[str, str]) -> Object:
    """Return a ConfigMap with files."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(files)}


def is_ready(pod: Object) -> bool:
    """Whether the pod is Ready and not terminating."""
    conditions = pod["status"].get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


class Story(Storage):
    """A namespace that accepts only restricted pods; every failed wait reports its pods too."""

    def __init__(self, cluster: NodeCluster, *, daemon_logs: Callable[[], str]) -> None:
        self.cluster = cluster
        super().__init__(cluster.api, f"story-{secrets.token_hex(4)}", daemon_logs=daemon_logs)
        cluster.api.post("/api/v1/namespaces", {"metadata": {"name": self.namespace, "labels": RESTRICTED}})

    def apply(self, *objects: Object) -> None:
        """Create or update objects in this namespace."""
        place = {"namespace": self.namespace}
        self.cluster.apply(*({**each, "metadata": each["metadata"] | place} for each in objects))

    def pods(self, app: str) -> list[Object]:
        """Return the pods of a workload, sorted by name, including terminating ones."""
        found = self.api.list(self._path("pods"), labelSelector=f"app={app}")
        return sorted(found, key=lambda each: str(each["metadata"]["name"]))

    def ready(self, app: str, count: int = 1, *, timeout_s: float = PATIENCE_S) -> list[Object]:
        """Wait until a workload has exactly `count` ready pods, and return them."""

        def found() -> list[Object] | None:
            ready = [each for each in self.pods(app) if is_ready(each)]
            return ready if len(ready) == count else None

        return self.eventually(found, f"{count} pods of {app} are ready", timeout_s=timeout_s)

    def start(self, name: str, spec: Object) -> Object:
        """Run a pod, wait until it is ready, and return it."""
        self.apply(pod(name, spec))
        (started,) = self.ready(name)
        return started

    def run(self, name: str, *words: str, input: bytes = b"", timeout_s: float = PATIENCE_S) -> str:
        """Run a command in a pod and return its stdout."""
        return self.cluster.execute(self.namespace, name, *words, input=input, timeout_s=timeout_s)

    def shell(self, name: str, script: str) -> str:
        """Run a shell script in a pod and return its stdout without the last newline."""
        return self.run(name, "sh", "-ec", script).rstrip("\n")

    def cluster_ip(self, name: str) -> str:
        """Return the cluster address of a Service."""
        address: str = self.api.get(f"{self._path('services')}/{name}")["spec"]["clusterIP"]
        return address

    def scale(self, kind: str, name: str, replicas: int) -> None:
        """Scale a workload of a kind, such as `statefulsets`."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/{kind}/{name}/scale"
        self.api.patch(path, {"spec": {"replicas": replicas}})

    def delete_pod(self, name: str) -> None:
        """Delete a pod and wait until it is gone."""
        self.api.delete(f"{self._path('pods')}/{name}")
        self.gone(f"{self._path('pods')}/{name}")

    def gone(self, path: str, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until an object is gone."""

        def absent() -> bool:
            try:
                self.api.get(path)
            except ApiError as exc:
                return exc.status == 404
            return False

        self.eventually(absent, f"{path} is gone", timeout_s=timeout_s)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note in the cluster's report how long a successful step took."""
        started = time.monotonic()
        yield
        self.cluster.report.note(what, time.monotonic() - started)

    def end(self) -> None:
        """Delete the namespace with its content, and the classes created here."""
        path = f"/api/v1/namespaces/{self.namespace}"
        self.delete_if_there(path)
        self.gone(path)
        self.remove_classes()

    def explain(self) -> str:
        """Return the pods' states, the namespace's events, and the daemons' last log lines."""
        try:
            pods = self.api.list(self._path("pods"))
        except (ApiError, OSError) as exc:
            return f"the pods cannot be read: {exc}\n{super().explain()}"
        lines = [
            f"{each['metadata']['name']} on {each['spec'].get('nodeName')}: {each['status'].get('containerStatuses')}"
            for each in pods
        ]
        return "\n".join(["--- pods", *lines, super().explain()])

    def _path(self, resource: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{resource}"

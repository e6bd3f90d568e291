"""The chart on a real API server: every object is valid, and the pods meet Pod Security Standards."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.api import Api, ApiError, Object
from testbed.cluster import ControlPlane
from testbed.helm import Helm
from testbed.waiting import eventually
from tests.integration.chart.rendering import CHART, VALUE_SETS, Release, Renderer, collection

pytestmark = pytest.mark.timeout(120)

STRICT = "?dryRun=All&fieldValidation=Strict"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

STRING: Object = {"type": "string"}
STRINGS: Object = {"type": "object", "additionalProperties": STRING}
RELABELING: Object = {
    "type": "object",
    "properties": {
        "sourceLabels": {"type": "array", "items": STRING},
        "targetLabel": STRING,
        "regex": STRING,
        "replacement": STRING,
        "action": STRING,
    },
}
MONITORED: dict[str, Object] = {
    "ServiceMonitor": {
        "jobLabel": STRING,
        "namespaceSelector": {"type": "object", "properties": {"matchNames": {"type": "array", "items": STRING}}},
        "selector": {"type": "object", "properties": {"matchLabels": STRINGS}},
        "endpoints": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("port", "path", "interval", "scrapeTimeout"), STRING),
                    "honorLabels": {"type": "boolean"},
                    "relabelings": {"type": "array", "items": RELABELING},
                    "metricRelabelings": {"type": "array", "items": RELABELING},
                },
            },
        },
    },
    "PrometheusRule": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": STRING,
                    "rules": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                **dict.fromkeys(("alert", "expr", "for"), STRING),
                                **dict.fromkeys(("labels", "annotations"), STRINGS),
                            },
                        },
                    },
                },
            },
        },
    },
}
"""The fields that we use, from Prometheus Operator's API reference: strict validation refuses others."""
ELSEWHERE = {
    "observed": ("grafanaDashboard__namespace",),
    "extras": ("namespaceOverride", "serviceMonitor__namespace", "prometheusRule__namespace"),
}
"""Values by which a value set puts objects into another namespace; the tests have only their own."""


@pytest.fixture(scope="module", autouse=True)
def monitoring(control_plane: ControlPlane) -> Iterator[None]:
    """Prometheus Operator's resources, while this module's tests run."""
    api = control_plane.api
    for kind, spec in MONITORED.items():
        api.post(CRDS, _definition(kind, spec))
    paths = [f"/apis/monitoring.coreos.com/v1/{kind.lower()}s" for kind in MONITORED]
    eventually(lambda: [api.get(path) for path in paths], "both are served", timeout_s=30)
    yield
    for kind in MONITORED:
        api.delete(f"{CRDS}/{kind.lower()}s.monitoring.coreos.com")


def _definition(kind: str, spec: Object) -> Object:
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    return {
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture
def guarded(cluster_api: Api, namespace: str) -> Callable[[str], str]:
    """Lets the test's namespace enforce a Pod Security Standard, and returns its name."""

    def enforce(level: str) -> str:
        label = {"pod-security.kubernetes.io/enforce": level}
        cluster_api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": label}})
        return namespace

    return enforce


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_every_object_is_valid(cluster_api: Api, namespace: str, render: Renderer, path: Path) -> None:
    """The API server accepts every object of every value set, with hooks, and knows each field."""
    release = render(path, namespace=namespace, **dict.fromkeys(ELSEWHERE.get(path.stem, ()), namespace))
    assert len(release.objects) >= 5
    for body in release.objects:
        answer = cluster_api.post(collection(cluster_api, body) + STRICT, body)
        assert answer["kind"] == body["kind"]


def pods(release: Release) -> list[Object]:
    """Return the pods of the Deployment and of `helm test`."""
    metadata = {"name": "daemon"}
    return [{"metadata": metadata, "spec": release.pod["spec"]}, *release.all("Pod")]


def admit(api: Api, namespace: str, pod: Object) -> None:
    """Create the pod as a dry run. Raises ApiError if the namespace refuses it."""
    metadata = {"name": pod["metadata"]["name"]}
    spec = {key: value for key, value in pod["spec"].items() if key != "priorityClassName"}
    api.post(f"/api/v1/namespaces/{namespace}/pods{STRICT}", {"metadata": metadata, "spec": spec})


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_pod_security(cluster_api: Api, guarded: Callable[[str], str], render: Renderer, path: Path) -> None:
    """Pods meet the restricted Pod Security Standard, with a mounted export the baseline one."""
    namespace = guarded("baseline" if path.stem.startswith("mounted") else "restricted")
    for pod in pods(render(path, namespace=namespace)):
        admit(cluster_api, namespace, pod)


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_notes(cluster_helm: Helm, namespace: str, path: Path) -> None:
    """The notes of every value set name the provisioner, the check command and a claim to try."""
    command = ("install", "storage", CHART, f"--namespace={namespace}", f"--values={path}", "--dry-run=server")
    _, _, notes = cluster_helm.run(*command).partition("\nNOTES:\n")
    assert "whose provisioner is" in notes
    assert "nfs-provisioner check" in notes
    assert "storageClassName: nfs" in notes or "storageClassName: second-nfs" in notes
    assert ("runs as root" in notes) == path.stem.startswith("mounted")
    assert ("a different program" in notes) == (path.stem == "peer-defaults")
    assert ("podSecurityPolicy.enabled has no effect" in notes) == (path.stem == "peer-ci")


def test_pod_security_is_enforced_here(cluster_api: Api, guarded: Callable[[str], str], render: Renderer) -> None:
    """The test's namespace refuses a pod that is not restricted."""
    namespace = guarded("restricted")
    pod, *_ = pods(render(CHART / "ci" / "mounted.yaml", namespace=namespace))
    with pytest.raises(ApiError, match="restricted"):
        admit(cluster_api, namespace, pod)


def test_an_unknown_field_is_noticed_here(cluster_api: Api, namespace: str, render: Renderer) -> None:
    """The tests' validation refuses an unknown field."""
    release = render(CHART / "ci" / "observed.yaml", namespace=namespace)
    for kind, section in (("Deployment", "spec"), ("ServiceMonitor", "spec"), ("StorageClass", "parameters")):
        body = json.loads(json.dumps(release.one(kind)))
        body[section]["nonsense"] = {"x": 1}
        with pytest.raises(ApiError, match=r"nonsense|unmarshal"):
            cluster_api.post(collection(cluster_api, body) + STRICT, body)

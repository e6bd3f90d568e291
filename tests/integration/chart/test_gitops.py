"""The chart as Argo CD and Flux apply it: the same manifests each time, and no difference once they are applied."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.api import Api, ApiError, Object
from testbed.cluster import ControlPlane
from testbed.helm import Helm
from testbed.waiting import eventually
from tests.integration.chart.rendering import CHART, VALUE_SETS, Release, Renderer, collection

pytestmark = pytest.mark.timeout(120)

APPLY = "application/apply-patch+yaml"
MANAGER = "?fieldManager=gitops&force=true"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


def objects(manifests: str, namespace: str) -> list[Object]:
    """Return the objects of a release that this API server knows, in the test's namespace."""
    found = [each for each in yaml.safe_load_all(manifests) if each]
    ours = [each for each in found if "monitoring.coreos.com" not in each["apiVersion"]]
    return [each for each in ours if each["metadata"].get("namespace", namespace) == namespace]


def path_of(api: Api, body: Object) -> str:
    """Return the path of an object."""
    return f"{collection(api, body)}/{body['metadata']['name']}"


@pytest.fixture
def values(namespace: str, tmp_path: Path) -> Path:
    """Values with names that no other test uses, and with much of what the chart can render."""
    name = f"gitops-{secrets.token_hex(4)}"
    chosen: dict[str, Any] = {
        "fullnameOverride": name,
        "nfs": {"server": "nas", "path": "/x", "mountOptions": ["hard"]},
        "access": "mounted",
        "storageClass": {"name": name},
        "storageClasses": [{"name": f"{name}-keep", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate"}],
        "networkPolicy": {"enabled": True},
        "grafanaDashboard": {"enabled": True},
        "autoGrow": {"enabled": True},
        "commonAnnotations": {"example.com/contact": "storage@example.com"},
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["nas"]}],
    }
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(chosen))
    return path


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_rendering_twice_is_identical(helm: Helm, path: Path) -> None:
    """The same values render the same bytes: nothing is random, a date, or read from the cluster."""
    first, second = (helm.run("template", "storage", CHART, f"--values={path}") for _ in range(2))
    assert first == second


def test_no_template_reads_the_cluster() -> None:
    """No template uses a function whose answer another cluster, time or call can change."""
    for template in (CHART / "templates").rglob("*"):
        if template.is_file():
            words = set(template.read_text().replace("(", " ").split())
            assert not words & {"lookup", "now", "randAlphaNum", "randAlpha", "uuidv4", "genCA", "getHostByName"}


@pytest.mark.parametrize("elects", [True, False], ids=["two replicas", "one replica"])
@pytest.mark.parametrize("server_side", [True, False], ids=["server-side", "client-side"])
def test_kubectl_finds_no_difference(
    cluster_helm: Helm, control_plane: ControlPlane, namespace: str, values: Path, server_side: bool, elects: bool
) -> None:
    """After `helm install`, `kubectl diff` of the rendered manifests is empty."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("this machine cannot run kubectl diff: kubectl is missing")
    where = (f"--namespace={namespace}", f"--values={values}", f"--set=leaderElection.enabled={str(elects).lower()}")
    cluster_helm.run("install", "storage", CHART, *where)
    try:
        manifests = cluster_helm.run(
            "template", "storage", CHART, *where, "--no-hooks", f"--kube-version={_version(control_plane.api)}"
        )
        flags = ["--server-side", "--force-conflicts"] if server_side else []
        command = [kubectl, f"--kubeconfig={control_plane.kubeconfig}", "diff", f"--namespace={namespace}", *flags]
        done = subprocess.run(
            [*command, "--filename=-"], input=manifests, capture_output=True, text=True, timeout=90, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    finally:
        cluster_helm.run("uninstall", "storage", f"--namespace={namespace}")


def _version(api: Api) -> str:
    return str(api.get("/version")["gitVersion"])


def test_applying_twice_changes_nothing(cluster_api: Api, helm: Helm, namespace: str, values: Path) -> None:
    """A second server-side apply of the same manifests leaves every object as it is."""
    manifests = helm.run("template", "storage", CHART, f"--namespace={namespace}", f"--values={values}", "--no-hooks")
    bodies = objects(manifests, namespace)
    assert len(bodies) > 12
    applied = []
    try:
        for body in bodies:
            applied.append(path_of(cluster_api, body))
            cluster_api.patch(applied[-1] + MANAGER, body, content_type=APPLY)
        for path, body in zip(applied, bodies, strict=True):
            before = cluster_api.get(path)
            again = cluster_api.patch(f"{path}{MANAGER}&dryRun=All", body, content_type=APPLY)
            # Controllers write status and bind the claim in the meantime.
            for each in (before, again):
                each["metadata"] = {key: each["metadata"].get(key) for key in ("labels", "annotations", "generation")}
                each.pop("status", None)
            assert again == before, path
    finally:
        for path in reversed(applied):
            cluster_api.delete(path)


def test_a_changed_parameter_is_refused(cluster_api: Api, render: Renderer, namespace: str, values: Path) -> None:
    """The API server refuses another parameter of a class, with the words that the documentation quotes."""
    before = render(values, namespace=namespace).all("StorageClass")[0]
    after = render(values, namespace=namespace, storageClass__parameters={"mode": "0770"}).all("StorageClass")[0]
    path = path_of(cluster_api, before)
    cluster_api.patch(path + MANAGER, before, content_type=APPLY)
    try:
        with pytest.raises(ApiError, match=r"parameters: (Forbidden|Invalid value: .*field is immutable)"):
            cluster_api.patch(path + MANAGER, after, content_type=APPLY)
    finally:
        cluster_api.delete(path)


def test_a_dry_run_refuses_before_the_sync(
    control_plane: ControlPlane, helm: Helm, namespace: str, values: Path, tmp_path: Path
) -> None:
    """The documented command accepts the manifests as they are, and names the class whose parameters change."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("this machine cannot run kubectl apply: kubectl is missing")

    def apply(*flags: str, values: Path) -> subprocess.CompletedProcess[str]:
        rendered = tmp_path / "rendered.yaml"
        where = (f"--namespace={namespace}", f"--values={values}")
        rendered.write_text(helm.run("template", "storage", CHART, *where, "--no-hooks"))
        command = [kubectl, f"--kubeconfig={control_plane.kubeconfig}", "apply", "-n", namespace, *flags]
        return subprocess.run([*command, "-f", rendered], capture_output=True, text=True, timeout=90, check=False)

    try:
        assert apply(values=values).returncode == 0
        assert apply("--dry-run=server", values=values).returncode == 0
        chosen = yaml.safe_load(values.read_text())
        chosen["storageClass"]["parameters"] = {"mode": "0770"}
        (tmp_path / "changed.yaml").write_text(yaml.safe_dump(chosen))
        answer = apply("--dry-run=server", values=tmp_path / "changed.yaml")
        assert answer.returncode != 0
        assert chosen["storageClass"]["name"] in answer.stderr
        assert re.search(r"parameters: (Forbidden|Invalid value)", answer.stderr)
    finally:
        for body in objects((tmp_path / "rendered.yaml").read_text(), namespace):
            control_plane.api.delete(path_of(control_plane.api, body))


# ------------------------------------------------------------------------------------------------ OpenShift

FIRST, LAST = 1000650000, 1000659999
IN_RANGE = " && ".join(
    f"{where}.orValue({FIRST}) >= {FIRST} && {where}.orValue({FIRST}) <= {LAST}"
    for where in (
        "object.spec.?securityContext.?runAsUser",
        "object.spec.?securityContext.?fsGroup",
        "object.spec.containers[0].?securityContext.?runAsUser",
    )
)


@pytest.fixture
def like_openshift(cluster_api: Api, namespace: str) -> Iterator[str]:
    """A namespace in which a pod can name no user outside of a range, as `restricted-v2` of OpenShift has it."""
    name = f"uid-range-{namespace}"
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    message = f"unable to validate against any security context constraint: must be in the ranges: [{FIRST}, {LAST}]"
    cluster_api.post(
        POLICIES,
        {
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
                "validations": [{"expression": IN_RANGE, "message": message}],
            },
        },
    )
    cluster_api.post(
        f"{POLICIES[:-3]}ybindings",
        {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}},
    )
    root = {"runAsUser": 0}
    # The API server enforces a new policy a moment later.
    eventually(
        lambda: refused(cluster_api, namespace, {"securityContext": root, "containers": [{"name": "x", "image": "x"}]}),
        "it is enforced",
        timeout_s=30,
    )
    yield namespace
    cluster_api.delete(f"{POLICIES[:-3]}ybindings/{name}")
    cluster_api.delete(f"{POLICIES}/{name}")


def refused(api: Api, namespace: str, spec: Object) -> str:
    """Return why the namespace refuses a pod; empty if it admits it."""
    try:
        api.post(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", {"metadata": {"name": "pod"}, "spec": spec})
    except ApiError as exc:
        return str(exc)
    return ""


def specs(release: Release) -> list[Object]:
    """Return the specs of all pods of a release."""
    return [release.pod["spec"], *(each["spec"] for each in release.all("Pod"))]


def test_openshift_admits_the_pods(cluster_api: Api, render: Renderer, like_openshift: str) -> None:
    """With the values for OpenShift the cluster chooses the user, and admits all pods; by default it refuses them."""
    cluster_api.patch(
        f"/api/v1/namespaces/{like_openshift}",
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    )
    for spec in specs(render(CHART / "ci" / "openshift.yaml", namespace=like_openshift)):
        assert refused(cluster_api, like_openshift, spec) == ""
    for spec in specs(render(CHART / "ci" / "minimal.yaml", namespace=like_openshift)):
        assert "must be in the ranges" in refused(cluster_api, like_openshift, spec)

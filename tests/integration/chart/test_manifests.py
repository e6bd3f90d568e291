"""The plain manifests: what the chart renders, valid, and usable as a base for kustomize."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.manifests import BASE, MONITORING, NAME, monitoring, rendered
from testbed import prometheus
from testbed.api import Api, ApiError
from testbed.helm import Helm
from tests.integration.chart.rendering import Release, collection, rules

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def kubectl() -> str:
    """kubectl, for kustomize; skipped where it is missing."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("this machine cannot run kustomize: kubectl is missing")
    return found


@pytest.fixture
def base_namespace(cluster_api: Api) -> Iterator[str]:
    """The base's namespace; one left by an earlier test is reused."""
    try:
        cluster_api.post("/api/v1/namespaces", {"metadata": {"name": NAME}})
    except ApiError as exc:
        if exc.status != 409:
            raise
    yield NAME
    cluster_api.delete(f"/api/v1/namespaces/{NAME}")


def built(kubectl: str, directory: str) -> Release:
    """Return what kustomize builds from a directory of deploy/."""
    done = subprocess.run(
        [kubectl, "kustomize", BASE.parent / directory], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return Release(list(yaml.safe_load_all(done.stdout)))


def test_the_manifests_are_up_to_date(helm: Helm) -> None:
    """deploy/base is what the chart renders; `make manifests` updates it."""
    assert {path.name: path.read_text() for path in BASE.iterdir()} == rendered(helm)


def test_the_files_for_monitoring_are_up_to_date(helm: Helm) -> None:
    """Rules and dashboard in deploy/monitoring are the chart's; `make manifests` updates them."""
    for name, text in monitoring(helm).items():
        assert (MONITORING / name).read_text() == text


def test_prometheus_accepts_the_files_for_monitoring(tmp_path: Path) -> None:
    """Prometheus accepts the scrape configuration and the rules."""
    reason = prometheus.missing()
    if reason:
        pytest.skip(f"this machine cannot check a configuration of Prometheus: {reason}")
    configuration = yaml.safe_load((MONITORING / "scrape.yaml").read_text())
    # Debian's Prometheus is built without the discovery by Kubernetes.
    configuration["scrape_configs"][0].pop("kubernetes_sd_configs")
    (tmp_path / "scrape.yaml").write_text(yaml.safe_dump(configuration))
    assert prometheus.promtool("check", "config", "--syntax-only", tmp_path / "scrape.yaml") == ""
    assert prometheus.promtool("check", "rules", MONITORING / "rules.yaml") == ""


def test_the_scrape_finds_what_the_rules_select() -> None:
    """The scrape keeps the Service of the plain manifests, with the job and the namespace that the rules select by."""
    (job,) = yaml.safe_load((MONITORING / "scrape.yaml").read_text())["scrape_configs"]
    (service,) = yaml.safe_load_all((BASE / "service.yaml").read_text())
    keep = next(each for each in job["relabel_configs"] if each.get("action") == "keep")
    (port,) = service["spec"]["ports"]
    assert keep["regex"] == f"{service['metadata']['name']};{port['name']}"
    assert job["kubernetes_sd_configs"][0]["namespaces"]["names"] == [service["metadata"]["namespace"]]
    (group,) = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    selector = f'job="{job["job_name"]}",namespace="{service["metadata"]["namespace"]}"'
    assert all(selector in rule["expr"] for rule in group["rules"])


def test_the_api_server_accepts_the_manifests(cluster_api: Api, base_namespace: str) -> None:
    """Each object is valid, in the namespace of the manifests."""
    bodies = [
        body
        for path in sorted(BASE.iterdir())
        if path.name not in ("kustomization.yaml", "namespace.yaml")
        for body in yaml.safe_load_all(path.read_text())
    ]
    assert len(bodies) >= 8
    for body in bodies:
        assert body["metadata"].get("namespace", base_namespace) == base_namespace
        cluster_api.post(collection(cluster_api, body) + "?dryRun=All&fieldValidation=Strict", body)


def test_the_manifests_have_no_traces_of_helm() -> None:
    """No label says that Helm manages the objects, and there is no hook."""
    for path in BASE.iterdir():
        assert "helm.sh/" not in path.read_text()
        assert "managed-by" not in path.read_text()


def test_kustomize_builds_the_manifests(kubectl: str) -> None:
    """The base builds with all its rights, and the example sets a site's export."""
    base, example = built(kubectl, "base"), built(kubectl, "example")
    assert len(list(rules(base))) > 10
    assert {each["kind"] for each in base.objects} == {each["kind"] for each in example.objects}
    assert example.environment()["NFS_SERVER"] == "nas.my-site.example"
    assert example.environment()["NFS_PATH"] == "/volume1/k8s"
    assert base.environment() | example.environment() == example.environment()

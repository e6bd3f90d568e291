"""Prometheus in a pod scrapes the replicas, and the chart's dashboard shows its data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from pictures import dashboard
from testbed.api import Object
from tests.e2e.installed import NAME, NAMESPACE, Installed
from tests.e2e.stories import PROMETHEUS, Story, config_map, pod_spec, workload

pytestmark = pytest.mark.timeout(3600)

PORT = 9090
SCRAPE_INTERVAL_S, STEP_S = 10, 110
"""Gives rates over two minutes, that is twelve scrapes, because a busy machine misses some."""

EMPTY = {
    "nfs_provisioner_trash_refused": "everything can be removed",
    "nfs_provisioner_volumes_nearly_full": "no quota agent runs",
    "nfs_provisioner_quota_heartbeat_age_seconds": "no quota agent runs",
    "nfs_provisioner_volume_used_bytes": "no quota agent runs",
    'code!~"2..|404|409"': "no call of the API server has failed",
}
"""Queries with data only in an unhealthy release, by a part of the query, and the reason."""

CONFIGURATION = {
    "global": {"scrape_interval": f"{SCRAPE_INTERVAL_S}s", "scrape_timeout": "9s"},
    "scrape_configs": [
        {
            "job_name": NAME,
            "kubernetes_sd_configs": [{"role": "endpointslice", "namespaces": {"names": [NAMESPACE]}}],
            # As in the chart's ServiceMonitor: the release's Service, its port, and the labels that alerts use.
            "relabel_configs": [
                {"source_labels": ["__meta_kubernetes_service_label_release"], "regex": NAME, "action": "keep"},
                {"source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": "http", "action": "keep"},
                {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"},
                {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            ],
        }
    ],
}
ASK = f"""
while read -r query; do promtool query instant -o json http://localhost:{PORT} "$query" </dev/null; echo; done
"""


def rbac(story: Story) -> list[Object]:
    """Return Prometheus's account with the right to find the release's endpoints only."""
    group, here, there = "rbac.authorization.k8s.io", story.namespace, NAMESPACE
    verbs = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods"], "verbs": verbs},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
    ]
    account = {"name": "prometheus", "namespace": here}
    metadata = {"name": here, "namespace": there}
    binding = {
        "roleRef": {"apiGroup": group, "kind": "Role", "name": here},
        "subjects": [{"kind": "ServiceAccount"} | account],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": metadata} | binding,
    ]


@pytest.fixture
def prometheus(story: Story) -> Iterator[str]:
    """The name of a Prometheus pod that scrapes the release."""
    story.cluster.apply(*rbac(story))
    spec = pod_spec(
        *(PROMETHEUS, "prometheus", "--config.file=/etc/scraping/prometheus.yml", "--storage.tsdb.path=/data"),
        configs={"/etc/scraping": "scraping"},
        scratch=["/data"],
        ready={"httpGet": {"path": "/-/ready", "port": PORT}},
        serviceAccountName="prometheus",
        automountServiceAccountToken=True,
    )
    # JSON is valid YAML.
    story.apply(config_map("scraping", {"prometheus.yml": json.dumps(CONFIGURATION)}))
    with story.timed("Prometheus: from its Deployment to ready"):
        story.apply(workload("Deployment", "prometheus", spec))
        (pod,) = story.ready("prometheus")
    yield pod["metadata"]["name"]
    for kind in ("rolebindings", "roles"):
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/{kind}"
        story.delete_if_there(f"{path}/{story.namespace}")


def asked(story: Story, prometheus: str, *queries: str) -> list[list[dict[str, Any]]]:
    """Run queries with promtool in Prometheus's pod, and return the series of each."""
    output = story.run(prometheus, "sh", "-c", ASK, input="".join(f"{each}\n" for each in queries).encode())
    answers = [json.loads(line) for line in output.splitlines() if line]
    assert len(answers) == len(queries), output
    return answers


def busy(story: Story, installed: Installed) -> None:
    """Create some data: volumes that are created and reclaimed, an archive, and a claim that is refused."""
    misspelt = story.storage_class(installed.provisioner, {"onDelet": "delete"})
    story.claim(misspelt, "refused")
    for name, class_name in (("kept", "nfs-client"), ("gone", "nfs-client"), ("old", "archived")):
        story.claim(class_name, name)
    volumes = {name: story.bound(name) for name in ("kept", "gone", "old")}
    for name in ("gone", "old"):
        story.delete_claim(name)
        story.volume_gone(volumes[name]["metadata"]["name"])
    story.event("ProvisioningFailed", "refused")


@pytest.mark.thorough
def test_dashboard(story: Story, installed: Installed, prometheus: str) -> None:
    """Prometheus scrapes both replicas, and each query of the dashboard has data, except for known reasons."""
    both = f'count(up{{job="{NAME}",namespace="{NAMESPACE}"}} == 1) == 2'
    series = partial(asked, story, prometheus)
    story.eventually(lambda: series(both)[0], "both replicas are scraped", timeout_s=120)
    pods = {each["metadata"]["name"] for each in installed.ready()}
    assert {each["metric"]["pod"] for each in series("nfs_provisioner_build_info")[0]} == pods
    assert [each["value"][1] for each in series("sum(nfs_provisioner_leader)")[0]] == ["1"]
    busy(story, installed)
    queries = [
        dashboard.filled(query.expression, scrape_interval_s=SCRAPE_INTERVAL_S, step_s=STEP_S)
        for panel in dashboard.all_panels()
        for query in panel.queries
    ]
    assert len(queries) > 20
    expected = {each for each in queries if not any(metric in each for metric in EMPTY)}

    def shown() -> bool:
        answers = series(*queries)
        return {query for query, answer in zip(queries, answers, strict=True) if answer} >= expected

    with story.timed(f"the dashboard's {len(queries)} queries: from the last claim's end to data for each"):
        story.eventually(shown, "every query has data", timeout_s=300)

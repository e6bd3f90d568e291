"""What admins add to a release: labels, annotations, flags, variables, host names, volumes, namespaces, objects."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.helm import HelmFailed
from tests.integration.chart.rendering import CHART, NAS, Renderer

pytestmark = pytest.mark.timeout(120)

EXTRAS = CHART / "ci" / "extras.yaml"
OF_CLUSTER = {
    "ClusterRole", "ClusterRoleBinding", "StorageClass", "PersistentVolume", "VolumeSnapshotClass",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
}  # fmt: skip
PEER_LABELS = {"app": "nfs-provisioner", "release": "nfs-provisioner"}


def test_labels_and_annotations(render: Renderer) -> None:
    """Common labels and annotations are on every object of the chart, and others only where they belong."""
    release = render(EXTRAS)
    ours = [each for each in release.objects if each["kind"] not in ("ConfigMap", "Pod")]
    ours = [each for each in ours if "helm.sh/hook" not in each["metadata"].get("annotations", {})]
    assert len(ours) > 12
    assert {each["metadata"]["labels"].get("team") for each in ours} == {"storage"}
    assert {each["metadata"]["annotations"]["example.com/contact"] for each in ours} == {"storage@example.com"}
    deployment = release.one("Deployment")
    assert deployment["metadata"]["annotations"]["reloader.stakater.com/auto"] == "true"
    assert "annotations" not in release.pod["metadata"]
    assert release.pod["metadata"]["labels"].items() >= {"sidecar.istio.io/inject": "false", "team": "storage"}.items()
    assert "sidecar.istio.io/inject" not in deployment["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == PEER_LABELS
    assert release.one("ServiceAccount")["metadata"]["labels"]["example.com/account"] == "provisioner"


def test_labels_by_both_names(render: Renderer) -> None:
    """The labels of `commonLabels` are labels by another name, and labels take precedence."""
    release = render(**NAS, labels={"a": 1}, commonLabels={"a": "2", "b": 2})
    assert release.one("Service")["metadata"]["labels"].items() >= {"a": "1", "b": "2"}.items()


def test_the_namespace_of_another_release(render: Renderer) -> None:
    """With namespaceOverride every object is in that namespace, and so is all that names one."""
    release = render(EXTRAS)
    where = {each["kind"]: each["metadata"].get("namespace") for each in release.objects}
    assert {kind for kind, namespace in where.items() if namespace is None} == OF_CLUSTER & set(where)
    monitoring = {kind for kind, namespace in where.items() if namespace == "monitoring"}
    assert monitoring == {"ServiceMonitor", "PrometheusRule"}
    assert set(where.values()) == {None, "monitoring", "storage"}
    subjects = [each["subjects"][0] for kind in ("ClusterRoleBinding", "RoleBinding") for each in release.all(kind)]
    assert {subject["namespace"] for subject in subjects} == {"storage"}
    policy = release.one("ValidatingAdmissionPolicy")["spec"]
    assert "system:serviceaccount:storage:" in policy["matchConditions"][0]["expression"]


def test_what_a_pod_gets(render: Renderer) -> None:
    """The daemon's pod has all that was added, and the pod of `helm test` has it too, except for the arguments."""
    release = render(EXTRAS, runtimeClassName="gvisor")
    (checking, _) = release.all("Pod")
    for spec in (release.pod["spec"], checking["spec"]):
        (container,) = spec["containers"]
        assert spec["runtimeClassName"] == "gvisor"
        assert spec["hostAliases"] == [{"ip": "192.0.2.7", "hostnames": ["nas.example"]}]
        assert (spec["dnsPolicy"], spec["dnsConfig"]) == ("None", {"nameservers": ["192.0.2.53"]})
        assert [each["name"] for each in spec["volumes"]] == ["authorities"]
        assert container["volumeMounts"][0]["mountPath"] == "/etc/ssl/site"
        assert container["env"][-1] == {"name": "KUBERNETES_SERVICE_HOST", "value": "api.cluster.example"}
        assert container["envFrom"] == [{"configMapRef": {"name": "site", "optional": True}}]
    assert release.container["args"] == ["run", "--workers=8"]
    assert release.pod["spec"]["terminationGracePeriodSeconds"] == 60
    assert release.one("Deployment")["spec"]["revisionHistoryLimit"] == 3


def test_a_mount_beside_the_export(render: Renderer) -> None:
    """Extra volumes stand beside the mounted export."""
    volumes: Any = [{"name": "krb5", "configMap": {"name": "krb5"}}]
    mounts: Any = [{"name": "krb5", "mountPath": "/etc/krb5"}, {"name": "nfs-provisioner-root", "mountPath": "/again"}]
    release = render(**NAS, access="mounted", extraVolumes=volumes, extraVolumeMounts=mounts)
    assert [each["name"] for each in release.pod["spec"]["volumes"]] == ["nfs-provisioner-root", "krb5"]
    assert [each["mountPath"] for each in release.container["volumeMounts"]] == [
        "/persistentvolumes", "/etc/krb5", "/again",
    ]  # fmt: skip


def test_a_budget_by_the_pods_that_stay(render: Renderer) -> None:
    """A budget by minAvailable has no maxUnavailable; it can be a percentage, and 0."""
    assert render(EXTRAS).one("PodDisruptionBudget")["spec"]["minAvailable"] == 1
    for given, found in (("50%", "50%"), ("0", 0), (0, 0)):
        budget = render(**NAS, podDisruptionBudget__minAvailable=given).one("PodDisruptionBudget")["spec"]
        assert budget["minAvailable"] == found
        assert "maxUnavailable" not in budget


def test_how_prometheus_finds_it(render: Renderer) -> None:
    """In another namespace a ServiceMonitor selects the provisioner's, and the alerts follow the label job."""
    release = render(EXTRAS, name="storage-nfs")
    monitor, rule = release.one("ServiceMonitor"), release.one("PrometheusRule")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["storage"]}
    assert monitor["spec"]["endpoints"][0]["honorLabels"] is True
    label = monitor["spec"]["jobLabel"]
    job = release.one("Service")["metadata"]["labels"][label]
    assert job == "storage-nfs"
    ours, own = rule["spec"]["groups"]
    assert all(f'job="{job}",namespace="storage"' in each["expr"] for each in ours["rules"])
    assert [each["alert"] for each in own["rules"]] == ["NfsVolumesMany"]
    assert monitor["metadata"]["annotations"]["example.com/scraped-by"] == "platform"
    assert rule["metadata"]["annotations"]["example.com/evaluated-by"] == "platform"
    beside = render(CHART / "ci" / "observed.yaml").one("ServiceMonitor")["spec"]
    assert not {"namespaceSelector", "jobLabel"} & set(beside)


def test_objects_of_one_s_own(render: Renderer) -> None:
    """Extra objects can be maps or texts, and can use the chart's templates."""
    site, note = render(EXTRAS, name="storage").all("ConfigMap")
    assert (site["metadata"]["name"], site["data"]) == ("storage-site", {"server": "nas.example"})
    assert note["metadata"]["name"] == "storage-nfs-provisioner-note"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"extraEnv": [{"name": "NFS_SERVER", "value": "x"}]}, "extraEnv: the chart sets NFS_SERVER itself"),
        ({"extraEnv": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]}, "or another entry does: remove"),
        ({"extraEnv": [{"value": "x"}]}, "name"),
        ({"extraVolumes": [{"name": "nfs-provisioner-root"}], "access": "mounted"}, "there are two volumes called nfs"),
        ({"extraVolumes": [{"name": "a"}, {"name": "a"}]}, "two volumes called a: choose another name"),
        ({"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]}, "no volume called a: add it to extraVolumes"),
        ({"podLabels": {"app": "x"}}, "podLabels.app: the chart sets this label itself"),
        ({"commonLabels": {"release": "x"}}, "commonLabels.release: the chart sets this label itself"),
        ({"extraArgs": [8]}, "extraArgs"),
        ({"dnsPolicy": "Cluster"}, "dnsPolicy"),
        ({"namespaceOverride": "My_NS"}, "namespaceOverride"),
        ({"podDisruptionBudget__minAvailable": "half"}, "minAvailable"),
    ],
    ids=str,
)
def test_extras_that_cannot_work_are_refused(render: Renderer, values: dict[str, Any], words: str) -> None:
    """An extra that is there already, or lacks what it needs, is refused with what to change."""
    with pytest.raises(HelmFailed, match=words):
        render(**NAS, **values)

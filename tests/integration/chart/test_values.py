"""The objects that the chart renders from values of the nfs-subdir chart and from our own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from provisioner import __version__
from provisioner.cli import options
from provisioner.core.checks import permissions
from provisioner.core.leases import LeaseTimes
from provisioner.core.parameters import ALIASES, KNOWN, parse
from provisioner.nfs.client.connect import RESERVED_PORTS
from provisioner.settings import Settings
from provisioner.telemetry.metrics import Metrics
from testbed.helm import Helm
from tests.integration.chart.rendering import CHART, VALUE_SETS, Renderer, rules
from tests.support.pages import anchors, section
from tests.support.provisioner_names import NAMES

pytestmark = pytest.mark.timeout(120)

PEER = "nfs-subdir-external-provisioner"
SAMPLED = {"nfs_provisioner_volumes", "nfs_provisioner_capacity_bytes", "nfs_provisioner_queue_depth",
           "nfs_provisioner_claims_pending", "nfs_provisioner_claims_failing", "nfs_provisioner_claim_pending_seconds",
           "nfs_provisioner_volumes_nearly_full", "nfs_provisioner_quota_heartbeat_age_seconds",
           "nfs_provisioner_volume_used_bytes", "nfs_provisioner_volume_limit_bytes"}  # fmt: skip
"""Gauges that the daemon adds to those of Metrics."""


def value_set(name: str) -> Path:
    """Return the file of a value set."""
    return CHART / "ci" / f"{name}.yaml"


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_lint(helm: Helm, path: Path) -> None:
    """`helm lint` reports no warning for any value set."""
    output = helm.run("lint", CHART, f"--values={path}")
    assert "[WARNING]" not in output
    assert "[ERROR]" not in output


def test_a_dozen_value_sets() -> None:
    """There are at least a dozen value sets, and four of them are the peer's."""
    assert len(VALUE_SETS) >= 12
    assert len([path for path in VALUE_SETS if path.stem.startswith("peer-")]) >= 4


def test_the_version_is_the_product_s() -> None:
    """The chart installs the version of the product that it is released with."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


# ------------------------------------------------------------------------------------------------ the daemon


def test_the_classes_parameters_are_the_daemon_s() -> None:
    """The schema knows the parameters of a StorageClass that the daemon knows, and no others."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["definitions"]["parameters"]["properties"]) == {*KNOWN, *ALIASES}


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_every_class_can_be_used(render: Renderer, path: Path) -> None:
    """The daemon accepts the parameters of every rendered class."""
    for each in render(path).all("StorageClass"):
        parse(each.get("parameters", {}))


@pytest.mark.parametrize("snapshots", [False, True], ids=str)
@pytest.mark.parametrize(("elects", "grows"), [(True, False), (False, False), (True, True)], ids=str)
def test_the_roles_are_what_the_daemon_asks_for(render: Renderer, elects: bool, grows: bool, snapshots: bool) -> None:
    """The roles allow exactly the verbs, resources and names that core.checks lists."""
    release = render(
        nfs__server="nas",
        leaderElection__enabled=elects,
        storageClass__provisionerName="nas.example/x",
        autoGrow__enabled=grows,
        snapshots__enabled=snapshots,
    )
    assert ("SNAPSHOTS" in release.environment()) == snapshots
    wanted = {
        (
            "Role" if each.resource == "leases" else "ClusterRole",
            each.group,
            f"{each.resource}/{each.subresource}" if each.subresource else each.resource,
            each.verb,
            each.name,
        )
        for each in permissions(
            lease=("nfs", "nas.example-x") if elects else None, auto_grow=grows, snapshots=snapshots
        )
    }
    assert set(rules(release)) == wanted
    assert len(list(rules(release))) == len(wanted)


@pytest.mark.parametrize(
    "name",
    [*NAMES, "k8s-sigs.io/nfs_subdir", "a.b/C_d.E", "x/nfs--subdir", "d" * 189 + ".example/" + "n" * 63],
)
def test_the_lease_s_name_is_the_daemon_s(render: Renderer, name: str) -> None:
    """The Role names the daemon's Lease, and the class its provisioner, for every legal name."""
    release = render(nfs__server="nas", storageClass__provisionerName=name)
    assert release.storage_class()["provisioner"] == release.environment()["PROVISIONER_NAME"] == name
    settings = Settings(
        provisioner=name,
        exports=(),
        default_export=None,
        require_mount=False,
        nfs_uid=0,
        nfs_gid=0,
        nfs_timeout_s=10.0,
        kubeconfig=None,
        leader_election=True,
        lease_namespace="nfs",
        lease_times=LeaseTimes(duration_s=15.0, renew_deadline_s=10.0, retry_period_s=2.0),
        listen_host="0.0.0.0",
        listen_port=8080,
        workers=1,
        volume_metrics=True,
    )
    assert {found for *_, verb, found in rules(release) if verb == "update"} == {settings.lease_name}


def test_the_sysctl_allows_our_low_ports(render: Renderer) -> None:
    """The pod can bind the ports of our NFS client, and lowSourcePorts=false leaves the node's setting."""
    sysctl = {"name": "net.ipv4.ip_unprivileged_port_start", "value": str(RESERVED_PORTS.start)}
    assert render(nfs__server="nas").pod["spec"]["securityContext"]["sysctls"] == [sysctl]
    assert "sysctls" not in render(nfs__server="nas", lowSourcePorts=False).pod["spec"]["securityContext"]


def test_every_variable_is_one_that_the_daemon_reads(render: Renderer) -> None:
    """Each environment variable belongs to a flag of `run`."""

    @click.command()
    @options.taking(options.name(), options.exports(), options.cluster(), options.election(), options.daemon())
    def command(**_: Any) -> None:
        """Take the flags of `run`."""

    read = {parameter.envvar for parameter in command.params}
    for path in VALUE_SETS:
        added = yaml.safe_load(path.read_text()).get("extraEnv", [])
        assert set(render(path).environment()) - {each["name"] for each in added} <= read


def test_metrics_have_the_daemon_s_names() -> None:
    """The daemon exports every metric in the dashboard and in the alerts."""
    exported = SAMPLED | {name for family in Metrics().registry.collect() for name in _names(family.name, family.type)}
    for file in ("dashboards/nfs-provisioner.json", "templates/prometheusrule.yaml"):
        used = set(re.findall(r"\b(?:nfs_provisioner|controller|process)_[a-z_]+(?=\{)", (CHART / file).read_text()))
        assert len(used) >= 5
        assert used <= exported


def _names(family: str, kind: str) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return [family + suffix for suffix in suffixes.get(kind, [""])]


def test_every_alert_has_its_runbook(render: Renderer) -> None:
    """Each alert links to an existing heading of our documentation, and has a duration and a severity."""
    group = render(value_set("observed")).one("PrometheusRule")["spec"]["groups"][0]
    headings = anchors(section("operations/alerts.md"))
    assert len(group["rules"]) >= 6
    for rule in group["rules"]:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/operations/alerts.md")
        assert anchor == rule["alert"].lower()
        assert anchor in headings
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule.get("for") or rule["labels"]["severity"] == "critical"


# ------------------------------------------------------------------------------------------------ the peer's values


def test_the_peer_s_values_whole(render: Renderer) -> None:
    """A complete copy of the nfs-subdir chart's values has the same effect, except for the image."""
    release = render(value_set("peer-defaults"), name=PEER)
    deployment, container = release.one("Deployment"), release.container
    assert deployment["metadata"]["name"] == PEER
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": PEER, "release": PEER}
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (1, "Recreate")
    assert container["image"] == f"ghcr.io/nfs-provisioner/nfs-provisioner:{__version__}"
    environment = release.environment()
    assert environment["PROVISIONER_NAME"] == f"cluster.local/{PEER}"
    assert (environment["NFS_SERVER"], environment["NFS_PATH"]) == ("nas.example", "/nfs-storage")
    storage_class = release.storage_class()
    assert storage_class["provisioner"] == f"cluster.local/{PEER}"
    assert storage_class["parameters"] == {"archiveOnDelete": "true"}
    assert storage_class["allowVolumeExpansion"] is True
    assert (storage_class["reclaimPolicy"], storage_class["volumeBindingMode"]) == ("Delete", "Immediate")
    assert not release.all("PodDisruptionBudget")
    assert not release.all("PersistentVolume")


def test_each_of_the_peer_s_keys(render: Renderer) -> None:
    """Each key of the nfs-subdir chart takes effect when it differs from its default."""
    release = render(value_set("peer-everything"), name="storage")
    deployment, pod, container = release.one("Deployment"), release.pod, release.container
    spec = pod["spec"]
    owner = {"example.com/owner": "storage"}
    assert deployment["metadata"]["name"] == "storage-nfs"
    assert deployment["spec"]["selector"]["matchLabels"] == {"app": PEER, "release": "storage"}
    assert deployment["metadata"]["labels"].items() >= owner.items()
    assert pod["metadata"]["labels"].items() >= owner.items()
    assert pod["metadata"]["annotations"] == {"example.com/team": "storage"}
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]["type"]) == (3, "RollingUpdate")
    assert container["image"] == "registry.example/nfs-provisioner:1.2"
    assert container["imagePullPolicy"] == "Always"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["limits"] == {"cpu": "100m", "memory": "128Mi"}
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"][0]["operator"] == "Exists"
    assert "podAntiAffinity" in spec["affinity"]
    account = release.one("ServiceAccount")["metadata"]
    assert spec["serviceAccountName"] == account["name"] == "storage"
    assert account["annotations"] == {"example.com/role": "nfs"}
    assert release.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 2
    storage_class = release.storage_class("nfs")
    assert storage_class["provisioner"] == release.environment()["PROVISIONER_NAME"] == "nas.example/nfs"
    assert storage_class["metadata"]["annotations"] == {
        "storageclass.kubernetes.io/is-default-class": "true",
        "example.com/tier": "bulk",
    }
    assert storage_class["parameters"] == {
        "archiveOnDelete": "false",
        "onDelete": "retain",
        "pathPattern": "${.PVC.namespace}/${.PVC.annotations.nfs.io/storage-path}",
    }
    assert storage_class["allowVolumeExpansion"] is False
    assert (storage_class["reclaimPolicy"], storage_class["volumeBindingMode"]) == ("Retain", "WaitForFirstConsumer")
    assert storage_class["mountOptions"] == ["nfsvers=3", "nolock"]


def test_a_mounted_export_as_the_peer_mounts_it(render: Renderer) -> None:
    """With `access: mounted` the volume has the nfs-subdir chart's name and mount path."""
    values = {"nfs__server": "nas", "nfs__path": "/x", "nfs__volumeName": "root", "access": "mounted"}
    release = render(**values)
    assert release.container["volumeMounts"] == [{"name": "root", "mountPath": "/persistentvolumes"}]
    assert release.pod["spec"]["volumes"] == [{"name": "root", "nfs": {"server": "nas", "path": "/x"}}]
    assert release.environment()["REQUIRE_MOUNT"] == "true"
    built = render(**values, buildMode=True)
    assert built.pod["spec"]["volumes"] == [{"name": "root", "emptyDir": {}}]
    options = render(**values, nfs__mountOptions=["hard"], nfs__reclaimPolicy="Retain", name="storage")
    full = "storage-nfs-provisioner"
    assert options.pod["spec"]["volumes"] == [{"name": "root", "persistentVolumeClaim": {"claimName": f"pvc-{full}"}}]
    volume = options.one("PersistentVolume")
    (claim,) = [each for each in options.all("PersistentVolumeClaim") if each["metadata"]["name"] == f"pvc-{full}"]
    assert volume["metadata"]["name"] == f"pv-{full}"
    assert volume["spec"]["mountOptions"] == ["hard"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert claim["spec"]["selector"]["matchLabels"].items() <= volume["metadata"]["labels"].items()


def test_the_root_of_an_export_is_for_the_chart_s_claim_alone(render: Renderer) -> None:
    """The volume of an export's root is reserved for the chart's claim, and Kubernetes never deletes its data."""
    release = render(value_set("mounted-options"), namespace="storage")
    volumes = release.all("PersistentVolume")
    claims = [
        f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in release.all("PersistentVolumeClaim")
    ]
    for volume in volumes:
        reference = volume["spec"]["claimRef"]
        assert reference["namespace"] == "storage"
        assert f"storage/{reference['name']}" in claims
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert len({volume["spec"]["claimRef"]["name"] for volume in volumes}) == 2


def test_a_direct_export_mounts_nothing(render: Renderer) -> None:
    """By default the pod has no volume, and the release has no PersistentVolume."""
    release = render(nfs__server="nas", nfs__mountOptions=["nfsvers=4.1"])
    assert "volumes" not in release.pod["spec"]
    assert "volumeMounts" not in release.container
    assert not release.all("PersistentVolume")
    assert "REQUIRE_MOUNT" not in release.environment()


@pytest.mark.parametrize(
    ("name", "override", "full"),
    [
        (PEER, None, PEER),
        ("nfs", PEER, f"nfs-{PEER}"),
        ("nfs-provisioner", None, "nfs-provisioner"),
        ("nfs", None, "nfs-nfs-provisioner"),
    ],
)
def test_names(render: Renderer, name: str, override: str | None, full: str) -> None:
    """A release of the nfs-subdir chart keeps its provisioner's name, through its own name or nameOverride."""
    release = render(nfs__server="nas", name=name, nameOverride=override)
    assert release.one("Deployment")["metadata"]["name"] == full
    assert release.storage_class()["provisioner"] == f"cluster.local/{full}"


@pytest.mark.parametrize("where", ["podSecurityContext", "securityContext"])
def test_root_on_request(render: Renderer, where: str) -> None:
    """Values that ask for root, as the nfs-subdir image needs, give a pod that the kubelet starts."""
    root: dict[str, Any] = {where: {"runAsUser": 0}}
    other: dict[str, Any] = {where: {"runAsUser": 7}}
    assert render(nfs__server="nas", **root).pod["spec"]["securityContext"]["runAsNonRoot"] is False
    assert render(nfs__server="nas", **other).pod["spec"]["securityContext"]["runAsNonRoot"] is True


# ------------------------------------------------------------------------------------------------ our own values


def test_two_replicas_that_elect_a_leader(render: Renderer) -> None:
    """By default two replicas run, on different nodes if possible, and at most one is unavailable."""
    release = render(nfs__server="nas")
    assert release.one("Deployment")["spec"]["replicas"] == 2
    (spread,) = release.pod["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["labelSelector"]["matchLabels"].items() <= release.pod["metadata"]["labels"].items()
    budget = release.one("PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    alone = render(nfs__server="nas", leaderElection__enabled=False).one("Deployment")["spec"]
    assert (alone["replicas"], alone["strategy"]["type"]) == (1, "Recreate")


def test_several_exports_and_classes(render: Renderer) -> None:
    """One release serves several servers, and classes on others do not inherit the default export's options."""
    release = render(value_set("several"))
    environment = release.environment()
    assert environment["NFS_EXPORTS"] == "nas2.example:/exports/fast"
    assert (environment["NFS_UID"], environment["NFS_TIMEOUT"]) == ("1000", "1m30s")
    assert release.storage_class()["mountOptions"] == ["nfsvers=4.2"]
    assert release.storage_class()["parameters"] == {"archiveOnDelete": "true", "mode": "0770", "minFree": "5%"}
    assert "port=2050" in release.storage_class("nfs-fast")["mountOptions"]
    assert release.storage_class("nfs-fast")["parameters"]["onDelete"] == "delete"
    assert release.storage_class("nfs-keep")["mountOptions"] == ["nfsvers=4.2"]
    (only,) = render(value_set("csi-driver-nfs")).all("StorageClass")
    assert only["metadata"]["name"] == "nfs-csi"


def test_exports_that_are_mounted(render: Renderer) -> None:
    """Each further export is mounted separately, with a flag for the daemon; one can stay direct."""
    release = render(value_set("mounted-options"))
    assert release.environment()["NFS_EXPORTS"].split() == [
        "nas2.example:/exports/secret=/exports/0",
        "nas2.example:/exports/plain=/exports/1",
        "nas3.example:/exports/direct",
    ]
    mounts = {each["name"]: each["mountPath"] for each in release.container["volumeMounts"]}
    assert mounts == {"nfs-provisioner-root": "/persistentvolumes", "export-0": "/exports/0", "export-1": "/exports/1"}
    assert [each["spec"]["mountOptions"] for each in release.all("PersistentVolume")] == [
        ["nfsvers=4.1", "hard"],
        ["sec=krb5p"],
    ]


def test_a_network_policy_lets_through_what_is_needed(render: Renderer) -> None:
    """The policy allows DNS, the API server and NFS, also on ports from mountOptions, and lets metrics in."""
    policy = render(value_set("several"), networkPolicy__enabled=True).one("NetworkPolicy")["spec"]
    ports = {each["port"] for rule in policy["egress"] for each in rule["ports"]}
    assert ports == {53, 443, 6443, 2049, 111, 20048, 2050, 20049}
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]
    enclosed = render(value_set("enclosed")).one("NetworkPolicy")["spec"]
    assert enclosed["egress"][-1] == {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"protocol": "TCP"}]}
    assert "namespaceSelector" in enclosed["ingress"][0]["from"][0]


def test_the_dashboard_reaches_grafana(render: Renderer) -> None:
    """The ConfigMap has the dashboard's JSON and the label for Grafana's sidecar, and every query its variables."""
    config = render(value_set("observed")).one("ConfigMap")
    assert config["metadata"]["namespace"] == "monitoring"
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["nfs-provisioner.json"])
    panels = [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", []))]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 20
    of_claims = [query for query in queries if "nfs_provisioner_volume_" in query]  # the namespace is the claim's
    selected = 'cluster=~"$cluster",job=~"$job",namespace=~"$namespace"'
    assert all(query.count(selected) == query.count("{") for query in queries if query not in of_claims)
    assert all('{cluster=~"$cluster",job=~"$job"}' in query for query in of_claims)
    of_exports = [query for query in queries if re.search(r"_export_|_trash_|_archives|_orphans", query)]
    assert len(of_exports) > 8
    assert all('export=~"$export"' in query for query in of_exports)
    variables = [each["name"] for each in dashboard["templating"]["list"]]
    assert variables == ["datasource", "cluster", "namespace", "job", "export"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_an_image_by_digest(render: Renderer) -> None:
    """A digest takes precedence over the tag."""
    assert (
        render(value_set("enclosed")).container["image"].startswith("registry.example/storage/nfs-provisioner@sha256:")
    )


def test_helm_tests_run_as_the_daemon_does(render: Renderer) -> None:
    """`helm test` runs the check with the daemon's account and settings, and writes to a volume of the class."""
    release = render(nfs__server="nas")
    checking, writing = release.all("Pod")
    assert checking["spec"]["serviceAccountName"] == release.pod["spec"]["serviceAccountName"]
    assert checking["spec"]["containers"][0]["args"] == ["check"]
    assert checking["spec"]["containers"][0]["env"] == release.container["env"]
    assert checking["spec"]["securityContext"] == release.pod["spec"]["securityContext"]
    claim = release.one("PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "nfs-client"
    assert writing["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_metrics_of_single_volumes(render: Renderer) -> None:
    """The value volumeMetrics turns them on, and lets Prometheus keep the namespace of the claim."""
    plain = render(nfs__server="nas", serviceMonitor__enabled=True)
    assert "VOLUME_METRICS" not in plain.environment()
    assert "honorLabels" not in plain.one("ServiceMonitor")["spec"]["endpoints"][0]
    detailed = render(nfs__server="nas", serviceMonitor__enabled=True, volumeMetrics="true")
    assert detailed.environment()["VOLUME_METRICS"] == "true"
    assert detailed.one("ServiceMonitor")["spec"]["endpoints"][0]["honorLabels"] is True


def test_a_class_of_snapshots(render: Renderer) -> None:
    """The value snapshots.class.create adds a VolumeSnapshotClass of the provisioner, only with snapshots enabled."""
    (found,) = render(nfs__server="nas", snapshots__enabled=True, snapshots__class__create="true").all(
        "VolumeSnapshotClass"
    )
    name = render(nfs__server="nas").environment()["PROVISIONER_NAME"]
    assert (found["driver"], found["deletionPolicy"]) == (name, "Delete")
    annotation = "snapshot.storage.kubernetes.io/is-default-class"
    assert (found["metadata"]["annotations"][annotation], "parameters" in found) == ("true", False)
    parameters = {"snapshots__class__default": "false", "snapshots__class__parameters__retention": "30d"}
    (other,) = render(nfs__server="nas", snapshots__enabled=True, snapshots__class__create=True, **parameters).all(
        "VolumeSnapshotClass"
    )
    assert ("annotations" in other["metadata"], other["parameters"]) == (False, {"retention": "30d"})
    assert list(render(nfs__server="nas", snapshots__class__create=True).all("VolumeSnapshotClass")) == []

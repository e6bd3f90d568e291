"""Spellings of values: quoted, as one string, as numbers, empty, in an umbrella chart, for OpenShift."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.core.parameters import parse
from testbed.helm import Helm
from tests.integration.chart.rendering import CHART, NAS, Release, Renderer, leaves
from tests.support.pages import blocks

pytestmark = pytest.mark.timeout(120)

PEER = "nfs-subdir-external-provisioner"
OBSERVED = CHART / "ci" / "observed.yaml"


def every(kind: str, value: object) -> dict[str, Any]:
    """Return values in which each key of a kind in the schema, `boolean` or `integer`, has this value."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    # What the chart asks for where the value enables the quota agent.
    agent = {"roots": ["/srv/nfs"], "nodeSelector": {"kubernetes.io/hostname": "nas"}}

    def is_of_kind(node: Any) -> bool:
        if kind == "boolean":
            return True in node.get("enum", []) and "strconv" not in node.get("description", "")
        return {"string"} < set(node.get("type", [])) & {"string", "integer", "number"} and "ms" not in node["pattern"]

    def fill(node: Any) -> Any:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rpartition("/")[2]]
        if is_of_kind(node):
            return value
        if "items" in node:
            item = fill(node["items"])
            needed = dict.fromkeys(node["items"].get("required", []), "x")
            return [needed | item if isinstance(item, dict) else item] if item else None
        found = {key: fill(child) for key, child in node.get("properties", {}).items()}
        return {key: child for key, child in found.items() if child not in (None, {})} or None

    found = {key: child for key, child in fill(schema).items() if key not in ("enabled", "exports", "global")}
    return found | {"quotaAgent": agent | found.get("quotaAgent", {})}


def test_quoted_booleans(render: Renderer) -> None:
    """A boolean in quotes counts as that boolean, in any of Go's spellings: "false" is false everywhere."""
    for plain, spellings in ((True, ("true", "True", "1")), (False, ("false", "FALSE", "0"))):
        values = every("boolean", plain) | {"storageClass": {"create": plain, "allowVolumeExpansion": plain}}
        assert len(list(leaves(values))) > 12
        expected = render(OBSERVED, **values)
        for spelled in spellings:
            quoted = every("boolean", spelled) | {"storageClass": {"create": spelled, "allowVolumeExpansion": spelled}}
            assert render(OBSERVED, **quoted) == expected
    assert render(**NAS).storage_class()["metadata"].get("annotations") is None
    default = render(**NAS, storageClass__defaultClass="false").storage_class()["metadata"]
    assert default.get("annotations") is None


def test_quoted_integers(render: Renderer) -> None:
    """An integer in quotes counts as that integer, everywhere."""
    values = every("integer", 7)
    values["nfs"] |= {"server": "nas", "path": "/x"}
    assert len(list(leaves(values))) > 25
    quoted = json.loads(json.dumps(values).replace(" 7", ' "7"').replace("[7", '["7"'))
    assert quoted["workers"] == "7"
    for each in (values, quoted):
        each["networkPolicy"]["enabled"] = each["prometheusRule"]["enabled"] = True
    release = render(**quoted)
    assert release == render(**values)
    assert release.one("Deployment")["spec"]["replicas"] == 7
    assert release.container["ports"][0]["containerPort"] == 7
    assert release.container["livenessProbe"]["periodSeconds"] == 7


@pytest.mark.parametrize("probe", ["livenessProbe", "readinessProbe", "startupProbe"])
def test_a_probe_without_values(render: Renderer, probe: str) -> None:
    """A probe whose keys are all null has the defaults of Kubernetes, and keeps its path."""
    settings = ("periodSeconds", "timeoutSeconds", "failureThreshold")
    values: dict[str, Any] = {probe: dict.fromkeys(settings)}
    release = render(nfs={"server": "nas", "path": "/x"}, **values)
    assert set(release.container[probe]) == {"httpGet"}


def test_set_string(helm: Helm) -> None:
    """Booleans and integers from `--set-string` work, as scripts and operators write them."""
    flags = (
        "nfs.server=nas,nfs.path=/x,leaderElection.enabled=false,rbac.create=false,replicaCount=1,podAnnotations.n=1"
    )
    objects = list(yaml.safe_load_all(helm.run("template", "r", CHART, f"--set-string={flags}")))
    release = Release([each for each in objects if each])
    assert release.environment()["ENABLE_LEADER_ELECTION"] == "false"
    assert not release.all("ClusterRole")
    assert release.pod["metadata"]["annotations"] == {"n": "1"}


def test_enabled_of_an_umbrella_chart(render: Renderer, helm: Helm, tmp_path: Path) -> None:
    """As a dependency's condition `enabled` installs everything or nothing, also in quotes."""
    assert render(**NAS, enabled=True) == render(**NAS, enabled="true") == render(**NAS, enabled=None) == render(**NAS)
    assert render(**NAS, enabled=False).objects == render(**NAS, enabled="false").objects == []
    umbrella = in_umbrella(tmp_path)
    for enabled, kinds in ((True, True), ("true", True), (False, False), ("false", False)):
        values = {"nfs-provisioner": {"enabled": enabled, "nfs": {"server": "nas", "path": "/x"}}}
        output = helm.run("template", "r", umbrella, "--values=-", input=yaml.safe_dump(values))
        assert ("kind:" in output) is kinds


def test_the_umbrella_chart_of_the_documentation(helm: Helm, tmp_path: Path) -> None:
    """The documented values for an umbrella chart reach our chart."""
    (block,) = [each for each in blocks("yaml") if each.title == "values.yaml of the umbrella chart"]
    output = helm.run("template", "r", in_umbrella(tmp_path), "--values=-", input=block.text)
    release = Release([each for each in yaml.safe_load_all(output) if each])
    assert release.container["image"].startswith("mirror.example:5000/")
    assert release.pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def in_umbrella(directory: Path) -> Path:
    """Write a chart that has ours as a dependency with a condition."""
    (directory / "charts").mkdir()
    shutil.copytree(CHART, directory / "charts" / "nfs-provisioner")
    dependency = {
        "name": "nfs-provisioner", "version": ">=0.0.0-0", "repository": "", "condition": "nfs-provisioner.enabled",
    }  # fmt: skip
    chart = {"apiVersion": "v2", "name": "platform", "version": "0.1.0", "dependencies": [dependency]}
    (directory / "Chart.yaml").write_text(yaml.safe_dump(chart))
    return directory


@pytest.mark.parametrize(
    ("repository", "registry", "image"),
    [
        ("ghcr.io/team/nfs-provisioner", "mirror.example:5000", "mirror.example:5000/team/nfs-provisioner"),
        ("ghcr.io/a/b", "mirror.example/proxy/", "mirror.example/proxy/a/b"),
        ("localhost/b", "mirror.example", "mirror.example/b"),
        ("team/b", "mirror.example", "mirror.example/team/b"),
        ("b", "mirror.example", "mirror.example/b"),
        ("ghcr.io/a/b", "", "ghcr.io/a/b"),
        (f"registry.k8s.io/sig-storage/{PEER}", "mirror.example", "mirror.example/nfs-provisioner/nfs-provisioner"),
    ],
)  # fmt: skip
def test_global_image_registry(render: Renderer, repository: str, registry: str, image: str) -> None:
    """An umbrella chart's `global.imageRegistry` replaces the registry in image.repository."""
    values: dict[str, Any] = {"global": {"imageRegistry": registry, "other": {"x": 1}}}
    release = render(**NAS, image__repository=repository, **values)
    assert {pod["spec"]["containers"][0]["image"].rpartition(":")[0] for pod in [release.pod, *release.all("Pod")]} == {
        image
    }


@pytest.mark.parametrize(
    ("own", "of_global", "names"),
    [
        ([{"name": "a"}], None, ["a"]),
        (["a"], [{"name": "b"}, "a"], ["a", "b"]),
        ([], ["b", "b"], ["b"]),
        ([], "b", ["b"]),
        ([], [], None),
    ],
)
def test_global_pull_secrets(render: Renderer, own: Any, of_global: Any, names: list[str] | None) -> None:
    """Every pod gets our pull secrets and `global.imagePullSecrets`, as names or as objects."""
    values: dict[str, Any] = {"global": {"imagePullSecrets": of_global}}
    release = render(**NAS, imagePullSecrets=own, **values)
    for pod in [release.pod, *release.all("Pod")]:
        found = pod["spec"].get("imagePullSecrets")
        assert (found and [each["name"] for each in found]) == names


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ("nfsvers=4.1,hard", ["nfsvers=4.1", "hard"]),
        (" nfsvers=4.1 , hard, ", ["nfsvers=4.1", "hard"]),
        (["nfsvers=4.1", "hard"], ["nfsvers=4.1", "hard"]),
        ({}, None),
        ("", None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_spellings_of_mount_options(render: Renderer, given: Any, options: list[str] | None) -> None:
    """Mount options can be a list, one string as in fstab, or empty."""
    release = render(
        nfs={"server": "nas", "path": "/x", "mountOptions": given},
        exports=[{"server": "b", "path": "/y", "access": "mounted", "mountOptions": given}],
        storageClasses=[{"name": "b", "parameters": {"server": "b", "share": "/y"}, "mountOptions": given}],
    )
    assert release.storage_class().get("mountOptions") == options
    assert release.storage_class("b").get("mountOptions") == options
    assert [each["spec"]["mountOptions"] for each in release.all("PersistentVolume")] == ([options] if options else [])


def test_labels_and_annotations_that_are_not_strings(render: Renderer) -> None:
    """Numbers and booleans become strings on the objects; null leaves a key out."""
    given = {"count": 12, "big": 1234567890, "part": 1.5, "flag": True, "text": "x", "none": None}
    texts = {"count": "12", "big": "1234567890", "part": "1.5", "flag": "true", "text": "x"}
    release = render(
        **NAS, podAnnotations=given, labels=given, nodeSelector=given, storageClass__annotations=given,
        serviceAccount__annotations=given, service__annotations=given,
        storageClasses=[{"name": "x", "annotations": given}],
    )  # fmt: skip
    assert release.pod["metadata"]["annotations"] == release.pod["spec"]["nodeSelector"] == texts
    for kind in ("ServiceAccount", "Service"):
        assert release.one(kind)["metadata"]["annotations"] == texts
    for name in ("nfs-client", "x"):
        assert release.storage_class(name)["metadata"]["annotations"] == texts
    assert all(texts.items() <= each["metadata"]["labels"].items() for each in release.objects if each["kind"] != "Pod"
               and "helm.sh/hook" not in each["metadata"].get("annotations", {}))  # fmt: skip


def test_empty_maps_where_lists_are_meant(render: Renderer) -> None:
    """`{}` counts as an empty list, which is how some charts and editors write it."""
    empty: dict[str, Any] = {"tolerations": {}, "exports": {}, "storageClasses": {}, "imagePullSecrets": {}}
    assert render(**NAS, **empty) == render(**NAS)


def test_a_path_with_a_space(render: Renderer) -> None:
    """The default export's path can contain spaces, direct and mounted."""
    release = render(nfs__server="nas", nfs__path="/volume1/My Share", access="mounted")
    assert release.environment()["NFS_PATH"] == "/volume1/My Share"
    assert release.pod["spec"]["volumes"][0]["nfs"]["path"] == "/volume1/My Share"


def test_parameters_in_any_case(render: Renderer) -> None:
    """Names and values of a class's parameters work in any case, as with csi-driver-nfs."""
    parameters = {"Server": "nas2", "SHARE": "/fast", "subdir": "x", "csi.storage.k8s.io/fstype": "nfs"}
    release = render(
        storageClass__create=False,
        storageClasses=[{"name": "x", "onDelete": "Retain", "parameters": parameters, "archiveOnDelete": "false"}],
    )
    found = release.storage_class("x")["parameters"]
    assert found == parameters | {"onDelete": "retain", "archiveOnDelete": "false"}
    assert parse(found).on_delete == "retain"
    own = render(**NAS, storageClass__parameters={"archiveOnDelete": "false"}).storage_class()["parameters"]
    assert own == {"archiveOnDelete": "false"}


NO_ID: dict[str, Any] = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in an umbrella chart"])
def test_openshift(render: Renderer, helm: Helm, tmp_path: Path, inside: bool) -> None:
    """Null leaves user and group to the cluster in every pod, and no pod runs as root."""
    if inside:
        values: dict[str, Any] = {"nfs": {"server": "nas", "path": "/x"}, "podSecurityContext": NO_ID}
        given = yaml.safe_dump({"nfs-provisioner": values})
        output = helm.run("template", "r", in_umbrella(tmp_path), "--values=-", input=given)
        release = Release([each for each in yaml.safe_load_all(output) if each])
    else:
        release = render(**NAS, podSecurityContext=NO_ID)
    pods = [release.pod, *release.all("Pod")]
    assert len(pods) == 3
    for pod in pods:
        context = pod["spec"]["securityContext"]
        assert not {*NO_ID} & {*context}
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {*NO_ID} & {*pod["spec"]["containers"][0]["securityContext"]}


@pytest.mark.parametrize(
    ("values", "pod", "container"),
    [
        ({"podSecurityContext": {"seccompProfile": None}}, {"seccompProfile": None, "runAsUser": 65534}, {}),
        ({"podSecurityContext": {"runAsUser": "0"}}, {"runAsUser": 0, "runAsNonRoot": False}, {}),
        ({"podSecurityContext": {"runAsUser": 0, "runAsNonRoot": "true"}}, {"runAsNonRoot": True}, {}),
        ({"podSecurityContext": {"fsGroup": 1000650000}}, {"fsGroup": 1000650000, "runAsUser": 65534}, {}),
        ({"podSecurityContext": None}, {"runAsUser": 65534, "runAsNonRoot": True}, {}),
        ({"securityContext": {"runAsUser": None, "readOnlyRootFilesystem": "false"}}, {"runAsNonRoot": True},
         {"runAsUser": None, "readOnlyRootFilesystem": False}),
        ({"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}, {},
         {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
        ({"securityContext": {"capabilities": None}}, {}, {"capabilities": None}),
        ({"access": "mounted"}, {"runAsUser": 0, "runAsNonRoot": False}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_security_contexts(
    render: Renderer, values: dict[str, Any], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """Values override the chart's contexts, null removes a key, and only an explicit 0 runs as root."""
    release = render(**NAS, **values)
    of_pod, of_container = release.pod["spec"]["securityContext"], release.container["securityContext"]
    assert {key: of_pod.get(key) for key in pod} == pod
    assert {key: of_container.get(key) for key in container} == container

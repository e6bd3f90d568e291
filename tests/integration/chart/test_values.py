"""What values come to: the nfs-subdir chart's and our own, the misspelt and the unsafe ones."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
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
from provisioner.nfs.direct.dial import RESERVED_PORTS
from provisioner.settings import Settings
from provisioner.telemetry.metrics import Metrics
from testbed.helm import Helm, HelmFailed
from tests.integration.chart.rendering import CHART, VALUE_SETS, Release, Renderer, rules
from tests.pages import anchors, blocks, section
from tests.provisioner_names import NAMES, NO_NAMES

pytestmark = pytest.mark.timeout(120)

PEER = "nfs-subdir-external-provisioner"
SAMPLED = {"nfs_provisioner_volumes", "nfs_provisioner_capacity_bytes", "nfs_provisioner_queue_depth",
           "nfs_provisioner_claims_pending", "nfs_provisioner_claim_pending_seconds"}  # fmt: skip
"""Gauges that app.py adds to those of Metrics."""


def value_set(name: str) -> Path:
    return CHART / "ci" / f"{name}.yaml"


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_lint(helm: Helm, path: Path) -> None:
    """`helm lint` finds nothing to warn of in any value set."""
    said = helm.run("lint", CHART, f"--values={path}")
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


def test_a_dozen_value_sets() -> None:
    """There are at least a dozen of them, and four are the peer's."""
    assert len(VALUE_SETS) >= 12
    assert len([path for path in VALUE_SETS if path.stem.startswith("peer-")]) >= 4


def test_the_version_is_the_product_s() -> None:
    """The chart installs the version that it came with."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("misspelt", "told"),
    [
        ({"replicaCounts": 1}, "replicaCounts"),
        ({"nfs__mountOption": ["hard"]}, "mountOption"),
        ({"storageClass__pathPatern": "x"}, "pathPatern"),
        ({"storageClass__parameters": {"mod": "0770"}}, "mod"),
        ({"storageClass__parameters": {"uid": 1000}}, "uid"),
        ({"storageClass__onDelete": "Deleted"}, "onDelete"),
        ({"storageClass__create": "yes"}, "create"),
        ({"enabled": "no"}, "enabled"),
        ({"replicaCount": "two"}, "replicaCount"),
        ({"workers": "1.5"}, "workers"),
        ({"nfs__mountOptions": {"nfsvers": "4.1"}}, "nfsvers"),
        ({"global": {"imageRegistry": 5000}}, "imageRegistry"),
        ({"storageClasses": [{"nam": "x"}]}, "nam"),
        ({"exports": [{"server": "nas2", "path": "exports"}]}, "path"),
        ({"access": "kubelet"}, "access"),
        ({"serviceMonitor__enable": True}, "enable"),
        ({"networkPolicy__nfsPorts": ["nfs"]}, "nfsPorts"),
        ({"prometheusRule__exportFreePercent": 101}, "exportFreePercent"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_misspelt_value_is_refused(render: Renderer, misspelt: dict[str, Any], told: str) -> None:
    """A key that there is not, and a value that cannot be used, are refused by their names."""
    with pytest.raises(HelmFailed, match=told):
        render(nfs__server="nas", **misspelt)


NAS = {"nfs__server": "nas", "nfs__path": "/x"}
TWO = [{"server": "a", "path": "/"}, {"server": "b", "path": "/"}]
FAST = {"server": "nas2", "share": "/fast"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "set nfs.server and nfs.path"),
        ({"exports": TWO}, "set nfs.server and nfs.path"),
        ({"exports": TWO, "storageClass__parameters": {"server": "a", "share": "/"}, "storageClasses": [{"name": "x"}]},
         "StorageClass x names no export: set nfs.server and nfs.path"),
        (NAS | {"storageClasses": [{"name": "x", "parameters": {"server": "nas2"}}]}, "x: .*share belong together"),
        (NAS | {"access": "mounted", "storageClasses": [{"name": "x", "parameters": FAST}]},
         "x is on nas2:/fast, which access=mounted does not mount: add it to exports"),
        (NAS | {"storageClasses": [{"name": "nfs-client"}]}, "two StorageClasses are called nfs-client"),
        (NAS | {"storageClasses": [{"name": "x"}, {"name": "x"}]}, "two StorageClasses are called x"),
        (NAS | {"storageClass__defaultClass": True, "storageClasses": [{"name": "x", "defaultClass": "true"}]},
         "nfs-client, x are all the default: set defaultClass for one of them"),
        (NAS | {"storageClass__defaultClass": True, "storageClasses": [
            {"name": "x", "annotations": {"storageclass.kubernetes.io/is-default-class": True}}]}, "all the default"),
        (NAS | {"storageClass__name": "NFS_Client"}, 'a StorageClass cannot be called "NFS_Client"'),
        (NAS | {"storageClass__pathPattern": "x", "storageClass__parameters": {"subDir": "z"}}, "pathPattern, and sub"),
        (NAS | {"storageClass__onDelete": "delete", "storageClass__parameters": {"ondelete": "retain"}}, "onDelete"),
        (NAS | {"labels": {"app": "x"}}, "labels.app: the chart sets this label itself"),
        (NAS | {"labels": {"release": "x"}}, "labels.release: "),
        (NAS | {"labels": {"app.kubernetes.io/managed-by": "x"}}, "labels.app.kubernetes.io/managed-by: "),
        (NAS | {"nfs__reclaimPolicy": "Recycle"}, "Recycle would have Kubernetes remove all .*: set Retain"),
        (NAS | {"nfs__reclaimPolicy": "Recycle", "access": "mounted", "nfs__mountOptions": "hard"}, "set Retain"),
        (NAS | {"storageClass__provisionerName": "kubernetes.io/nfs"}, "provisionerName .* the cluster's own"),
        (NAS | {"replicaCount": 0}, "replicaCount=0 runs no provisioner: set 1 or more"),
        (NAS | {"replicaCount": "0"}, "replicaCount=0 runs no provisioner"),
        (NAS | {"replicaCount": 2, "leaderElection__enabled": False}, "set replicaCount to 1"),
        (NAS | {"replicaCount": "2", "leaderElection__enabled": "false"}, "set replicaCount to 1"),
        (NAS | {"strategyType": "RollingUpdate", "leaderElection__enabled": False}, "unset strategyType"),
        (NAS | {"leaderElection__leaseDuration": "10s"}, "leaseDuration must exceed renewDeadline"),
        (NAS | {"leaderElection__retryPeriod": 15}, "leaseDuration must exceed renewDeadline"),
        (NAS | {"leaderElection__leaseDuration": "1m", "leaderElection__renewDeadline": "1m500ms"}, "must exceed"),
        (NAS | {"nfs__timeout": "0s"}, "nfs.timeout=0 leaves a call no time"),
        (NAS | {"workers": "5000"}, "workers is 5000: it must be from 1 to 1024"),
        (NAS | {"listen__port": "0"}, "listen.port is 0: it must be from 1 to 65535"),
        (NAS | {"nfs__uid": "4294967295"}, "nfs.uid is 4294967295"),
        (NAS | {"networkPolicy__nfsPorts": ["70000"]}, "networkPolicy.nfsPorts is 70000"),
        (NAS | {"networkPolicy__apiServerPorts": []}, "apiServerPorts"),
        (NAS | {"image__repository": f"registry.example/{PEER}"}, "unset image.repository"),
        (NAS | {"image__repository": "registry.example/nfs:1.0"}, "set image.tag or image.digest instead"),
        (NAS | {"image__repository": "nfs@sha256:00"}, "set image.tag or image.digest instead"),
        (NAS | {"fullnameOverride": "My_NFS"}, 'cannot be called "My_NFS": set fullnameOverride'),
        (NAS | {"name": "nfs.prod"}, "set fullnameOverride"),
        (NAS | {"nfs__server": "nas:2049"}, "nfs.server .* has a port in it"),
        (NAS | {"nfs__server": "[fd00::1]:2049"}, "nfs.server .* has a port in it"),
        (NAS | {"exports": [{"server": "nas2:20490", "path": "/"}]}, "exports.0..server .* has a port in it"),
        (NAS | {"nfs__path": "/exports/../etc"}, "nfs.path .* has a component that is not a name"),
        (NAS | {"nfs__path": "exports"}, "nfs/path"),
        (NAS | {"nfs__mountOptions": "nfsvers=4.1,sec=krb5p"}, "nfs-client has sec=krb5 .*: set access=mounted"),
        (NAS | {"exports": [{"server": "nas2", "path": "/fast", "access": "direct"}], "access": "mounted",
                "storageClasses": [{"name": "x", "parameters": FAST, "mountOptions": ["sec=krb5:krb5i"]}]},
         "x has sec=krb5 .* for nas2:/fast in exports"),
        (NAS | {"image__tag": "1.0+build"}, 'image.tag "1.0.build" cannot be a tag'),
        (NAS | {"nameOverride": "my nfs", "fullnameOverride": "nfs"}, 'nameOverride "my nfs" cannot be a label'),
        (NAS | {"listen__host": "127.0.0.1"}, "listen.host 127.0.0.1 hides the endpoint"),
        (NAS | {"exports": [{"server": "nas2", "path": "/My Share"}]}, "exports.0..path .* has a space or a ="),
        (NAS | {"exports": [{"server": "NAS", "path": "/x/"}]}, "exports.0.: nas:/x is given twice"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_cannot_work_are_refused(render: Renderer, values: dict[str, Any], told: str) -> None:
    """Values that would install something that cannot work, or that is not safe, are refused with what to change."""
    with pytest.raises(HelmFailed, match=told):
        render(**values)


@pytest.mark.parametrize("name", [*NO_NAMES, "kubernetes.io/nfs"])
def test_a_name_that_no_class_can_have_is_refused(render: Renderer, name: str) -> None:
    """The chart refuses the provisioner's names that Kubernetes refuses; an empty one is the default."""
    if name:
        with pytest.raises(HelmFailed, match="provisionerName"):
            render(**NAS, storageClass__provisionerName=name)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is not a map, with its path; empty maps too."""
    if isinstance(node, dict) and node:
        for key, child in node.items():
            yield from leaves(child, f"{path}__{key}" if path else key)
    else:
        yield path, node


def refused(render: Renderer, values: dict[str, Any]) -> str:
    """What Helm says against values; empty where it renders them to something."""
    try:
        assert render(**values).objects
    except HelmFailed as exc:
        return str(exc)
    return ""


DEFAULTS = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))


@pytest.mark.parametrize("path", [path for path, value in DEFAULTS.items() if value not in (None, "", {}, [])])
def test_null_in_place_of_a_default(render: Renderer, path: str) -> None:
    """A key with nothing behind it is as good as one that is not there, or is refused by its name; nothing breaks."""
    refusal = refused(render, NAS | {path: None})
    if refusal:
        assert "don't meet the specifications of the schema" in refusal
        assert f"'{path.rpartition('__')[2]}'" in refusal


@pytest.mark.parametrize("section_", sorted({path.split("__")[0] for path in DEFAULTS}))
@pytest.mark.parametrize("value", [None, {}], ids=["null", "empty"])
def test_null_in_place_of_a_section(render: Renderer, section_: str, value: object) -> None:
    """The same of a whole section; an empty one is all defaults."""
    values: dict[str, Any] = {"storageClass__parameters": {"server": "nas", "share": "/x"}} | {section_: value}
    if section_ == "storageClass":
        values.pop("storageClass__parameters")
        values |= NAS
    refusal = refused(render, values)
    if refusal:
        assert "don't meet the specifications of the schema" in refusal
        assert section_ in refusal


def test_every_object_of_the_schema_is_closed() -> None:
    """No part of our own values lets a misspelt key pass."""
    open_on_purpose = {
        "global", "podSecurityContext", "securityContext", "resources", "affinity", "items", "strings", "secrets",
    }  # fmt: skip

    def look(node: Any, name: str) -> None:
        if not isinstance(node, dict):
            return
        if "object" in node.get("type", []) and name not in open_on_purpose:
            assert node.get("additionalProperties") is False, name
        for key, part in node.items():
            for inner, child in part.items() if key in ("properties", "definitions") else [(key, part)]:
                look(child, inner)

    look(json.loads((CHART / "values.schema.json").read_text()), "")


# ------------------------------------------------------------------------------------------------ as people write them


def every(kind: str, value: object) -> dict[str, Any]:
    """Values in which each key of a kind of the schema, `boolean` or `integer`, has this value."""
    schema = json.loads((CHART / "values.schema.json").read_text())

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

    return {key: child for key, child in fill(schema).items() if key not in ("enabled", "exports", "global")}


def test_quoted_booleans(render: Renderer) -> None:
    """A boolean in quotes means what it says, in any of Go's spellings: "false" is false everywhere."""
    observed = value_set("observed")
    for plain, spellings in ((True, ("true", "True", "1")), (False, ("false", "FALSE", "0"))):
        values = every("boolean", plain) | {"storageClass": {"create": plain, "allowVolumeExpansion": plain}}
        assert len(list(leaves(values))) > 12
        expected = render(observed, **values)
        for spelled in spellings:
            quoted = every("boolean", spelled) | {"storageClass": {"create": spelled, "allowVolumeExpansion": spelled}}
            assert render(observed, **quoted) == expected
    assert render(**NAS).storage_class()["metadata"].get("annotations") is None
    default = render(**NAS, storageClass__defaultClass="false").storage_class()["metadata"]
    assert default.get("annotations") is None


def test_quoted_integers(render: Renderer) -> None:
    """An integer in quotes is that integer, wherever one may stand."""
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


def test_set_string(helm: Helm) -> None:
    """What `--set-string` makes of booleans and integers is taken: it is how scripts and operators write values."""
    words = (
        "nfs.server=nas,nfs.path=/x,leaderElection.enabled=false,rbac.create=false,replicaCount=1,podAnnotations.n=1"
    )
    objects = list(yaml.safe_load_all(helm.run("template", "r", CHART, f"--set-string={words}")))
    release = Release([each for each in objects if each])
    assert release.environment()["ENABLE_LEADER_ELECTION"] == "false"
    assert not release.all("ClusterRole")
    assert release.pod["metadata"]["annotations"] == {"n": "1"}


def test_enabled_of_an_umbrella_chart(render: Renderer, helm: Helm, tmp_path: Path) -> None:
    """`enabled` is for a dependency's condition: true installs all, false nothing, in quotes too."""
    assert render(**NAS, enabled=True) == render(**NAS, enabled="true") == render(**NAS, enabled=None) == render(**NAS)
    assert render(**NAS, enabled=False).objects == render(**NAS, enabled="false").objects == []
    umbrella = in_umbrella(tmp_path)
    for enabled, kinds in ((True, True), ("true", True), (False, False), ("false", False)):
        values = {"nfs-provisioner": {"enabled": enabled, "nfs": {"server": "nas", "path": "/x"}}}
        said = helm.run("template", "r", umbrella, "--values=-", input=yaml.safe_dump(values))
        assert ("kind:" in said) is kinds


def test_the_umbrella_chart_of_the_documentation(helm: Helm, tmp_path: Path) -> None:
    """The values that Install prints for an umbrella chart reach ours."""
    (block,) = [each for each in blocks("yaml") if each.title == "values.yaml of the umbrella chart"]
    said = helm.run("template", "r", in_umbrella(tmp_path), "--values=-", input=block.text)
    release = Release([each for each in yaml.safe_load_all(said) if each])
    assert release.container["image"].startswith("mirror.example:5000/")
    assert release.pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def in_umbrella(directory: Path) -> Path:
    """A chart that has ours as a dependency, with a condition."""
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
    """An umbrella chart's `global.imageRegistry` takes the place of the registry in image.repository."""
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
    """`global.imagePullSecrets` are added to our own, as names or as objects, for every pod."""
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
def test_mount_options_as_people_write_them(render: Renderer, given: Any, options: list[str] | None) -> None:
    """A list, one text as in fstab, or nothing."""
    release = render(
        nfs={"server": "nas", "path": "/x", "mountOptions": given},
        exports=[{"server": "b", "path": "/y", "access": "mounted", "mountOptions": given}],
        storageClasses=[{"name": "b", "parameters": {"server": "b", "share": "/y"}, "mountOptions": given}],
    )
    assert release.storage_class().get("mountOptions") == options
    assert release.storage_class("b").get("mountOptions") == options
    assert [each["spec"]["mountOptions"] for each in release.all("PersistentVolume")] == ([options] if options else [])


def test_labels_and_annotations_that_are_no_texts(render: Renderer) -> None:
    """Numbers and booleans are texts on the objects; null leaves a key out."""
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
    """`{}` is no more than nothing: charts and editors write it for an empty list."""
    empty: dict[str, Any] = {"tolerations": {}, "exports": {}, "storageClasses": {}, "imagePullSecrets": {}}
    assert render(**NAS, **empty) == render(**NAS)


@pytest.mark.parametrize(
    "values",
    [
        {"access": "mounted", "nfs__mountOptions": ["sec=krb5p"]},
        {"nfs__mountOptions": ["sec=krb5:sys"]},
        {"exports": [{"server": "nas2", "path": "/fast/", "access": "mounted"}],
         "storageClasses": [{"name": "x", "parameters": FAST, "mountOptions": "sec=krb5"}]},
        {"access": "mounted", "exports": [{"server": "NAS2", "path": "/fast", "access": "direct"}],
         "storageClasses": [{"name": "x", "parameters": FAST}]},
        {"replicaCount": 1, "leaderElection__enabled": False, "strategyType": "Recreate"},
        {"storageClass__defaultClass": True, "storageClasses": [{"name": "x", "defaultClass": False}]},
        {"storageClass__defaultClass": True,
         "storageClass__annotations": {"storageclass.kubernetes.io/is-default-class": "false"},
         "storageClasses": [{"name": "x", "defaultClass": True}]},
        {"labels": {"app.kubernetes.io/part-of": "storage", "team": "x"}},
        {"nfs__server": "fd00::1"},
        {"nfs__server": "[FD00::1]", "exports": [{"server": "fd00::1", "path": "/y"}]},
        {"leaderElection__leaseDuration": "1m30s", "leaderElection__renewDeadline": 60},
        {"nfs__reclaimPolicy": "Delete"},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_work_are_taken(render: Renderer, values: dict[str, Any]) -> None:
    """What comes near to what is refused, and works, is not refused."""
    assert render(**NAS | values).objects


def test_a_path_with_a_space(render: Renderer) -> None:
    """The default export's path may have spaces in it, directly and mounted."""
    release = render(nfs__server="nas", nfs__path="/volume1/My Share", access="mounted")
    assert release.environment()["NFS_PATH"] == "/volume1/My Share"
    assert release.pod["spec"]["volumes"][0]["nfs"]["path"] == "/volume1/My Share"


def test_parameters_in_any_case(render: Renderer) -> None:
    """A class's parameters may be spelled as csi-driver-nfs takes them, and its words too."""
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
    """Null leaves user and group to the cluster, in every pod, and no pod runs as root for that."""
    if inside:
        values: dict[str, Any] = {"nfs": {"server": "nas", "path": "/x"}, "podSecurityContext": NO_ID}
        given = yaml.safe_dump({"nfs-provisioner": values})
        said = helm.run("template", "r", in_umbrella(tmp_path), "--values=-", input=given)
        release = Release([each for each in yaml.safe_load_all(said) if each])
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
    """What values say is laid over the chart's own, and null takes a key away; only a 0 that is given is root."""
    release = render(**NAS, **values)
    of_pod, of_container = release.pod["spec"]["securityContext"], release.container["securityContext"]
    assert {key: of_pod.get(key) for key in pod} == pod
    assert {key: of_container.get(key) for key in container} == container


# ------------------------------------------------------------------------------------------------ one truth


def test_the_classes_parameters_are_the_daemon_s() -> None:
    """The schema knows the parameters of a StorageClass that the daemon knows, and no others."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["definitions"]["parameters"]["properties"]) == {*KNOWN, *ALIASES}


@pytest.mark.parametrize("path", VALUE_SETS, ids=lambda path: path.stem)
def test_every_class_can_be_used(render: Renderer, path: Path) -> None:
    """The daemon takes the parameters of every class that is rendered."""
    for each in render(path).all("StorageClass"):
        parse(each.get("parameters", {}))


@pytest.mark.parametrize("elects", [True, False], ids=["lease", "no lease"])
def test_the_roles_are_what_the_daemon_asks_for(render: Renderer, elects: bool) -> None:
    """The roles allow each verb that core.checks names, by the same resources and names, and nothing else."""
    release = render(nfs__server="nas", leaderElection__enabled=elects, storageClass__provisionerName="nas.example/x")
    wanted = {
        (
            "Role" if each.resource == "leases" else "ClusterRole",
            each.group,
            f"{each.resource}/{each.subresource}" if each.subresource else each.resource,
            each.verb,
            each.name,
        )
        for each in permissions(lease=("nfs", "nas.example-x") if elects else None)
    }
    assert set(rules(release)) == wanted
    assert len(list(rules(release))) == len(wanted)


@pytest.mark.parametrize(
    "name",
    [*NAMES, "k8s-sigs.io/nfs_subdir", "a.b/C_d.E", "x/nfs--subdir", "d" * 189 + ".example/" + "n" * 63],
)
def test_the_lease_s_name_is_the_daemon_s(render: Renderer, name: str) -> None:
    """The Role names the Lease that the daemon will ask for, and the class the provisioner, whatever it looks like."""
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
    )
    assert {found for *_, verb, found in rules(release) if verb == "update"} == {settings.lease_name}


def test_the_sysctl_is_where_our_low_ports_begin(render: Renderer) -> None:
    """The pod may bind the ports that our NFS client binds, and lowSourcePorts=false leaves the node's setting."""
    sysctl = {"name": "net.ipv4.ip_unprivileged_port_start", "value": str(RESERVED_PORTS.start)}
    assert render(nfs__server="nas").pod["spec"]["securityContext"]["sysctls"] == [sysctl]
    assert "sysctls" not in render(nfs__server="nas", lowSourcePorts=False).pod["spec"]["securityContext"]


def test_every_variable_is_one_that_the_daemon_reads(render: Renderer) -> None:
    """No variable is set in vain: each is that of a flag of `run`."""

    @click.command()
    @options.taking(options.name(), options.exports(), options.cluster(), options.election(), options.daemon())
    def command(**_: Any) -> None:
        """As `run`."""

    read = {parameter.envvar for parameter in command.params}
    for path in VALUE_SETS:
        assert set(render(path).environment()) <= read


def test_metrics_have_the_daemon_s_names() -> None:
    """Every metric in the dashboard and in the alerts is one that the daemon exports."""
    exported = SAMPLED | {name for family in Metrics().registry.collect() for name in _names(family.name, family.type)}
    for file in ("dashboards/nfs-provisioner.json", "templates/prometheusrule.yaml"):
        used = set(re.findall(r"\b(?:nfs_provisioner|controller|process)_[a-z_]+(?=\{)", (CHART / file).read_text()))
        assert len(used) >= 5
        assert used <= exported


def _names(family: str, kind: str) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "info": ["_info"]}
    return [family + suffix for suffix in suffixes.get(kind, [""])]


def test_every_alert_has_its_runbook(render: Renderer) -> None:
    """Each alert links to a heading of our documentation that is there, and says for how long and how bad."""
    group = render(value_set("observed")).one("PrometheusRule")["spec"]["groups"][0]
    headings = anchors(section("operations/alerts.md"))
    assert len(group["rules"]) >= 6
    for rule in group["rules"]:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/operations/alerts.md")
        assert anchor == rule["alert"].lower()
        assert anchor in headings
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["for"]


# ------------------------------------------------------------------------------------------------ the peer's values


def test_the_peer_s_values_whole(render: Renderer) -> None:
    """A complete copy of the nfs-subdir chart's values works: what it sets is set here, but for its own image."""
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
    """Each key of the nfs-subdir chart is obeyed when it says something else than its default."""
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
    """With `access: mounted` the volume, its place and its name are those of the nfs-subdir chart."""
    values = {"nfs__server": "nas", "nfs__path": "/x", "nfs__volumeName": "root", "access": "mounted"}
    release = render(**values)
    assert release.container["volumeMounts"] == [{"name": "root", "mountPath": "/persistentvolumes"}]
    assert release.pod["spec"]["volumes"] == [{"name": "root", "nfs": {"server": "nas", "path": "/x"}}]
    assert release.environment()["REQUIRE_MOUNT"] == "true"
    built = render(**values, buildMode=True)
    assert built.pod["spec"]["volumes"] == [{"name": "root", "emptyDir": {}}]
    options = render(**values, nfs__mountOptions=["hard"], nfs__reclaimPolicy="Delete", name="storage")
    full = "storage-nfs-provisioner"
    assert options.pod["spec"]["volumes"] == [{"name": "root", "persistentVolumeClaim": {"claimName": f"pvc-{full}"}}]
    volume = options.one("PersistentVolume")
    (claim,) = [each for each in options.all("PersistentVolumeClaim") if each["metadata"]["name"] == f"pvc-{full}"]
    assert volume["metadata"]["name"] == f"pv-{full}"
    assert volume["spec"]["mountOptions"] == ["hard"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert claim["spec"]["selector"]["matchLabels"].items() <= volume["metadata"]["labels"].items()


def test_a_direct_export_mounts_nothing(render: Renderer) -> None:
    """By default the pod has no volume, and no object of the release is a mount."""
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
    """A release of the nfs-subdir chart keeps the provisioner's name by its own name, or by nameOverride."""
    release = render(nfs__server="nas", name=name, nameOverride=override)
    assert release.one("Deployment")["metadata"]["name"] == full
    assert release.storage_class()["provisioner"] == f"cluster.local/{full}"


@pytest.mark.parametrize("where", ["podSecurityContext", "securityContext"])
def test_root_on_request(render: Renderer, where: str) -> None:
    """Values that ask for root, as the nfs-subdir image ran, get a pod that the kubelet starts."""
    root: dict[str, Any] = {where: {"runAsUser": 0}}
    other: dict[str, Any] = {where: {"runAsUser": 7}}
    assert render(nfs__server="nas", **root).pod["spec"]["securityContext"]["runAsNonRoot"] is False
    assert render(nfs__server="nas", **other).pod["spec"]["securityContext"]["runAsNonRoot"] is True


# ------------------------------------------------------------------------------------------------ our own values


def test_two_replicas_that_elect_a_leader(render: Renderer) -> None:
    """By default two replicas run on different nodes where possible, and one may go at a time."""
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
    """One release serves several servers; a class on another one does not inherit the default export's options."""
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
    """Further exports are mounted one by one, and the daemon is told where; one may stay direct."""
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
    """DNS, the API server and NFS are let out, on the ports that mountOptions name too; metrics are let in."""
    policy = render(value_set("several"), networkPolicy__enabled=True).one("NetworkPolicy")["spec"]
    ports = {each["port"] for rule in policy["egress"] for each in rule["ports"]}
    assert ports == {53, 443, 6443, 2049, 111, 20048, 2050, 20049}
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]
    enclosed = render(value_set("enclosed")).one("NetworkPolicy")["spec"]
    assert enclosed["egress"][-1] == {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"protocol": "TCP"}]}
    assert "namespaceSelector" in enclosed["ingress"][0]["from"][0]


def test_the_dashboard_reaches_grafana(render: Renderer) -> None:
    """The ConfigMap holds JSON with panels, where Grafana's sidecar looks, and every query has the two variables."""
    config = render(value_set("observed")).one("ConfigMap")
    assert config["metadata"]["namespace"] == "monitoring"
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["nfs-provisioner.json"])
    panels = [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", []))]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 20
    assert all('job=~"$job",namespace=~"$namespace"' in query for query in queries)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_an_image_by_digest(render: Renderer) -> None:
    """A digest wins over the tag."""
    assert (
        render(value_set("enclosed")).container["image"].startswith("registry.example/storage/nfs-provisioner@sha256:")
    )


def test_helm_tests_run_as_the_daemon_does(render: Renderer) -> None:
    """`helm test` checks with the daemon's account, settings and rights, and writes into a volume of the class."""
    release = render(nfs__server="nas")
    checking, writing = release.all("Pod")
    assert checking["spec"]["serviceAccountName"] == release.pod["spec"]["serviceAccountName"]
    assert checking["spec"]["containers"][0]["args"] == ["check"]
    assert checking["spec"]["containers"][0]["env"] == release.container["env"]
    assert checking["spec"]["securityContext"] == release.pod["spec"]["securityContext"]
    claim = release.one("PersistentVolumeClaim")
    assert claim["spec"]["storageClassName"] == "nfs-client"
    assert writing["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]

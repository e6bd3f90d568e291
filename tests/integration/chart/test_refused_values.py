"""Values that are misspelt or cannot work: Helm refuses them, with the key and what to change."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from testbed.helm import HelmFailed
from tests.integration.chart.rendering import CHART, NAS, Renderer, leaves
from tests.support.provisioner_names import NO_NAMES

pytestmark = pytest.mark.timeout(120)

PEER = "nfs-subdir-external-provisioner"


@pytest.mark.parametrize(
    ("misspelt", "word"),
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
def test_a_misspelt_value_is_refused(render: Renderer, misspelt: dict[str, Any], word: str) -> None:
    """An unknown key and an unusable value are refused by name."""
    with pytest.raises(HelmFailed, match=word):
        render(nfs__server="nas", **misspelt)


TWO = [{"server": "a", "path": "/"}, {"server": "b", "path": "/"}]
FAST = {"server": "nas2", "share": "/fast"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "set nfs.server and nfs.path"),
        ({"exports": TWO}, "set nfs.server and nfs.path"),
        ({**NAS, "storageClass__parameters": {"autogrow": "20%"}},
         "StorageClass nfs-client has the parameter autoGrow, .*: set autoGrow.enabled=true, or remove"),
        ({**NAS, "storageClasses": [{"name": "grows", "parameters": {"autoGrow": "20%"}}]}, "StorageClass grows has"),
        ({"exports": TWO, "storageClass__parameters": {"server": "a", "share": "/"}, "storageClasses": [{"name": "x"}]},
         "StorageClass x names no export: set nfs.server and nfs.path"),
        (NAS | {"storageClasses": [{"name": "x", "parameters": {"server": "nas2"}}]}, "x: .*share belong together"),
        (NAS | {"access": "mounted", "storageClasses": [{"name": "x", "parameters": FAST}]},
         "x is on nas2:/fast, which access=mounted does not mount: add it to exports"),
        (NAS | {"storageClasses": [{"name": "nfs-client"}]}, "two StorageClasses are called nfs-client"),
        (NAS | {"storageClasses": [{"name": "x"}, {"name": "x"}]}, "two StorageClasses are called x"),
        (NAS | {"storageClass__defaultClass": True, "storageClasses": [{"name": "x", "defaultClass": "true"}]},
         "nfs-client, x are all the default: set defaultClass for one class only"),
        (NAS | {"storageClass__defaultClass": True, "storageClasses": [
            {"name": "x", "annotations": {"storageclass.kubernetes.io/is-default-class": True}}]}, "all the default"),
        (NAS | {"storageClass__name": "NFS_Client"}, 'a StorageClass cannot be called "NFS_Client"'),
        (NAS | {"storageClass__pathPattern": "x", "storageClass__parameters": {"subDir": "z"}},
         "both pathPattern and the parameter sub"),
        (NAS | {"storageClass__onDelete": "delete", "storageClass__parameters": {"ondelete": "retain"}}, "onDelete"),
        (NAS | {"storageClass__pathPattern": "{{ .PVC.Name }}"}, "nfs-client: the pattern .* is a Go template: write"),
        (NAS | {"storageClasses": [{"name": "x", "parameters": {"subdir": "a/../b"}}]}, "x: .* remove the .."),
        (NAS | {"labels": {"app": "x"}}, "labels.app: the chart sets this label itself"),
        (NAS | {"labels": {"release": "x"}}, "labels.release: "),
        (NAS | {"labels": {"app.kubernetes.io/managed-by": "x"}}, "labels.app.kubernetes.io/managed-by: "),
        (NAS | {"nfs__reclaimPolicy": "Recycle"}, "Kubernetes would remove them all.* or set Retain"),
        (NAS | {"nfs__reclaimPolicy": "Recycle", "access": "mounted", "nfs__mountOptions": "hard"}, "or set Retain"),
        (NAS | {"nfs__reclaimPolicy": "Delete"}, "nfs.reclaimPolicy=Delete .* or set Retain"),
        (NAS | {"storageClass__provisionerName": "kubernetes.io/nfs"}, "provisionerName .* the cluster's own"),
        (NAS | {"replicaCount": 0}, "replicaCount=0 runs no provisioner: set 1 or more"),
        (NAS | {"replicaCount": "0"}, "replicaCount=0 runs no provisioner"),
        (NAS | {"replicaCount": 2, "leaderElection__enabled": False}, "set replicaCount to 1"),
        (NAS | {"replicaCount": "2", "leaderElection__enabled": "false"}, "set replicaCount to 1"),
        (NAS | {"strategyType": "RollingUpdate", "leaderElection__enabled": False}, "unset strategyType"),
        (NAS | {"leaderElection__leaseDuration": "10s"}, "leaseDuration must exceed renewDeadline"),
        (NAS | {"leaderElection__retryPeriod": 15}, "leaseDuration must exceed renewDeadline"),
        (NAS | {"leaderElection__leaseDuration": "1m", "leaderElection__renewDeadline": "1m500ms"}, "must exceed"),
        (NAS | {"nfs__timeout": "0s"}, "nfs.timeout=0 leaves no time for a call"),
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
        (NAS | {"nfs__server": "nas:2049"}, "nfs.server .* contains a port"),
        (NAS | {"nfs__server": "[fd00::1]:2049"}, "nfs.server .* contains a port"),
        (NAS | {"exports": [{"server": "nas2:20490", "path": "/"}]}, "exports.0..server .* contains a port"),
        (NAS | {"nfs__path": "/exports/../etc"}, "nfs.path .* has a . or .. component"),
        (NAS | {"nfs__path": "exports"}, "nfs/path"),
        (NAS | {"nfs__mountOptions": "nfsvers=4.1,sec=krb5p"}, "nfs-client has sec=krb5 .*: set access=mounted"),
        (NAS | {"exports": [{"server": "nas2", "path": "/fast", "access": "direct"}], "access": "mounted",
                "storageClasses": [{"name": "x", "parameters": FAST, "mountOptions": ["sec=krb5:krb5i"]}]},
         "x has sec=krb5 .* for nas2:/fast in exports"),
        (NAS | {"image__tag": "1.0+build"}, 'image.tag "1.0.build" is not a valid tag'),
        (NAS | {"nameOverride": "my nfs", "fullnameOverride": "nfs"}, 'nameOverride "my nfs" cannot be a label'),
        (NAS | {"listen__host": "127.0.0.1"}, "listen.host 127.0.0.1 hides the endpoint"),
        (NAS | {"exports": [{"server": "nas2", "path": "/My Share"}]}, "exports.0..path .* contains a space or a ="),
        (NAS | {"exports": [{"server": "NAS", "path": "/x/"}]}, "exports.0.: nas:/x is listed twice"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_cannot_work_are_refused(render: Renderer, values: dict[str, Any], words: str) -> None:
    """Values that cannot work, or are not safe, are refused with what to change."""
    with pytest.raises(HelmFailed, match=words):
        render(**values)


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
        {"nfs__reclaimPolicy": "Retain", "access": "mounted", "nfs__mountOptions": "hard"},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_work_are_accepted(render: Renderer, values: dict[str, Any]) -> None:
    """Values that are close to refused ones, and work, are accepted."""
    assert render(**NAS | values).objects


@pytest.mark.parametrize("name", [*filter(None, NO_NAMES), "kubernetes.io/nfs"])
def test_a_name_that_no_class_can_have_is_refused(render: Renderer, name: str) -> None:
    """The chart refuses the provisioner names that Kubernetes refuses."""
    with pytest.raises(HelmFailed, match="provisionerName"):
        render(**NAS, storageClass__provisionerName=name)


def refused(render: Renderer, values: dict[str, Any]) -> str:
    """Return Helm's refusal of values; empty if it renders them."""
    try:
        assert render(**values).objects
    except HelmFailed as exc:
        return str(exc)
    return ""


DEFAULTS = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
SECTIONS = sorted({path.split("__")[0] for path in DEFAULTS})
ANOTHER_EXPORT: dict[str, Any] = {"storageClass__parameters": {"server": "nas", "share": "/x"}}


@pytest.mark.parametrize("section_", SECTIONS)
def test_null_in_place_of_defaults(render: Renderer, section_: str) -> None:
    """A key without a value counts as left out, or is refused by its name; no template breaks."""
    paths = [path for path, value in DEFAULTS.items() if value not in (None, "", {}, [])]
    paths = [path for path in paths if path.split("__")[0] == section_]
    for some in filter(None, (paths[::2], paths[1::2])):
        refusal = refused(render, NAS | dict.fromkeys(some))
        if refusal:
            assert "don't meet the specifications of the schema" in refusal
            accepted = [path for path in some if f"'{path.rpartition('__')[2]}'" not in refusal]
            assert len(accepted) < len(some)
            assert refused(render, NAS | dict.fromkeys(accepted)) == ""


@pytest.mark.parametrize("section_", SECTIONS)
def test_null_in_place_of_a_section(render: Renderer, section_: str) -> None:
    """A whole section without a value counts as left out, or is refused by its name."""
    values = {section_: None} | (NAS if section_ == "storageClass" else ANOTHER_EXPORT)
    refusal = refused(render, values)
    if refusal:
        assert "don't meet the specifications of the schema" in refusal
        assert section_ in refusal


def test_empty_sections(render: Renderer) -> None:
    """An empty map has the defaults of its section or list, and is refused by name in place of another value."""
    defaults: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    rest = {name: value for name, value in defaults.items() if name != "nfs"}
    parts = [name for name, value in rest.items() if isinstance(value, dict | list)]
    empty: dict[str, Any] = {name: {} for name in parts}
    assert render(**NAS | empty) == render(**NAS)
    assert render(nfs={}, **ANOTHER_EXPORT) == render(**ANOTHER_EXPORT)
    others = [name for name, value in rest.items() if isinstance(value, bool | int | str)]
    refusal = refused(render, NAS | {name: {} for name in others})
    assert [name for name in others if name not in refusal] == []


def test_every_object_of_the_schema_is_closed() -> None:
    """Every object of the schema refuses unknown keys, except where users choose the keys."""
    open_on_purpose = {
        "global", "dnsConfig", "podSecurityContext", "securityContext", "resources", "affinity", "items", "strings",
        "secrets",
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

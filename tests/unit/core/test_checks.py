"""core.checks: which permissions are checked, how classes are judged, and which exports they use."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from provisioner.core.checks import (
    Permission,
    Use,
    is_cluster_dns,
    judge,
    no_class,
    permissions,
    permitted,
    source,
    uses,
    way,
)
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from tests.support.samples import storage_class

NAS = Location("nas", "/exports")


def test_permissions_of_the_lease() -> None:
    """A Lease's permissions have its namespace and, except for create, its name; without election there are none."""
    of_lease = {each.verb: each for each in permissions(lease=("storage", "ours")) if each.resource == "leases"}
    assert set(of_lease) == {"get", "create", "update"}
    assert {each.namespace for each in of_lease.values()} == {"storage"}
    assert {verb: each.name for verb, each in of_lease.items()} == {"get": "ours", "create": "", "update": "ours"}
    assert not [each for each in permissions(lease=None) if each.resource == "leases"]


def test_the_right_to_let_claims_grow() -> None:
    """Only with a class whose claims grow, the daemon needs to patch claims."""
    patch = Permission(verb="patch", resource="persistentvolumeclaims")
    assert patch not in permissions(lease=None)
    assert set(permissions(lease=None, auto_grow=True)) == {*permissions(lease=None), patch}


def test_a_finding_for_each_resource() -> None:
    """There is one finding per resource, spelled as in roles; missing verbs come with the role that grants them."""
    status = Permission(verb="patch", resource="persistentvolumeclaims", subresource="status")
    get = Permission(verb="get", resource="leases", group="coordination.k8s.io", namespace="storage")
    update = Permission(verb="update", resource="leases", group="coordination.k8s.io", namespace="storage")
    first, second = permitted({status: False, get: True, update: True})
    assert (first.name, first.ok, first.result) == ("persistentvolumeclaims/status", False, "denied: patch")
    assert first.advice == "bind a ClusterRole that allows patch on persistentvolumeclaims/status"
    assert (second.name, second.ok) == ("leases.coordination.k8s.io in namespace storage", True)
    assert (second.result, second.advice) == ("get, update", "")


def test_a_good_class() -> None:
    """A usable class is reported with its own or the default export, and with its reclaim rule."""
    finding, use = judge(storage_class(), NAS)
    assert (finding.name, finding.ok, finding.advice) == ("nfs", True, "")
    assert finding.result == "on nas:/exports nfsvers=4.1; archive when a claim is deleted"
    assert use == Use(NAS, MountOptions(version="4.1"))
    finding, use = judge(storage_class({"server": "b", "share": "/y"}, reclaim_policy="Retain"), NAS)
    assert finding.result == "on b:/y nfsvers=4.1; retain when a claim is deleted"
    assert use is not None
    assert use.export == Location("b", "/y")
    finding, _ = judge(storage_class({"csi.storage.k8s.io/fstype": "nfs"}), NAS)
    assert finding.ok
    assert finding.result.endswith("; without effect: csi.storage.k8s.io/fstype")


def test_bad_classes() -> None:
    """A class whose claims would be refused is reported with what to do, and without an export."""
    options = replace(storage_class(), mount_options=("nfsvers=7",))
    for bad, default, words in (
        (storage_class({"onDelete": "burn"}), NAS, "create it again"),
        (options, NAS, "mountOptions"),
        (storage_class(), None, "server and share"),
    ):
        finding, use = judge(bad, default)
        assert not finding.ok
        assert words in finding.advice
        assert use is None


def test_a_class_whose_claims_cannot_grow() -> None:
    """`autoGrow` without `allowVolumeExpansion` is a warning: the API server refuses every larger request."""
    grows = {"quota": "required", "autoGrow": "20%", "autoGrowLimit": "9Gi"}
    finding, use = judge(storage_class(grows), NAS)
    assert (finding.ok, finding.warning) == (True, True)
    assert "autoGrow has no effect" in finding.result
    assert finding.advice == """kubectl patch sc nfs -p '{"allowVolumeExpansion":true}'"""
    assert use is not None
    assert not judge(storage_class(grows, expands=True), NAS)[0].warning


def test_no_class() -> None:
    """If no class has the provisioner's name, the finding has this name and the names that classes have."""
    found = no_class("example.com/nfs", {"example.com/nsf": 1})
    assert not found.ok
    assert "StorageClasses have example.com/nsf (1 class)" in found.result
    assert "example.com/nfs" in found.advice


def test_each_export_once_for_each_way() -> None:
    """Classes with the same export and mount options share one check; mounted exports ignore mount options."""
    plain, old = Use(NAS, MountOptions()), Use(NAS, MountOptions(version="3"))
    other = Location("b", "/y")
    assert uses([plain, old, plain], [NAS], set()) == [plain, old]
    assert uses([plain, old], [NAS], {NAS}) == [plain]
    assert uses([old], [NAS, other], set()) == [old, Use(other, MountOptions())]


def test_the_way_in_words() -> None:
    """An export is shown with its port and with the mount options that matter."""
    assert way(Use(NAS, MountOptions())) == "nas:/exports"
    options = MountOptions(version="3", port=12049, mount_port=12050, kerberos=True, encryption="tls")
    assert way(Use(NAS, options)) == "nas:/exports port 12049 nfsvers=3 mountport=12050 sec=krb5 tls"


@pytest.mark.parametrize(
    ("server", "is_one"),
    [
        ("nfs.storage.svc", True),
        ("nfs.storage.svc.cluster.local", True),
        ("nfs.storage.svc.example.org", True),
        ("nfs-0.nfs.storage.cluster.local.", True),
        ("svc.example.org", False),
        ("nas.example", False),
        ("10.0.0.1", False),
        ("fd00::1", False),
    ],
)
def test_names_of_services(server: str, is_one: bool) -> None:
    """A server with a Service's name gets a warning, since nodes cannot resolve it; the class is still usable."""
    assert is_cluster_dns(server) is is_one
    finding, use = judge(storage_class({"server": server, "share": "/x"}), None)
    assert (finding.ok, finding.warning, bool(finding.advice)) == (True, is_one, is_one)
    assert use is not None


def test_where_a_right_comes_from() -> None:
    """A missing permission comes with the role of the chart that grants it, or with the advice to ask an admin."""
    assert "chart's ClusterRole" in source("list", "persistentvolumes")
    assert "chart's ClusterRole" in source("patch", "persistentvolumeclaims/status")
    assert "chart's Role" in source("update", "leases")
    assert "admin" in source("create", "persistentvolumeclaims")

"""The chart's admission policy on a real API server: what a stolen token of the daemon's account can do, and cannot."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provisioner.core import manifests
from provisioner.core.locations import Location
from testbed.api import Api, ApiError, Object
from testbed.cluster import ControlPlane
from testbed.waiting import eventually
from tests.integration.chart.rendering import NAS, Release, Renderer, collection
from tests.support.storage import VOLUMES

pytestmark = pytest.mark.timeout(120)

NAME = "cluster.local/nfs-provisioner"
PARTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
FINALIZERS = "external-provisioner.volume.kubernetes.io/finalizer"
NOT_OURS: list[tuple[Object, str]] = [
    ({"hostPath": {"path": "/"}, "nfs": None}, "only NFS volumes"),
    ({"csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": "x"}, "nfs": None}, "only NFS volumes"),
    ({"persistentVolumeReclaimPolicy": "Recycle"}, "not with the policy Recycle"),
    ({"claimRef": None}, "volumes only for claims"),
]


@pytest.fixture
def thief(control_plane: ControlPlane, namespace: str, render: Renderer) -> Iterator[Api]:
    """Who has the token of the daemon's account, where the chart's roles and its policy are installed."""
    api, release = control_plane.api, render(namespace=namespace, **NAS)
    account = release.one("ServiceAccount")["metadata"]["name"]
    made = [_create(api, release.one(kind)) for kind in (*PARTS, *POLICIES)]
    token = api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", {"spec": {}})["status"]["token"]
    stolen = Api(control_plane.url, ca_file=control_plane.ca_file, token=token)
    # The API server looks at new policies, and at new roles, a moment later.
    eventually(lambda: _is_refused(stolen), "the policy holds", timeout_s=30)
    yield stolen
    for path in made:
        api.delete(path)


@pytest.fixture
def volume(cluster_api: Api) -> Iterator[Callable[..., Object]]:
    """Makes volumes as an admin does, which are deleted in the end."""
    names = []

    def make(body: Object) -> Object:
        made = cluster_api.post(VOLUMES, body)
        names.append(made["metadata"]["name"])
        return made

    yield make
    for name in names:
        _remove(cluster_api, name)


def _create(api: Api, body: Object) -> str:
    path = collection(api, body)
    api.post(path, body)
    return f"{path}/{body['metadata']['name']}"


def _remove(api: Api, name: str) -> None:
    try:
        api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
        api.delete(f"{VOLUMES}/{name}")
    except ApiError as exc:
        if exc.status != 404:
            raise


def _is_refused(thief: Api) -> bool:
    try:
        thief.post(f"{VOLUMES}?dryRun=All", changed({"hostPath": {"path": "/"}, "nfs": None}))
    except ApiError as exc:
        return "this account may" in str(exc)
    return False


def ours() -> Any:
    """A volume as the daemon creates it."""
    uid = secrets.token_hex(16)
    return manifests.volume(
        f"pvc-{uid}",
        provisioner=NAME,
        export=Location("nas", "/x"),
        export_id="e",
        directory=("a",),
        on_delete="delete",
        capacity="1Mi",
        access_modes=["ReadWriteMany"],
        mount_options=["hard"],
        class_name="nfs",
        reclaim_policy="Delete",
        claim_ref={"namespace": "default", "name": f"data-{uid}", "uid": uid},
    )


def changed(spec: Object, annotations: Object | None = None) -> Object:
    """Such a volume with other fields; None takes one away."""
    body = ours()
    for part, fields in ((body["spec"], spec), (body["metadata"]["annotations"], annotations or {})):
        part |= fields
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    found: Object = body
    return found


def peers() -> Object:
    """A volume of nfs-subdir's under the same name: without annotations of ours."""
    marks = dict.fromkeys(("nfs-provisioner/on-delete", "nfs-provisioner/directory", "nfs-provisioner/export-id"))
    return changed({}, marks)


def test_what_the_daemon_does_is_let_through(thief: Api, volume: Callable[..., Object]) -> None:
    """It creates its volumes, expands them, sets and takes off its finalizer, and deletes them; a peer's too."""
    body = ours()
    made = thief.post(VOLUMES, body)
    for name in (made["metadata"]["name"], volume(peers())["metadata"]["name"]):
        path = f"{VOLUMES}/{name}"
        thief.patch(path, {"spec": {"capacity": {"storage": "2Mi"}}})
        thief.patch(path, {"metadata": {"finalizers": [FINALIZERS]}}, content_type=STRATEGIC_PATCH)
        thief.delete(path)
        away = {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZERS]}}
        thief.patch(path, away, content_type=STRATEGIC_PATCH)


@pytest.mark.parametrize(("spec", "told"), NOT_OURS, ids=str)
def test_no_other_volume_can_be_created(thief: Api, spec: Object, told: str) -> None:
    """No hostPath, which is root on a node; none of another driver, none that Kubernetes empties, none for anybody."""
    with pytest.raises(ApiError, match=told):
        thief.post(VOLUMES, changed(spec))


@pytest.mark.parametrize("key", list(ours()["metadata"]["annotations"]))
def test_a_volume_without_our_annotations_cannot_be_created(thief: Api, key: str) -> None:
    """Each of the annotations must be there, and the provisioner's name be ours."""
    with pytest.raises(ApiError, match="this account may create"):
        thief.post(VOLUMES, changed({}, {key: None}))
    with pytest.raises(ApiError, match="volumes of its own provisioner"):
        thief.post(VOLUMES, changed({}, {"pv.kubernetes.io/provisioned-by": "another.example/nfs"}))


@pytest.mark.parametrize(
    "body",
    [
        changed({"hostPath": {"path": "/x"}, "nfs": None}),
        changed({}, {"pv.kubernetes.io/provisioned-by": "another.example/nfs"}),
        changed({}, dict.fromkeys(ours()["metadata"]["annotations"])),
    ],
    ids=["hostPath", "another provisioner's", "an admin's"],
)
def test_other_volumes_cannot_be_touched(thief: Api, volume: Callable[..., Object], body: Object) -> None:
    """Volumes that are not the provisioner's can be neither deleted nor changed, nor made to look like its own."""
    path = f"{VOLUMES}/{volume(body)['metadata']['name']}"
    with pytest.raises(ApiError, match="this account may"):
        thief.delete(path)
    for patch in (
        {"spec": {"capacity": {"storage": "2Mi"}}},
        {"metadata": {"annotations": ours()["metadata"]["annotations"]}},
    ):
        with pytest.raises(ApiError, match="this account may"):
            thief.patch(path, patch)


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"claimRef": {"namespace": "mine", "name": "mine", "uid": "mine"}}},
        {"spec": {"claimRef": None}},
        {"spec": {"persistentVolumeReclaimPolicy": "Recycle"}},
        {"spec": {"mountOptions": ["vers=3"]}},
        {"spec": {"storageClassName": "other"}},
        {"metadata": {"annotations": {"nfs-provisioner/on-delete": "retain"}}},
        {"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": None}}},
    ],
    ids=str,
)
def test_what_the_daemon_never_changes_cannot_be_changed(
    thief: Api, volume: Callable[..., Object], patch: Object
) -> None:
    """Nor can one of its own volumes be given to another claim, or its rule, policy or mount options be changed."""
    path = f"{VOLUMES}/{volume(ours())['metadata']['name']}"
    with pytest.raises(ApiError, match="only the capacity and the finalizers"):
        thief.patch(path, patch)


def test_nobody_else_is_kept_from_anything(cluster_api: Api, thief: Api, volume: Callable[..., Object]) -> None:
    """The policy is for the one account: an admin makes and changes what volumes they like."""
    name = volume(changed({"hostPath": {"path": "/x"}, "nfs": None}))["metadata"]["name"]
    cluster_api.patch(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    assert thief.get(f"{VOLUMES}/{name}")["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def policies(release: Release) -> int:
    """How many objects of the policy are in a release."""
    return sum(len(release.all(kind)) for kind in POLICIES)


def test_where_the_policy_is_rendered(render: Renderer) -> None:
    """By default where the account is the chart's own; true and false force it, in quotes too."""
    shared: dict[str, Any] = {"serviceAccount__create": False, "serviceAccount__name": "shared"}
    assert policies(render(**NAS)) == 2
    assert policies(render(**NAS, **shared)) == 0
    assert policies(render(**NAS, **shared, admissionPolicy__enabled="true")) == 2
    assert policies(render(**NAS, admissionPolicy__enabled=False)) == policies(render(enabled=False)) == 0


def test_an_older_cluster_gets_none(render: Renderer) -> None:
    """Kubernetes serves such policies from 1.30 on: an older one is not asked for them, unless a value says so."""
    assert policies(render(**NAS, kube_version="1.29.4")) == 0
    assert policies(render(**NAS, kube_version="1.30.0")) == 2
    assert policies(render(**NAS, kube_version="v1.31.2-gke.100")) == 2
    assert policies(render(**NAS, kube_version="1.29.4", admissionPolicy__enabled=True)) == 2

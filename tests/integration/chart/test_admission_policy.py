"""The chart's admission policy on a real API server: what a stolen token of the daemon's account cannot do."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
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
    """A client with the token of the daemon's account, with the chart's roles and policy in force."""
    yield from _with_stolen_token(control_plane, namespace, render(namespace=namespace, **NAS))


@pytest.fixture
def growing(control_plane: ControlPlane, namespace: str, render: Renderer) -> Iterator[Api]:
    """The same, where the daemon can let claims grow."""
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}
    control_plane.api.post(claims, {"metadata": {"name": "probe"}, "spec": spec})
    for stolen in _with_stolen_token(
        control_plane, namespace, render(namespace=namespace, **NAS, autoGrow__enabled=True)
    ):
        # The policy for claims is another one, and can be enforced later than that for volumes.
        eventually(partial(_cannot_touch, stolen, f"{claims}/probe"), "both are in force", timeout_s=30)
        yield stolen


def _with_stolen_token(control_plane: ControlPlane, namespace: str, release: Release) -> Iterator[Api]:
    api = control_plane.api
    account = release.one("ServiceAccount")["metadata"]["name"]
    made = [_create(api, each) for kind in (*PARTS, *POLICIES) for each in release.all(kind)]
    token = api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", {"spec": {}})["status"]["token"]
    stolen = Api(control_plane.url, ca_file=control_plane.ca_file, token=token)
    # The API server enforces new policies and roles a moment later.
    eventually(lambda: _is_refused(stolen), "the policy is in force", timeout_s=30)
    yield stolen
    for path in made:
        api.delete(path)


@pytest.fixture
def volume(cluster_api: Api) -> Iterator[Callable[..., Object]]:
    """Creates volumes as an admin does, and deletes them when the test ends."""
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


def _cannot_touch(thief: Api, claim: str) -> bool:
    try:
        thief.patch(claim, {"metadata": {"labels": {"touched": "yes"}}})
    except ApiError as exc:
        return "this account may" in str(exc)
    return False


def ours() -> Any:
    """Return a volume as the daemon creates it."""
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
    """Return such a volume with other fields; None removes a field."""
    body = ours()
    for part, fields in ((body["spec"], spec), (body["metadata"]["annotations"], annotations or {})):
        part |= fields
        for key in [key for key, value in part.items() if value is None]:
            del part[key]
    found: Object = body
    return found


def peers() -> Object:
    """Return a volume of nfs-subdir under the same name: without our annotations."""
    marks = dict.fromkeys(("nfs-provisioner/on-delete", "nfs-provisioner/directory", "nfs-provisioner/export-id"))
    return changed({}, marks)


def test_the_daemons_calls_are_allowed(thief: Api, volume: Callable[..., Object]) -> None:
    """The daemon can create, expand and delete its volumes, and set and remove its finalizer, also a peer's."""
    body = ours()
    made = thief.post(VOLUMES, body)
    for name in (made["metadata"]["name"], volume(peers())["metadata"]["name"]):
        path = f"{VOLUMES}/{name}"
        thief.patch(path, {"spec": {"capacity": {"storage": "2Mi"}}})
        thief.patch(path, {"metadata": {"finalizers": [FINALIZERS]}}, content_type=STRATEGIC_PATCH)
        thief.delete(path)
        away = {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZERS]}}
        thief.patch(path, away, content_type=STRATEGIC_PATCH)


@pytest.mark.parametrize(("spec", "words"), NOT_OURS, ids=str)
def test_no_other_volume_can_be_created(thief: Api, spec: Object, words: str) -> None:
    """The account cannot create volumes with hostPath, another driver, policy Recycle, or no claim."""
    with pytest.raises(ApiError, match=words):
        thief.post(VOLUMES, changed(spec))


@pytest.mark.parametrize("key", list(ours()["metadata"]["annotations"]))
def test_a_volume_without_our_annotations_cannot_be_created(thief: Api, key: str) -> None:
    """A volume must have each of our annotations and our provisioner's name."""
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
    """The account can neither delete nor change volumes of others, nor give them our annotations."""
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
    """The account cannot give a volume to another claim, or change its rule, policy, class or mount options."""
    path = f"{VOLUMES}/{volume(ours())['metadata']['name']}"
    with pytest.raises(ApiError, match="only the capacity and the finalizers"):
        thief.patch(path, patch)


def test_the_policy_restricts_only_the_daemons_account(
    cluster_api: Api, thief: Api, volume: Callable[..., Object]
) -> None:
    """An admin can create and change any volume."""
    name = volume(changed({"hostPath": {"path": "/x"}, "nfs": None}))["metadata"]["name"]
    cluster_api.patch(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    assert thief.get(f"{VOLUMES}/{name}")["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


@pytest.fixture
def bound(cluster_api: Api, namespace: str) -> Iterator[str]:
    """The path of a claim of the daemon that has its volume, as an admin would make both."""
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    name = f"grows-{secrets.token_hex(4)}"
    cluster_api.post(
        "/apis/storage.k8s.io/v1/storageclasses",
        {"metadata": {"name": name}, "provisioner": NAME, "allowVolumeExpansion": True},
    )
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Mi"}}}
    claim = cluster_api.post(claims, {"metadata": {"name": "data"}, "spec": spec})
    body = changed({"storageClassName": name})
    body["spec"]["claimRef"] = {"namespace": namespace, "name": "data", "uid": claim["metadata"]["uid"]}
    volume = cluster_api.post(VOLUMES, body)["metadata"]["name"]
    path = f"{claims}/data"
    eventually(lambda: cluster_api.get(path)["status"].get("phase") == "Bound", "the claim is bound", timeout_s=30)
    yield path
    cluster_api.delete(path)
    _remove(cluster_api, volume)
    cluster_api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{name}")


def request(size: str) -> Object:
    """Return a patch by which a claim requests a size."""
    return {"spec": {"resources": {"requests": {"storage": size}}}}


def test_a_claim_can_only_get_more(growing: Api, bound: str, cluster_api: Api) -> None:
    """With autoGrow the account can raise what a claim requests, and nothing else of the claim."""
    growing.patch(bound, request("3Mi"))
    for patch in (
        request("2Mi"),
        {"metadata": {"labels": {"team": "mine"}}},
        {"metadata": {"annotations": {"x": "y"}}},
        {"metadata": {"finalizers": ["example.com/mine"]}},
    ):
        with pytest.raises(ApiError, match="only raise the size that a claim requests"):
            growing.patch(bound, patch)
    assert cluster_api.get(bound)["spec"]["resources"]["requests"] == {"storage": "3Mi"}


def test_other_claims_cannot_be_touched(growing: Api, cluster_api: Api, namespace: str) -> None:
    """The account cannot change a claim that another provisioner serves, or none."""
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    for name, said in (("none", {}), ("theirs", {"volume.kubernetes.io/storage-provisioner": "x/y"})):
        spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}
        cluster_api.post(claims, {"metadata": {"name": name, "annotations": said}, "spec": spec})
        with pytest.raises(ApiError, match="only claims of its own provisioner"):
            growing.patch(f"{claims}/{name}", {"metadata": {"labels": {"team": "mine"}}})


def test_without_auto_grow_no_claim_can_be_changed(thief: Api, bound: str) -> None:
    """Without autoGrow the account has no right to change claims."""
    with pytest.raises(ApiError, match="cannot patch resource"):
        thief.patch(bound, request("3Mi"))


def policies(release: Release) -> int:
    """Count the policy's objects in a release."""
    return sum(len(release.all(kind)) for kind in POLICIES)


def test_when_the_policy_is_rendered(render: Renderer) -> None:
    """The policy is rendered by default if the chart creates the account; true and false override this."""
    shared: dict[str, Any] = {"serviceAccount__create": False, "serviceAccount__name": "shared"}
    assert policies(render(**NAS)) == 2
    assert policies(render(**NAS, autoGrow__enabled=True)) == 4
    assert policies(render(**NAS, **shared)) == 0
    assert policies(render(**NAS, **shared, admissionPolicy__enabled="true")) == 2
    assert policies(render(**NAS, admissionPolicy__enabled=False)) == policies(render(enabled=False)) == 0


def test_an_older_cluster_gets_no_policy(render: Renderer) -> None:
    """Without Kubernetes 1.30, which has such policies, none is rendered unless a value forces it."""
    assert policies(render(**NAS, kube_version="1.29.4")) == 0
    assert policies(render(**NAS, kube_version="1.30.0")) == 2
    assert policies(render(**NAS, kube_version="v1.31.2-gke.100")) == 2
    assert policies(render(**NAS, kube_version="1.29.4", admissionPolicy__enabled=True)) == 2

"""The copies of claims that the benchmarks write into etcd."""

from __future__ import annotations

from tests.benchmarks import objects
from tests.benchmarks.watching import Moment, claim_moment, volume_moment

TEMPLATE = objects.claim(1, classes=2) | {
    "metadata": objects.claim(1)["metadata"] | {"namespace": "team", "uid": "5e8f6d2a-0000-4000-8000-000000000000"}
}


def test_copies_differ_in_name_and_uid() -> None:
    """Copies are like their template, with names in steps and a uid each."""
    copies = list(objects.copies(TEMPLATE, 3, step=2))
    assert [copy["metadata"]["name"] for copy in copies] == ["claim-0000003", "claim-0000005", "claim-0000007"]
    assert len({copy["metadata"]["uid"] for copy in (*copies, TEMPLATE)}) == 4
    assert all(copy["spec"] == TEMPLATE["spec"] for copy in copies)


def test_keys_and_paths() -> None:
    """Objects have the keys under which the API server keeps them in etcd, and its paths."""
    volume = objects.in_phase({"metadata": {"name": "pvc-1"}}, "Bound")
    assert objects.key(TEMPLATE) == "/registry/persistentvolumeclaims/team/claim-0000001"
    assert objects.path(TEMPLATE) == "/api/v1/namespaces/team/persistentvolumeclaims/claim-0000001"
    assert objects.key(volume) == "/registry/persistentvolumes/pvc-1"
    assert objects.path(volume) == "/api/v1/persistentvolumes/pvc-1"


def test_bound() -> None:
    """A Bound claim names its volume, and keeps its metadata and the rest of its spec."""
    bound = objects.bound(TEMPLATE)
    assert bound["spec"] == TEMPLATE["spec"] | {"volumeName": "pvc-5e8f6d2a-0000-4000-8000-000000000000"}
    assert bound["status"]["phase"] == "Bound"
    assert bound["metadata"] == TEMPLATE["metadata"]


def test_moments() -> None:
    """The watches note when volumes appear and disappear, and when claims become Bound."""
    volume = {"spec": {"claimRef": {"namespace": "team"}}}
    assert volume_moment("ADDED", volume) == Moment("team", "added")
    assert volume_moment("MODIFIED", volume) is None
    assert volume_moment("DELETED", volume) == Moment("team", "deleted")
    assert claim_moment("MODIFIED", objects.bound(TEMPLATE)) == Moment("team", "bound")
    assert claim_moment("ADDED", TEMPLATE | {"status": {"phase": "Pending"}}) is None
    assert claim_moment("DELETED", objects.bound(TEMPLATE)) is None

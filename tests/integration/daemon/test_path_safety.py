"""Directories of claims: paths that lead elsewhere, overlaps, symbolic links, and what a reclaim removes.

The numbers in docstrings are those of the known harms of other provisioners in docs/development/peers.md. The tables
of paths that are refused are in tests/unit/core (test_paths, test_templates): here is one real case per rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cluster import ControlPlane
from tests.integration.conftest import Service
from tests.support.daemon import Daemons
from tests.support.storage import ServedStorage

pytestmark = pytest.mark.timeout(120)

BY_ANNOTATION = {"pathPattern": "${.PVC.namespace}/${.PVC.annotations.dir}", "onDelete": "delete"}


def annotated(directory: str) -> dict[str, dict[str, str]]:
    """Return the metadata of a claim that asks for a directory."""
    return {"annotations": {"dir": directory}}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory outside the export, with a file that must survive."""
    directory = tmp_path / "outside"
    directory.mkdir(mode=0o700)
    (directory / "precious").write_text("kept")
    return directory


# ------------------------------------------------------------------------------------------- paths from a claim


def test_an_annotation_cannot_lead_out_of_the_namespaces_directory(served: ServedStorage) -> None:
    """A claim whose annotation leads upwards is refused, and the daemon creates nothing (harm 1)."""
    served.claim(served.own_class(BY_ANNOTATION), metadata=annotated("../.."))
    assert "pathPattern" in served.refusal()
    assert served.namespace not in served.export.names()


def test_an_annotation_cannot_name_the_ledger(served: ServedStorage) -> None:
    """A claim that chooses its whole path gets neither the ledger nor a directory in it (harm 1)."""
    before = served.export.names()
    served.claim(
        served.own_class({"pathPattern": "${.PVC.annotations.dir}"}), metadata=annotated(".provisioner/volumes")
    )
    served.refusal()
    assert [name for name in served.export.names() - before if not name.startswith("archived-")] == []


def test_a_missing_annotation_does_not_select_the_namespaces_directory(served: ServedStorage) -> None:
    """A claim without the annotation that its pattern needs is refused, and its neighbour keeps its data (harm 2)."""
    storage_class = served.own_class(BY_ANNOTATION)
    served.claim(storage_class, "neighbour", metadata=annotated("neighbour"))
    kept = served.directory(served.bound("neighbour")) / "kept"
    kept.write_text("kept")
    served.claim(storage_class)
    assert "'dir'" in served.refusal()
    served.delete_claim()
    served.settled()
    assert kept.read_text() == "kept"


# ------------------------------------------------------------------------------------------- overlaps


def test_a_directory_in_use_goes_to_no_other_claim(served: ServedStorage) -> None:
    """A claim for another volume's directory waits with an event, and gets it empty once that volume is gone (harm 3).

    Deleting a claim that was refused touches nothing.
    """
    storage_class = served.own_class(BY_ANNOTATION)
    served.claim(storage_class, "first", metadata=annotated("team"))
    volume = served.bound("first")
    kept = served.directory(volume) / "kept"
    kept.write_text("kept")
    for name in ("second", "deleted"):
        served.claim(storage_class, name, metadata=annotated("team"))
        assert "overlaps with" in served.refusal(name)
    served.delete_claim("deleted")
    served.settled()
    assert kept.read_text() == "kept"
    served.released(volume)
    again = served.directory(served.bound("second"))
    assert again == served.export.root / served.namespace / "team"
    assert list(again.iterdir()) == []


def test_no_claim_gets_a_directory_above_a_volume(served: ServedStorage) -> None:
    """A claim for a parent of a volume's directory is refused, also after that volume is gone (harm 3)."""
    storage_class = served.own_class(BY_ANNOTATION)
    served.claim(storage_class, "first", metadata=annotated("team/data"))
    volume = served.bound("first")
    served.claim(storage_class, "second", metadata=annotated("team"))
    assert "overlaps with" in served.refusal("second")
    served.released(volume)
    served.eventually(
        lambda: any("exists on export" in event["message"] for event in served.events("second")),
        "the event says that the directory exists",
    )
    assert served.unbound(["second"]) == ["second"]


@pytest.fixture
def other_cluster(tmp_path: Path) -> Iterator[ControlPlane]:
    """A second cluster, which knows nothing of the first one's volumes."""
    with ControlPlane(tmp_path / "other") as cluster:
        yield cluster


def test_two_clusters_never_adopt_each_others_volumes(
    served: ServedStorage, other_cluster: ControlPlane, tmp_path: Path
) -> None:
    """A directory in use by a volume of one cluster is not adopted by an equal claim in another cluster (harm 3)."""
    parameters = {"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "retain"}
    volume = served.volume(parameters)
    (served.directory(volume) / "kept").write_text("kept")
    served.eventually(lambda: volume["metadata"]["name"] in served.export.records, "the record is settled")
    other_cluster.api.post("/api/v1/namespaces", {"metadata": {"name": served.namespace}})
    daemons = Daemons(other_cluster, tmp_path)
    try:
        running = daemons("--no-leader-election", served.export.flag)
        there = ServedStorage(other_cluster.api, served.namespace, daemon=running, export=served.export)
        there.claim(there.own_class(parameters))
        assert "data" in there.refusal()
    finally:
        daemons.kill()
    assert volume["metadata"]["name"] in served.export.records
    served.released(volume)
    assert (served.directory(volume) / "kept").read_text() == "kept"


# ------------------------------------------------------------------------------------------- what a reclaim removes


def test_a_reclaim_removes_only_the_volumes_own_directory(served: ServedStorage) -> None:
    """Of nested directories with one basename, delete and archive each take exactly their volume's (harm 4)."""
    for name in ("delete", "archive"):
        storage_class = served.own_class(BY_ANNOTATION | {"onDelete": name})
        served.claim(storage_class, name, metadata=annotated(f"{name}/data"))
    served.claim(served.own_class(BY_ANNOTATION), "stays", metadata=annotated("stays/data"))
    volumes = {name: served.bound(name) for name in ("delete", "archive", "stays")}
    for name, volume in volumes.items():
        (served.directory(volume) / "whose").write_text(name)
    known = set(served.export.archives("data"))
    for name in ("delete", "archive"):
        served.released(volumes[name])
        assert not served.directory(volumes[name]).exists()
    assert (served.directory(volumes["stays"]) / "whose").read_text() == "stays"
    archives = set(served.export.archives("data")) - known
    assert [(archive / "whose").read_text() for archive in archives] == ["archive"]


def test_parents_of_a_volume_are_never_removed(served: ServedStorage) -> None:
    """Delete and archive leave the directories above a volume, empty or not (harm 13)."""
    for rule in ("delete", "archive"):
        pattern = f"${{.PVC.namespace}}/{rule}/b/${{.PVC.name}}"
        volume = served.volume({"pathPattern": pattern, "onDelete": rule}, rule)
        beside = served.directory(volume).parent.parent / "beside"
        beside.write_text("kept")
        served.released(volume)
        assert beside.read_text() == "kept"
        assert served.directory(volume).parent.is_dir()
        assert list(served.directory(volume).parent.iterdir()) == []


def test_extra_slashes_in_the_share_change_nothing(served: ServedStorage) -> None:
    """An export written with doubled and trailing slashes is the same export, at create and at delete (harm 4)."""
    volume = served.volume({"server": served.export.server, "share": "//exports//k8s/", "onDelete": "delete"})
    directory = served.directory(volume)
    assert directory.is_dir()
    served.released(volume)
    assert not directory.exists()


def test_a_servers_root_as_the_export(served: ServedStorage, service: Service) -> None:
    """On the export `/` paths have no doubled slash, and deleting a volume removes only its directory (harm 4)."""
    parameters = service.second.parameters | {"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "delete"}
    stays, volume = served.volume(parameters, "stays"), served.volume(parameters)
    assert volume["spec"]["nfs"] == {"server": service.second.server, "path": f"/{served.namespace}/data"}
    served.released(volume)
    assert not service.second.directory(volume).exists()
    assert service.second.directory(stays).is_dir()


# ------------------------------------------------------------------------------------------- symbolic links


def test_a_symlink_on_the_way_is_not_followed(served: ServedStorage, outside: Path) -> None:
    """A claim whose path leads through a symlink, or to one, is refused, and the target stays as it is (harm 7)."""
    parent = served.export.root / served.namespace
    parent.mkdir()
    (parent / "link").symlink_to(outside)
    storage_class = served.own_class(BY_ANNOTATION | {"existing": "adopt"})
    served.claim(storage_class, "through", metadata=annotated("link/data"))
    served.claim(storage_class, "to", metadata=annotated("link"))
    assert "symbolic link" in served.refusal("through")
    served.refusal("to")
    assert [entry.name for entry in outside.iterdir()] == ["precious"]
    assert outside.stat().st_mode & 0o777 == 0o700


def test_a_symlink_in_place_of_a_volume_is_not_reclaimed(served: ServedStorage, outside: Path) -> None:
    """When a tenant swaps its directory for a symlink, the reclaim leaves the target alone and says why (harm 7)."""
    volume = served.volume({"pathPattern": "${.PVC.namespace}/data", "onDelete": "delete"})
    directory = served.directory(volume)
    directory.rmdir()
    directory.symlink_to(outside)
    served.delete_claim()
    event = served.volume_event(volume["metadata"]["name"])
    assert "symbolic link" in event["message"]
    assert (outside / "precious").read_text() == "kept"
    directory.unlink()
    directory.mkdir()
    served.volume_gone(volume["metadata"]["name"])


def test_a_symlink_in_place_of_a_parent_is_not_followed(served: ServedStorage, outside: Path) -> None:
    """When a parent of a volume's directory becomes a symlink, the reclaim deletes nothing behind it (harm 7)."""
    volume = served.volume({"pathPattern": "${.PVC.namespace}/data", "onDelete": "delete"})
    parent = served.directory(volume).parent
    parent.rename(parent.with_name(f"{parent.name}-moved"))
    parent.symlink_to(outside)
    (outside / "data").mkdir()
    (outside / "data" / "precious").write_text("kept")
    served.delete_claim()
    assert "symbolic link" in served.volume_event(volume["metadata"]["name"])["message"]
    assert (outside / "data" / "precious").read_text() == "kept"
    parent.unlink()
    parent.with_name(f"{parent.name}-moved").rename(parent)
    served.volume_gone(volume["metadata"]["name"])


def test_a_purge_removes_symlinks_and_not_their_targets(served: ServedStorage, outside: Path) -> None:
    """The purge of a directory removes the symlinks in it and nothing behind them (harm 7)."""
    volume = served.volume({"onDelete": "delete"})
    (served.directory(volume) / "link").symlink_to(outside)
    (served.directory(volume) / "file").symlink_to(outside / "precious")
    served.released(volume)
    served.eventually(lambda: not served.export.trash, "the trash is purged")
    assert (outside / "precious").read_text() == "kept"

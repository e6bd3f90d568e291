"""The known harms of the peers, each by its number in peers.md: none of them may happen here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import fuse
from testbed.cluster import ControlPlane
from testbed.fuse import HangingMount
from tests.integration.conftest import Service
from tests.integration.daemon.test_reclaim_contract import forged
from tests.support.daemon import Daemons
from tests.support.exported import LEDGER, Exported, RecordFields
from tests.support.storage import VOLUMES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(120)

BY_ANNOTATION = {"pathPattern": "${.PVC.namespace}/${.PVC.annotations.dir}", "onDelete": "delete"}
NEEDS_FUSE = pytest.mark.skipif(bool(fuse.missing()), reason=f"this machine cannot mount FUSE: {fuse.missing()}")


def annotated(directory: str) -> dict[str, dict[str, str]]:
    """The metadata of a claim that asks for a directory."""
    return {"annotations": {"dir": directory}}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory with a file that belongs to nobody's volume."""
    directory = tmp_path / "outside"
    directory.mkdir(mode=0o700)
    (directory / "precious").write_text("kept")
    return directory


# ------------------------------------------------------------------------------------------- 1 traversal


@pytest.mark.parametrize(
    "directory",
    ["../..", "..", "a/../../b", ".", "a\nb", "a\0b", "../.provisioner/volumes/x"],
    ids=repr,
)
def test_1_a_claims_own_words_lead_nowhere_else(served: ServedStorage, directory: str) -> None:
    """A claim whose annotation makes the path leave its place is refused, and nothing is made."""
    served.claim(served.own_class(BY_ANNOTATION), metadata=annotated(directory))
    assert "pathPattern" in served.refusal()
    assert served.namespace not in served.export.names()


@pytest.mark.parametrize(("directory", "name"), [("./a", "a"), ("/etc", "etc"), ("a/", "a")])
def test_1_slashes_and_dots_that_add_nothing_are_dropped(served: ServedStorage, directory: str, name: str) -> None:
    """A path is read as people mean it, and stays below the namespace's directory."""
    served.claim(served.own_class(BY_ANNOTATION), metadata=annotated(directory))
    assert served.export.directory(served.bound()) == served.export.root / served.namespace / name


@pytest.mark.parametrize("directory", ["..", "/", ".provisioner", ".provisioner/volumes", "a/..", ".provisioner-x"])
def test_1_a_claim_that_names_the_whole_path_stays_below_the_export(served: ServedStorage, directory: str) -> None:
    """The export's root, what is above it and the ledger are no directories for volumes."""
    before = served.export.names()
    served.claim(served.own_class({"pathPattern": "${.PVC.annotations.dir}"}), metadata=annotated(directory))
    served.refusal()
    assert [name for name in served.export.names() - before if not name.startswith("archived-")] == []


@pytest.mark.parametrize("path", ["{export}", "{export}/..", "{export}/../{name}", "{export}/x/../{name}", "/"])
def test_1_a_path_is_checked_again_at_the_delete(served: ServedStorage, path: str) -> None:
    """A volume whose path was forged to lead to the export's root, above it or to another's data destroys nothing."""
    victim = served.volume({"onDelete": "delete"})
    kept = served.directory(victim) / "kept"
    kept.write_text("kept")
    forgery = forged(served, victim, path=path.format(export=served.export.path, name=served.directory(victim).name))
    served.volume_event(forgery["metadata"]["name"])
    served.settled()
    assert kept.read_text() == "kept"


# ------------------------------------------------------------------------------------------- 2 empty pieces


@pytest.mark.parametrize("annotations", [{}, {"dir": ""}], ids=["missing", "empty"])
def test_2_a_missing_piece_never_becomes_the_namespaces_directory(
    served: ServedStorage, annotations: dict[str, str]
) -> None:
    """A claim without the annotation that its pattern needs is refused by name, and its neighbour keeps its data."""
    storage_class = served.own_class(BY_ANNOTATION)
    served.claim(storage_class, "neighbour", metadata=annotated("neighbour"))
    kept = served.directory(served.bound("neighbour")) / "kept"
    kept.write_text("kept")
    served.claim(storage_class, metadata={"annotations": annotations})
    assert "'dir'" in served.refusal()
    served.delete_claim()
    served.settled()
    assert kept.read_text() == "kept"


def test_2_an_empty_fallback_is_refused(served: ServedStorage) -> None:
    """A fallback that is empty itself gives no path with an empty piece."""
    served.claim(served.own_class({"pathPattern": "${.PVC.namespace}/${.PVC.labels.x:-}"}))
    assert "empty component" in served.refusal()


# ------------------------------------------------------------------------------------------- 3 shared directories


@pytest.mark.parametrize(
    ("first", "second"),
    [("team", "team"), ("team", "team/data")],
    ids=["same", "below"],
)
def test_3_no_directory_is_given_twice(served: ServedStorage, first: str, second: str) -> None:
    """A claim whose directory is another volume's, or below it, waits with an event until that is gone."""
    storage_class = served.own_class(BY_ANNOTATION)
    served.claim(storage_class, "first", metadata=annotated(first))
    volume = served.bound("first")
    kept = served.directory(volume) / "kept"
    kept.write_text("kept")
    served.claim(storage_class, "second", metadata=annotated(second))
    assert "overlaps with" in served.refusal("second")
    assert kept.read_text() == "kept"
    served.released(volume)
    again = served.directory(served.bound("second"))
    assert again == served.export.root / served.namespace / second
    assert list(again.iterdir()) == []


def test_3_no_directory_is_given_above_another(served: ServedStorage) -> None:
    """A claim whose directory is above another volume's is refused, and after that one's end too: the parent stays."""
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


def test_3_the_second_claims_deletion_leaves_the_firsts_data(served: ServedStorage) -> None:
    """Deleting the claim that was refused touches nothing of the volume that has the directory."""
    storage_class = served.own_class(BY_ANNOTATION)
    served.claim(storage_class, "first", metadata=annotated("team"))
    kept = served.directory(served.bound("first")) / "kept"
    kept.write_text("kept")
    served.claim(storage_class, "second", metadata=annotated("team"))
    served.refusal("second")
    served.delete_claim("second")
    served.settled()
    assert kept.read_text() == "kept"


@pytest.fixture
def other_cluster(tmp_path: Path) -> Iterator[ControlPlane]:
    """A second cluster, which knows nothing of the first one's volumes."""
    with ControlPlane(tmp_path / "other") as cluster:
        yield cluster


def test_3_two_clusters_never_adopt_each_others_volumes(
    served: ServedStorage, other_cluster: ControlPlane, tmp_path: Path
) -> None:
    """A directory in use by a volume of one cluster is not adopted in another one, for an equal claim there."""
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


# ------------------------------------------------------------------------------------------- 4 wrong path on delete


@pytest.mark.parametrize("rule", ["delete", "archive"])
def test_4_only_the_volumes_own_directory_goes(served: ServedStorage, rule: str) -> None:
    """Of two nested directories with one basename, the reclaim takes exactly the one of its volume."""
    storage_class = served.own_class(BY_ANNOTATION | {"onDelete": rule})
    served.claim(storage_class, "a", metadata=annotated("a/data"))
    served.claim(storage_class, "b", metadata=annotated("b/data"))
    gone, stays = served.bound("a"), served.bound("b")
    for volume in (gone, stays):
        (served.directory(volume) / "whose").write_text(volume["metadata"]["name"])
    known = set(served.export.archives("data"))
    served.released(gone)
    assert not served.directory(gone).exists()
    assert (served.directory(stays) / "whose").read_text() == stays["metadata"]["name"]
    archives = set(served.export.archives("data")) - known
    assert [(archive / "whose").read_text() for archive in archives] == (
        [gone["metadata"]["name"]] if rule == "archive" else []
    )


@pytest.mark.parametrize("share", ["/exports/k8s/", "//exports//k8s"])
def test_4_slashes_too_many_in_the_share_change_nothing(served: ServedStorage, share: str) -> None:
    """An export written with a trailing or a doubled slash is the same export, at create and at delete."""
    volume = served.volume({"server": served.export.server, "share": share, "onDelete": "delete"})
    directory = served.directory(volume)
    assert directory.is_dir()
    served.released(volume)
    assert not directory.exists()


def test_4_a_servers_root_as_the_export(served: ServedStorage, service: Service) -> None:
    """With the export `/`, volumes have paths without a doubled slash, and deleting one takes only its directory."""
    parameters = service.second.parameters | {"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "delete"}
    stays, volume = served.volume(parameters, "stays"), served.volume(parameters)
    assert volume["spec"]["nfs"] == {"server": service.second.server, "path": f"/{served.namespace}/data"}
    served.released(volume)
    assert not service.second.directory(volume).exists()
    assert service.second.directory(stays).is_dir()


# ------------------------------------------------------------------------------------------- 5 the class is read live


def test_5_a_class_that_is_gone_holds_nothing_back(served: ServedStorage) -> None:
    """A volume is reclaimed by its own rule after its class was deleted."""
    storage_class = served.own_class({"onDelete": "delete"})
    served.claim(storage_class)
    volume = served.bound()
    served.delete_if_there(f"/apis/storage.k8s.io/v1/storageclasses/{storage_class}")
    served.released(volume)
    assert not served.directory(volume).exists()
    assert served.export.archives(served.directory(volume).name) == []


def test_5_a_class_made_anew_changes_no_volume(served: ServedStorage, service: Service) -> None:
    """A class recreated with another rule and another export does not change what a volume made before does."""
    storage_class = served.own_class({"onDelete": "archive"})
    served.claim(storage_class)
    volume = served.bound()
    (served.directory(volume) / "kept").write_text("kept")
    served.delete_if_there(f"/apis/storage.k8s.io/v1/storageclasses/{storage_class}")
    served.own_class(service.second.parameters | {"onDelete": "delete"}, metadata={"name": storage_class})
    served.claim(storage_class, "later")
    served.bound("later")
    served.released(volume)
    [archive] = served.export.archives(served.directory(volume).name)
    assert (archive / "kept").read_text() == "kept"


# ------------------------------------------------------------------------------------------- 6 archives


def test_6_archives_of_one_name_never_collide(served: ServedStorage) -> None:
    """A stable name archived three times gives three archives, and each new claim an empty directory."""
    parameters = {"pathPattern": "${.PVC.namespace}/stable", "onDelete": "archive"}
    known = set(served.export.archives("stable"))
    for turn in range(3):
        volume = served.volume(parameters, f"data-{turn}")
        directory = served.directory(volume)
        assert list(directory.iterdir()) == []
        (directory / "turn").write_text(str(turn))
        served.released(volume)
    archives = sorted(set(served.export.archives("stable")) - known)
    assert [(archive / "turn").read_text() for archive in archives] == ["0", "1", "2"]


def test_6_each_archive_has_a_record_of_whose_it_was(served: ServedStorage) -> None:
    """Archives of one name are told apart: each has a record that names its volume, its claim and its directory."""
    parameters = {"pathPattern": "${.PVC.namespace}/recorded", "onDelete": "archive"}
    known = set(served.export.archives("recorded"))
    volumes = []
    for turn in range(2):
        volumes.append(served.volume(parameters, f"data-{turn}"))
        served.released(volumes[turn])
    archives = sorted(set(served.export.archives("recorded")) - known)
    links = [served.export.root / ".provisioner/archives" / archive.name for archive in archives]
    records = [json.loads(os.readlink(link)) for link in links]
    assert [record["pv"] for record in records] == [volume["metadata"]["name"] for volume in volumes]
    assert [record["was"]["pvc"] for record in records] == ["data-0", "data-1"]
    assert {record["was"]["dir"] for record in records} == {f"{served.namespace}/recorded"}


@pytest.mark.parametrize("below", ["", "/below"])
def test_6_an_archive_is_handed_to_no_new_claim(served: ServedStorage, below: str) -> None:
    """A claim whose path is an archive's, or below it, is refused, also by a class that adopts what is there."""
    parameters = {"pathPattern": "${.PVC.namespace}/kept", "onDelete": "archive"}
    known = set(served.export.archives("kept"))
    volume = served.volume(parameters, "first")
    (served.directory(volume) / "precious").write_text("kept")
    served.released(volume)
    (archive,) = set(served.export.archives("kept")) - known
    adopting = served.own_class({"pathPattern": "${.PVC.annotations.dir}", "existing": "adopt", "onDelete": "delete"})
    served.claim(adopting, metadata=annotated(archive.name + below))
    served.refusal()
    served.delete_claim()
    served.settled()
    assert [entry.name for entry in archive.iterdir()] == ["precious"]
    assert (archive / "precious").read_text() == "kept"


# ------------------------------------------------------------------------------------------- 7 symlinks


def test_7_a_symlink_above_the_directory_redirects_nothing(served: ServedStorage, outside: Path) -> None:
    """A claim whose path leads through a planted symlink is refused, and nothing is made behind it."""
    (served.export.root / served.namespace).symlink_to(outside)
    served.claim(served.own_class(BY_ANNOTATION), metadata=annotated("data"))
    assert "symbolic link" in served.refusal()
    assert [entry.name for entry in outside.iterdir()] == ["precious"]


def test_7_a_symlink_in_the_directorys_place_is_not_adopted(served: ServedStorage, outside: Path) -> None:
    """Where the directory itself is a symlink, it is neither handed out nor is its target's mode changed."""
    (served.export.root / served.namespace).mkdir()
    (served.export.root / served.namespace / "data").symlink_to(outside)
    served.claim(served.own_class(BY_ANNOTATION | {"existing": "adopt"}), metadata=annotated("data"))
    served.refusal()
    assert outside.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("rule", ["delete", "archive"])
def test_7_a_symlink_swapped_in_is_not_reclaimed(served: ServedStorage, outside: Path, rule: str) -> None:
    """When a tenant has put a symlink in place of its directory, the reclaim leaves the target alone and says why."""
    volume = served.volume({"pathPattern": "${.PVC.namespace}/data", "onDelete": rule})
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


def test_7_a_symlink_swapped_in_above_is_not_followed(served: ServedStorage, outside: Path) -> None:
    """When a parent of the directory has become a symlink, nothing behind it is destroyed."""
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


def test_7_a_symlink_inside_a_volume_is_removed_and_not_followed(served: ServedStorage, outside: Path) -> None:
    """The purge of a directory removes the links in it, and nothing that they lead to."""
    volume = served.volume({"onDelete": "delete"})
    (served.directory(volume) / "link").symlink_to(outside)
    (served.directory(volume) / "file").symlink_to(outside / "precious")
    served.released(volume)
    served.eventually(lambda: not served.export.trash, "the trash is purged")
    assert (outside / "precious").read_text() == "kept"


# ------------------------------------------------------------------------------------------- 8 not mounted


def test_8_an_export_that_is_not_there_is_never_made(storage: Storage, daemon: Daemons, tmp_path: Path) -> None:
    """While the export's directory is missing a claim waits with an event; it binds when the directory is there."""
    export = Exported.new(tmp_path / "missing")
    running = daemon("--no-leader-election", export.flag, wait_ready=False)
    storage.claim(storage.storage_class(running.provisioner_name))
    message = storage.event("ProvisioningFailed")["message"]
    assert export.location in message
    assert "does not exist" in message
    assert not export.root.exists()
    export.root.mkdir()
    assert export.directory(storage.bound(timeout_s=30.0)).is_dir()


@NEEDS_FUSE
def test_8_nothing_is_made_below_a_mount_that_is_missing(storage: Storage, daemon: Daemons, tmp_path: Path) -> None:
    """A directory declared a mount gets no volumes while nothing is mounted on it, before and after it was."""
    source, place = tmp_path / "source", tmp_path / "place"
    source.mkdir()
    place.mkdir()
    export = Exported.new(place)
    running = daemon("--no-leader-election", "--require-mount", export.flag, wait_ready=False)
    storage_class = storage.storage_class(running.provisioner_name)
    storage.claim(storage_class)
    assert "is not mounted" in storage.event("ProvisioningFailed")["message"]
    assert list(place.iterdir()) == []
    with HangingMount(source, place):
        storage.bound(timeout_s=30.0)
    storage.claim(storage_class, "later")
    assert export.location in storage.event("ProvisioningFailed", "later")["message"]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("ledger", [False, True], ids=["without a ledger", "with its own"])
def test_8_another_export_in_its_place_is_noticed(
    storage: Storage, daemon: Daemons, tmp_path: Path, ledger: bool
) -> None:
    """When another directory takes the export's place, nothing is made on it or reclaimed from it."""
    export = Exported.new(tmp_path / "export")
    export.root.mkdir()
    running = daemon("--no-leader-election", export.flag)
    storage_class = storage.storage_class(running.provisioner_name, {"onDelete": "delete"})
    storage.claim(storage_class)
    volume = storage.bound()
    aside = tmp_path / "aside"
    export.root.rename(aside)
    export.root.mkdir()
    if ledger:
        (export.root / LEDGER / "volumes").mkdir(parents=True)
        (export.root / LEDGER / "export").symlink_to("another's id")
    export.directory(volume).mkdir()
    (export.directory(volume) / "precious").write_text("kept")
    storage.delete_claim()
    storage.claim(storage_class, "later")
    assert "another export is mounted" in storage.event("ProvisioningFailed", "later")["message"]
    assert "another export is mounted" in storage.volume_event(volume["metadata"]["name"])["message"]
    assert (export.directory(volume) / "precious").read_text() == "kept"
    assert export.names() == {export.directory(volume).name}
    export.root.rename(tmp_path / "wrong")
    aside.rename(export.root)
    storage.bound("later", timeout_s=30.0)
    storage.volume_gone(volume["metadata"]["name"])
    assert not export.directory(volume).exists()


# ------------------------------------------------------------------------------------------- 9 a hung server


@NEEDS_FUSE
def test_9_a_hung_server_holds_back_nobody_else(storage: Storage, daemon: Daemons, tmp_path: Path) -> None:
    """While one export hangs, its claims' events say so and those of another export bind; it goes on by itself."""
    for name in ("source", "place", "healthy"):
        (tmp_path / name).mkdir()
    with HangingMount(tmp_path / "source", tmp_path / "place") as mount:
        hung, healthy = Exported.new(tmp_path / "place"), Exported.new(tmp_path / "healthy")
        running = daemon("--no-leader-election", "--workers=4", "--nfs-timeout=2s", hung.flag, healthy.flag)
        slow = storage.storage_class(running.provisioner_name, hung.parameters | {"onDelete": "delete"})
        quick = storage.storage_class(running.provisioner_name, healthy.parameters)
        storage.claim(slow, "first")
        volume = storage.bound("first")
        mount.hang()
        storage.delete_claim("first")
        names = [f"slow-{number}" for number in range(12)]
        for name in names:
            storage.claim(slow, name)
        for number in range(5):
            storage.claim(quick, f"quick-{number}")
        for number in range(5):
            storage.bound(f"quick-{number}")
        message = storage.event("ProvisioningFailed", names[-1])["message"]
        assert hung.location in message
        assert "is not responding" in message
        assert "is not responding" in storage.volume_event(volume["metadata"]["name"])["message"]
        mount.go_on()
        for name in names:
            storage.bound(name)
        storage.volume_gone(volume["metadata"]["name"])


# ------------------------------------------------------------------------------------------- 10 crash windows


class Stopped:
    """An export on which a daemon has worked, and does not run now: crashes are what it finds at its next start."""

    def __init__(self, storage: Storage, daemon: Daemons, export: Exported) -> None:
        self.storage = storage
        self.export = export
        self.daemon = daemon("--no-leader-election", export.flag)
        storage.eventually((export.root / ".provisioner/export").is_symlink, "the ledger is made")
        self.daemon.stop()
        self.cluster = storage.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
        self.storage_class = storage.storage_class(
            self.daemon.provisioner_name, {"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "delete"}
        )

    def claim(self, name: str = "data") -> tuple[str, RecordFields]:
        """A claim that nobody works on, with the name of its volume and the record of an attempt at it."""
        uid = self.storage.claim(self.storage_class, name)["metadata"]["uid"]
        return f"pvc-{uid}", self.record(uid, name)

    def record(self, uid: str, name: str = "data") -> RecordFields:
        """The record of an attempt at a claim's volume."""
        namespace = self.storage.namespace
        return {
            "dir": f"{namespace}/{name}", "ns": namespace, "pvc": name, "uid": uid, "class": self.storage_class,
            "del": "delete", "size": "1Mi", "at": "2026-01-01T00:00:00Z", "by": self.cluster, "v": 1,
        }  # fmt: skip

    def directory(self, name: str = "data") -> Path:
        """The directory of a claim's volume."""
        return self.export.root / self.storage.namespace / name

    def start(self) -> None:
        """Start the daemon again."""
        self.daemon.start()
        self.daemon.wait_ready()

    def records_end(self) -> None:
        """Wait until neither a pending nor a settled record is left."""
        export = self.export
        self.storage.eventually(lambda: not export.pending and not export.records, "the records are gone")


@pytest.fixture
def stopped(storage: Storage, daemon: Daemons, export_directory: Path) -> Stopped:
    """A daemon between two runs."""
    return Stopped(storage, daemon, Exported.new(export_directory))


def test_10_a_record_without_a_directory_is_gone_on_with(stopped: Stopped) -> None:
    """A crash after the record: the next start makes the directory and the volume that the record names."""
    volume, record = stopped.claim()
    stopped.export.plant(volume, record, pending=True)
    stopped.start()
    bound = stopped.storage.bound()
    assert stopped.export.directory(bound) == stopped.directory()
    settled = {volume: record | {"pvuid": bound["metadata"]["uid"]}}
    stopped.storage.eventually(lambda: stopped.export.records == settled, "the record names the volume")
    assert stopped.export.pending == {}


def test_10_a_directory_without_a_volume_is_gone_on_with(stopped: Stopped) -> None:
    """A crash after the directory: the next start gives it the mode that the class wants, and makes the volume."""
    volume, record = stopped.claim()
    stopped.export.plant(volume, record, pending=True)
    stopped.directory().mkdir(parents=True, mode=0o700)
    stopped.start()
    stopped.storage.bound()
    assert stopped.directory().stat().st_mode & 0o7777 == 0o777


def test_10_an_attempt_for_a_claim_that_went_is_undone(stopped: Stopped) -> None:
    """A crash after the directory, and the claim deleted meanwhile: directory and record go, and the path is free."""
    volume, record = stopped.claim()
    stopped.export.plant(volume, record, pending=True)
    stopped.directory().mkdir(parents=True)
    stopped.storage.delete_claim()
    stopped.start()
    stopped.records_end()
    assert not stopped.directory().exists()
    stopped.storage.claim(stopped.storage_class)
    assert stopped.export.directory(stopped.storage.bound()) == stopped.directory()


def test_10_what_holds_data_is_not_undone(stopped: Stopped) -> None:
    """A directory that somebody has written to is kept with its record, though its claim never got a volume."""
    volume, record = stopped.claim()
    stopped.export.plant(volume, record, pending=True)
    stopped.directory().mkdir(parents=True)
    (stopped.directory() / "precious").write_text("kept")
    stopped.storage.delete_claim()
    stopped.start()
    stopped.storage.claim(stopped.storage_class, "later")
    stopped.storage.bound("later")
    stopped.storage.eventually(lambda: stopped.daemon.logged("attempt_left"), "the daemon says that it leaves it")
    assert (stopped.directory() / "precious").read_text() == "kept"
    assert volume in stopped.export.pending


def test_10_a_reclaim_cut_off_after_the_rename_is_finished(stopped: Stopped) -> None:
    """A crash after the rename into the trash: the next start ends volume, record and what is in the trash."""
    stopped.claim()
    stopped.start()
    volume = stopped.storage.bound()
    name = volume["metadata"]["name"]
    (stopped.directory() / "file").write_text("old")
    stopped.daemon.kill()
    stopped.storage.delete_claim()
    stopped.directory().rename(stopped.export.root / ".provisioner/trash" / f"{name}.20260101T000000.000000Z")
    stopped.start()
    stopped.storage.volume_gone(name)
    stopped.records_end()
    stopped.storage.eventually(lambda: not stopped.export.trash, "the trash is purged")


def test_10_a_reclaim_cut_off_before_the_record_is_finished(stopped: Stopped) -> None:
    """A crash after the PersistentVolume is gone: the next start ends its record, and the path is free."""
    stopped.claim()
    stopped.start()
    volume = stopped.storage.bound()
    name = volume["metadata"]["name"]
    stopped.daemon.kill()
    stopped.storage.delete_claim()
    stopped.directory().rename(stopped.export.root / ".provisioner/trash" / f"{name}.20260101T000000.000000Z")
    api = stopped.storage.api
    stopped.storage.eventually(
        lambda: api.get(f"{VOLUMES}/{name}")["status"]["phase"] == "Released", "the volume is released"
    )
    api.delete(f"{VOLUMES}/{name}")
    api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
    stopped.storage.volume_gone(name)
    stopped.start()
    stopped.records_end()
    stopped.storage.claim(stopped.storage_class)
    stopped.storage.bound()


# ------------------------------------------------------------------------------------------- 11 expansion


def test_11_what_may_be_expanded_is_expanded(served: ServedStorage) -> None:
    """A class that allows expansion has something behind it: the claim's capacity grows."""
    served.volume(allowVolumeExpansion=True)
    served.api.patch(f"{served.claims}/data", {"spec": {"resources": {"requests": {"storage": "2Mi"}}}})
    served.eventually(lambda: served.get_claim()["status"]["capacity"]["storage"] == "2Mi", "the claim has grown")


# ------------------------------------------------------------------------------------------- 12 the sweep


def test_12_the_sweep_only_reports(stopped: Stopped) -> None:
    """What belongs to no volume, with a record or without, is reported after a start and never touched."""
    orphan = "pvc-00000000-0000-4000-8000-000000000000"
    stopped.export.plant(orphan, stopped.record(orphan.removeprefix("pvc-")))
    stopped.directory().mkdir(parents=True)
    (stopped.directory() / "precious").write_text("kept")
    (stopped.export.root / "archived-old").mkdir()
    (stopped.export.root / "unknown").mkdir()
    (stopped.export.root / ".provisioner/volumes/by-hand").symlink_to("no record")
    stopped.start()
    reported = stopped.storage.eventually(lambda: stopped.daemon.logged("orphans"), "the orphans are reported")
    assert (reported[0]["volumes"], reported[0]["unreadable"]) == ([orphan], ["by-hand"])
    where = stopped.export.location
    assert f'nfs_provisioner_orphans{{export="{where}"}} 2.0' in stopped.daemon.http("/metrics")
    assert (stopped.directory() / "precious").read_text() == "kept"
    assert stopped.export.names() == {"archived-old", "unknown", stopped.storage.namespace}
    assert os.readlink(stopped.export.root / ".provisioner/volumes/by-hand") == "no record"
    assert (stopped.export.root / ".provisioner/volumes" / orphan).is_symlink()


def test_12_an_empty_directory_that_was_a_volumes_stays(stopped: Stopped) -> None:
    """Being empty is no reason to go: a directory whose volume somebody deleted by hand is reported with its record."""
    orphan = "pvc-00000000-0000-4000-8000-000000000000"
    stopped.export.plant(orphan, stopped.record(orphan.removeprefix("pvc-")))
    stopped.directory().mkdir(parents=True)
    stopped.start()
    reported = stopped.storage.eventually(lambda: stopped.daemon.logged("orphans"), "the orphans are reported")
    assert reported[0]["volumes"] == [orphan]
    assert stopped.directory().is_dir()
    assert orphan in stopped.export.records


def test_12_a_volume_that_is_there_is_never_swept(stopped: Stopped) -> None:
    """A crash before its record was settled makes no orphan of a volume: the next start settles it, data untouched."""
    stopped.start()
    stopped.claim()
    volume = stopped.storage.bound()["metadata"]["name"]
    stopped.storage.eventually(lambda: volume in stopped.export.records, "the record is settled")
    (stopped.directory() / "precious").write_text("kept")
    stopped.daemon.kill()
    ledger = stopped.export.root / ".provisioner"
    (ledger / "volumes" / volume).rename(ledger / "pending" / volume)
    stopped.start()
    stopped.storage.eventually(lambda: volume in stopped.export.records, "the record is settled again")
    assert (stopped.directory() / "precious").read_text() == "kept"
    assert stopped.daemon.logged("orphans") == []


def test_12_records_of_another_cluster_are_left_alone(stopped: Stopped) -> None:
    """Of two clusters on one export, neither reports, undoes or forgets what the other one's records say."""
    names = [f"pvc-00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    for number, name in enumerate(names):
        record = stopped.record(name.removeprefix("pvc-"), f"theirs-{number}") | {"by": "another cluster"}
        stopped.export.plant(name, record, pending=number == 0)
    for number in (0, 1):  # of the last one the directory is gone
        stopped.directory(f"theirs-{number}").mkdir(parents=True)
    stopped.export.sign("another cluster")
    stopped.start()
    stopped.claim("ours")
    stopped.storage.bound("ours")
    assert set(names[1:]) < set(stopped.export.records)
    assert set(stopped.export.pending) == {names[0]}
    assert all(stopped.directory(f"theirs-{number}").is_dir() for number in (0, 1))
    assert stopped.daemon.logged("orphans") == []


# ------------------------------------------------------------------------------------------- 13 parents


@pytest.mark.parametrize("rule", ["delete", "archive"])
def test_13_parents_are_never_pruned(served: ServedStorage, rule: str) -> None:
    """The directories above a volume stay, with all that is beside it, and when nothing is left in them as well."""
    volume = served.volume({"pathPattern": "${.PVC.namespace}/a/b/${.PVC.name}", "onDelete": rule})
    beside = served.directory(volume).parent.parent / "beside"
    beside.write_text("kept")
    served.released(volume)
    assert beside.read_text() == "kept"
    assert served.directory(volume).parent.is_dir()
    assert list(served.directory(volume).parent.iterdir()) == []


def test_13_an_attempt_that_is_undone_prunes_no_parent(stopped: Stopped) -> None:
    """Of a given-up attempt the empty directory goes, and not the parents made for it, though they are empty."""
    volume, record = stopped.claim()
    directory = stopped.directory() / "a" / "b"
    stopped.export.plant(volume, record | {"dir": f"{stopped.storage.namespace}/data/a/b"}, pending=True)
    directory.mkdir(parents=True)
    stopped.storage.delete_claim()
    stopped.start()
    stopped.records_end()
    assert not directory.exists()
    assert directory.parent.is_dir()

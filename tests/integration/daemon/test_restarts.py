"""Starts of the daemon: attempts and reclaims that a crash interrupted, orphans, and records of other clusters.

The unit tests cut every single call (tests/unit/ledger/test_crashes.py); here real daemons find what a crash leaves.
The numbers of harms are those of docs/development/peers.md.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.daemon import Daemons
from tests.support.exported import Exported, RecordFields
from tests.support.storage import VOLUMES, Storage

pytestmark = pytest.mark.timeout(120)

ORPHAN = "pvc-00000000-0000-4000-8000-000000000000"
EMPTY_ORPHAN = "pvc-00000000-0000-4000-8000-000000000001"


class StoppedDaemon:
    """An export with a ledger whose daemon is stopped, so that a test can plant what a crash leaves."""

    def __init__(self, storage: Storage, daemon: Daemons, export: Exported) -> None:
        self.storage = storage
        self.export = export
        self.daemon = daemon("--no-leader-election", export.flag)
        storage.eventually((export.root / ".provisioner/export").is_symlink, "the ledger exists")
        self.daemon.stop()
        self.cluster = storage.api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
        self.storage_class = storage.storage_class(
            self.daemon.provisioner_name, {"pathPattern": "${.PVC.namespace}/${.PVC.name}", "onDelete": "delete"}
        )

    def claim(self, name: str = "data") -> tuple[str, RecordFields]:
        """Create a claim; return its volume's name and the record of an attempt at it."""
        uid = self.storage.claim(self.storage_class, name)["metadata"]["uid"]
        return f"pvc-{uid}", self.record(uid, name)

    def record(self, uid: str, name: str = "data") -> RecordFields:
        """Return the record of an attempt at a claim's volume."""
        namespace = self.storage.namespace
        return {
            "dir": f"{namespace}/{name}", "ns": namespace, "pvc": name, "uid": uid, "class": self.storage_class,
            "del": "delete", "size": "1Mi", "at": "2026-01-01T00:00:00Z", "by": self.cluster, "v": 1,
        }  # fmt: skip

    def directory(self, name: str = "data") -> Path:
        """Return the directory of a claim's volume."""
        return self.export.root / self.storage.namespace / name

    def move_to_trash(self, name: str, volume: str) -> None:
        """Rename a volume's directory into the trash, as a reclaim does."""
        self.directory(name).rename(self.export.root / ".provisioner/trash" / f"{volume}.20260101T000000.000000Z")

    def start(self) -> None:
        """Start the daemon again."""
        self.daemon.start()
        self.daemon.wait_ready()


@pytest.fixture
def stopped(storage: Storage, daemon: Daemons, export_directory: Path) -> StoppedDaemon:
    """A daemon between two runs."""
    return StoppedDaemon(storage, daemon, Exported.new(export_directory))


def test_interrupted_attempts_are_finished(stopped: StoppedDaemon) -> None:
    """After a crash behind the record, or behind the directory, the next start completes the volume (harm 10)."""
    names = ("recorded", "created")
    planted = {}
    for name in names:
        volume, record = stopped.claim(name)
        stopped.export.plant(volume, record, pending=True)
        planted[volume] = record
    stopped.directory("created").mkdir(parents=True, mode=0o700)
    stopped.start()
    uids = {}
    for name in names:
        bound = stopped.storage.bound(name)
        uids[bound["metadata"]["name"]] = bound["metadata"]["uid"]
        assert stopped.export.directory(bound) == stopped.directory(name)
        assert stopped.directory(name).stat().st_mode & 0o7777 == 0o777
    settled = {volume: record | {"pvuid": uids[volume]} for volume, record in planted.items()}
    stopped.storage.eventually(lambda: stopped.export.records == settled, "the records name the volumes")
    assert stopped.export.pending == {}


def test_attempts_for_deleted_claims_are_undone(stopped: StoppedDaemon) -> None:
    """The next start removes an empty directory and its record, never data, and no parent (harms 10 and 13)."""
    attempts = {name: stopped.claim(name) for name in ("empty", "nested", "written")}
    directories = {name: stopped.directory(name) for name in attempts}
    directories["nested"] /= "a/b"
    for name, (volume, record) in attempts.items():
        path = directories[name].relative_to(stopped.export.root).as_posix()
        stopped.export.plant(volume, record | {"dir": path}, pending=True)
        directories[name].mkdir(parents=True)
        stopped.storage.delete_claim(name)
    (directories["written"] / "precious").write_text("kept")
    stopped.start()
    left = {attempts["written"][0]}
    stopped.storage.eventually(lambda: stopped.export.pending.keys() == left, "the attempts are undone")
    stopped.storage.eventually(lambda: stopped.daemon.logged("attempt_left"), "the log says which attempt stays")
    assert stopped.export.records == {}
    assert not directories["empty"].exists()
    assert not directories["nested"].exists()
    assert directories["nested"].parent.is_dir()
    assert (directories["written"] / "precious").read_text() == "kept"
    stopped.storage.claim(stopped.storage_class, "empty")
    assert stopped.export.directory(stopped.storage.bound("empty")) == directories["empty"]


def test_interrupted_reclaims_are_finished(stopped: StoppedDaemon) -> None:
    """After a crash behind the rename, or behind the volume's end, the next start completes the reclaim (harm 10)."""
    names = ("renamed", "gone")
    for name in names:
        stopped.claim(name)
    stopped.start()
    storage, api = stopped.storage, stopped.storage.api
    volumes = {name: storage.bound(name)["metadata"]["name"] for name in names}
    stopped.daemon.kill()
    for name, volume in volumes.items():
        (stopped.directory(name) / "file").write_text("old")
        storage.delete_claim(name)
        stopped.move_to_trash(name, volume)
    gone = f"{VOLUMES}/{volumes['gone']}"
    storage.eventually(lambda: api.get(gone)["status"]["phase"] == "Released", "the volume is Released")
    api.delete(gone)
    api.patch(gone, {"metadata": {"finalizers": None}})
    storage.volume_gone(volumes["gone"])
    stopped.start()
    storage.volume_gone(volumes["renamed"])
    export = stopped.export
    storage.eventually(lambda: not (export.pending or export.records or export.trash), "records and trash are gone")
    storage.claim(stopped.storage_class, "gone")
    storage.bound("gone")


def test_a_volume_whose_record_was_not_settled_is_no_orphan(stopped: StoppedDaemon) -> None:
    """After a crash before the record is settled, the next start settles it and leaves the data alone (harm 12)."""
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


def test_orphans_are_reported_and_never_touched(stopped: StoppedDaemon) -> None:
    """Directories without a volume, with or without a record, empty or not, are reported and stay (harm 12)."""
    for orphan, name in ((ORPHAN, "data"), (EMPTY_ORPHAN, "empty")):
        stopped.export.plant(orphan, stopped.record(orphan.removeprefix("pvc-"), name))
        stopped.directory(name).mkdir(parents=True)
    (stopped.directory() / "precious").write_text("kept")
    (stopped.export.root / "archived-old").mkdir()
    (stopped.export.root / "unknown").mkdir()
    by_hand = stopped.export.root / ".provisioner/volumes/by-hand"
    by_hand.symlink_to("no record")
    stopped.start()
    (reported, *_) = stopped.storage.eventually(lambda: stopped.daemon.logged("orphans"), "the orphans are reported")
    assert (sorted(reported["volumes"]), reported["unreadable"]) == ([ORPHAN, EMPTY_ORPHAN], ["by-hand"])
    where = stopped.export.location
    assert f'nfs_provisioner_orphans{{export="{where}"}} 3.0' in stopped.daemon.http("/metrics")
    assert (stopped.directory() / "precious").read_text() == "kept"
    assert stopped.directory("empty").is_dir()
    assert stopped.export.names() == {"archived-old", "unknown", stopped.storage.namespace}
    assert os.readlink(by_hand) == "no record"
    by_hand.unlink()
    assert stopped.export.records.keys() == {ORPHAN, EMPTY_ORPHAN}


def test_records_of_another_cluster_are_left_alone(stopped: StoppedDaemon) -> None:
    """Of two clusters on one export, neither reports, undoes or forgets the other's records (harm 12)."""
    names = [f"pvc-00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    for number, name in enumerate(names):
        record = stopped.record(name.removeprefix("pvc-"), f"theirs-{number}") | {"by": "another cluster"}
        stopped.export.plant(name, record, pending=number == 0)
    for number in (0, 1):  # the last one has no directory
        stopped.directory(f"theirs-{number}").mkdir(parents=True)
    stopped.export.sign("another cluster")
    stopped.start()
    stopped.claim("ours")
    stopped.storage.bound("ours")
    assert set(names[1:]) < set(stopped.export.records)
    assert set(stopped.export.pending) == {names[0]}
    assert all(stopped.directory(f"theirs-{number}").is_dir() for number in (0, 1))
    assert stopped.daemon.logged("orphans") == []

"""Archives end to end: recorded, kept for the class's retention, listed, and restored."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbed import wrong_clock
from testbed.cluster import ControlPlane
from testbed.wrong_clock import WrongClock
from tests.integration.conftest import Service
from tests.support.archiving import RESTORE, archive, command, names, records, text_of
from tests.support.daemon import Daemon, Daemons
from tests.support.disk import in_trash
from tests.support.storage import ServedStorage, Storage

pytestmark = pytest.mark.timeout(180)

DAY_S = 86400


def start(daemon: Daemons, directory: Path, **fields: Any) -> Daemon:
    """Start a daemon on the directory, without leader election: it waits for no predecessor's lease."""
    return daemon(f"--export=nas.example:/x={directory}", "--no-leader-election", **fields)


def archive_class(storage: Storage, daemon: Daemon, retention: str = "") -> str:
    """Create a class that archives, with this retention."""
    kept = {"archiveRetention": retention} if retention else {}
    return storage.storage_class(daemon.provisioner_name, {"onDelete": "archive"} | kept)


def claim_archive(storage: Storage, class_name: str, claim: str, archived: str) -> None:
    """Create a claim that asks for an archive."""
    storage.claim(class_name, claim, metadata={"annotations": {RESTORE: archived}})


# ---------------------------------------------------------------------------------------------------- names


def test_archives_of_one_name(served: ServedStorage) -> None:
    """A path archived three times gives three archives, each with a record of its volume (harm 6 in peers.md).

    Each next claim of that path gets an empty directory.
    """
    parameters = {"pathPattern": "${.PVC.namespace}/stable", "onDelete": "archive"}
    root = served.export.root
    known = names(root)
    volumes = []
    for number in range(3):
        volume = served.volume(parameters, f"data-{number}")
        directory = served.directory(volume)
        assert list(directory.iterdir()) == []
        (directory / "file").write_text(str(number))
        served.released(volume)
        volumes.append(volume["metadata"]["name"])
    archives = sorted(names(root) - known)
    assert [(root / name / "file").read_text() for name in archives] == ["0", "1", "2"]
    found = [records(root)[name] for name in archives]
    assert [record["pv"] for record in found] == volumes
    assert [record["was"]["pvc"] for record in found] == ["data-0", "data-1", "data-2"]
    assert {record["was"]["dir"] for record in found} == {f"{served.namespace}/stable"}


def test_no_claim_gets_an_archive_by_its_path(served: ServedStorage) -> None:
    """A claim whose path is an archive's, or below it, is refused, even with `existing: adopt` (harm 6 in peers.md)."""
    root = served.export.root
    name = archive(served, root, served.own_class())
    adopting = served.own_class({"pathPattern": "${.PVC.annotations.dir}", "existing": "adopt", "onDelete": "delete"})
    for claim, path in (("same", name), ("below", f"{name}/below")):
        served.claim(adopting, claim, metadata={"annotations": {"dir": path}})
        served.refusal(claim)
        served.delete_claim(claim)
    served.settled()
    assert [entry.name for entry in (root / name).iterdir()] == ["file"]
    assert (root / name / "file").read_text() == "precious"


# ---------------------------------------------------------------------------------------------------- retention


def test_retention(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """An archive is deleted with its record when its retention is over, and not before; others stay."""
    started = start(daemon, export_directory)
    short = archive_class(storage, started, "3s")
    kept = {
        archive(storage, export_directory, archive_class(storage, started, rule), f"c{rule}") for rule in ("", "1h")
    }
    name = archive(storage, export_directory, short)
    since = datetime.fromisoformat(records(export_directory)[name]["at"])
    storage.eventually(lambda: name not in names(export_directory), "the archive has gone", timeout_s=60)
    assert (datetime.now(UTC) - since).total_seconds() >= 3
    storage.eventually(lambda: not in_trash(export_directory), "the trash is purged")
    storage.eventually(lambda: name not in records(export_directory), "its record has ended")
    assert names(export_directory) == kept == set(records(export_directory))
    (said,) = started.logged("archive_expired")
    assert said["claim"] == f"{storage.namespace}/data"


def test_retention_across_a_crash(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """After a crash the next daemon deletes an archive whose retention is over, and keeps one without retention."""
    started = start(daemon, export_directory)
    kept = archive(storage, export_directory, archive_class(storage, started))
    archive(storage, export_directory, archive_class(storage, started, "5s"), "short")
    started.kill()
    assert len(names(export_directory)) == 2
    started.start()
    storage.eventually(lambda: names(export_directory) == {kept}, "the other is deleted", timeout_s=60)


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    """A wall clock for a daemon, which the test sets."""
    if wrong_clock.missing():
        pytest.skip(f"this machine cannot have a wrong clock: {wrong_clock.missing()}")
    return WrongClock(tmp_path / "clock")


@pytest.fixture
def timeless(control_plane: ControlPlane, tmp_path: Path) -> Path:
    """A kubeconfig that skips the check of the server's certificate, which is minutes old."""
    config = json.loads(control_plane.kubeconfig.read_text())
    (cluster,) = config["clusters"]
    cluster["cluster"] = {"server": cluster["cluster"]["server"], "insecure-skip-tls-verify": True}
    path = tmp_path / "timeless.kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    "ahead_s",
    [pytest.param(10 * DAY_S, id="forward"), pytest.param(-10 * DAY_S, id="backward", marks=pytest.mark.thorough)],
)
def test_a_clock_that_jumps(
    daemon: Daemons, storage: Storage, export_directory: Path, clock: WrongClock, timeless: Path, ahead_s: int
) -> None:
    """However the daemon's clock jumps, while it runs and across a crash, no archive is deleted before its time."""
    started = start(daemon, export_directory, environment=clock.environment, kubeconfig=timeless)
    hour, soon = archive_class(storage, started, "1h"), archive_class(storage, started, "4s")
    before = archive(storage, export_directory, hour, "before")
    clock.set(ahead_s)
    during = archive(storage, export_directory, hour, "during")
    started.kill()
    started.start()
    started.wait_ready()
    after = archive(storage, export_directory, hour, "after")
    clock.set(0)
    assert names(export_directory) == {before, during, after}
    started.restart()
    # Proof that the daemon looks, by the right time: it deletes what is due, and nothing else.
    due = archive(storage, export_directory, soon, "due")
    storage.eventually(lambda: due not in names(export_directory), "the daemon deletes what is due", timeout_s=90)
    storage.eventually(lambda: due not in records(export_directory), "its record has ended")
    assert names(export_directory) == {before, during, after} == set(records(export_directory))
    now = datetime.now(UTC)
    for name in (before, during, after):
        kept_s = (now - datetime.fromisoformat(records(export_directory)[name]["at"])).total_seconds()
        assert kept_s < 600  # the record has the real time, or a later one


def test_clocks_that_disagree_are_logged(
    daemon: Daemons, storage: Storage, export_directory: Path, clock: WrongClock, timeless: Path
) -> None:
    """When the daemon's clock is behind the API server's, archives stay, and the log says why."""
    clock.set(-DAY_S)
    started = start(daemon, export_directory, environment=clock.environment, kubeconfig=timeless)
    name = archive(storage, export_directory, archive_class(storage, started, "1s"))
    storage.eventually(lambda: started.logged("clocks_disagree"), "the log reports the clocks", timeout_s=90)
    assert names(export_directory) == {name}


def test_an_archive_that_an_admin_moves(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When an admin moves an archive away, the daemon deletes its record and nothing else."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    kept, taken = (archive(storage, export_directory, class_name, name) for name in ("kept", "taken"))
    (export_directory / taken).rename(export_directory / "elsewhere")
    started.restart()
    storage.eventually(lambda: set(records(export_directory)) == {kept}, "the record has ended", timeout_s=30)
    assert names(export_directory) == {kept}
    assert (export_directory / "elsewhere" / "file").read_text() == "precious"


# ---------------------------------------------------------------------------------------------------- the list


def listed(control_plane: ControlPlane, service: Service, *flags: str) -> list[dict[str, Any]]:
    """Return what `archives -o json` lists."""
    done = command(
        control_plane, "archives", service.daemon.provisioner_name, service.export.flag, "-o", "json", *flags
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_archives_are_listed(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Each archive is listed with its claim, its time and its retention; so is one without a record."""
    root = served.export.root
    name = archive(served, root, served.own_class({"archiveRetention": "30d"}))
    (root / "archived-peer").mkdir()
    (found,) = listed(control_plane, service, f"--namespace={served.namespace}")
    record = records(root)[name]
    assert found["archive"] == name
    assert (found["namespace"], found["claim"], found["capacity"]) == (served.namespace, "data", "1Mi")
    assert (found["archived"], found["export"], found["restorable"]) == (record["at"], served.export.location, True)
    until = datetime.fromisoformat(found["kept_until"]) - datetime.fromisoformat(record["at"])
    assert until.days == 30
    everything = {each["archive"]: each for each in listed(control_plane, service)}
    assert everything["archived-peer"]["why_not"] == "no record"
    done = command(control_plane, "archives", service.daemon.provisioner_name, service.export.flag)
    line = next(line for line in done.stdout.splitlines() if line.startswith(name))
    assert f"{served.namespace}/data" in line
    (root / "archived-peer").rmdir()


def test_an_export_that_cannot_be_read(control_plane: ControlPlane, tmp_path: Path) -> None:
    """An export that cannot be read is named, and the exit status is 1."""
    done = command(control_plane, "archives", "test.example/nobody", f"--export=nas.example:/x={tmp_path}/missing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "skipped export nas.example:/x" in done.stderr


# ---------------------------------------------------------------------------------------------------- by annotation


def test_restored_by_annotation(served: ServedStorage) -> None:
    """A claim that asks for an archive gets its data by a rename, and the archive no longer exists."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old", text="bytes")
    inode = (root / name).stat().st_ino
    claim_archive(served, class_name, "new", name)
    assert text_of(served, root, "new") == "bytes"
    assert served.directory(served.bound("new")).stat().st_ino == inode
    said = served.event("ProvisioningSucceeded", "new")["message"]
    assert name in said
    assert name not in names(root)
    served.eventually(lambda: name not in records(root), "the archive's record has ended")


def test_one_archive_for_two_claims(served: ServedStorage) -> None:
    """Of two claims that ask for one archive, one gets it, and the other's event says so."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    for claim in ("one", "two"):
        claim_archive(served, class_name, claim, name)
    bound = served.eventually(
        lambda: [c for c in ("one", "two") if not served.unbound([c])], "one of them is bound", timeout_s=30
    )
    (other,) = {"one", "two"} - set(bound)
    assert name in served.refusal(other)
    assert text_of(served, root, bound[0]) == "precious"


def test_annotations_that_are_refused(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Another namespace, another export, an unknown archive or a dataSource is refused, and the archive stays."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    before = records(root)[name]
    other = f"{served.namespace}-other"
    control_plane.api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    stranger = ServedStorage(control_plane.api, other, daemon=service.daemon, export=service.export)
    claim_archive(stranger, class_name, "data", name)
    assert f"there is no archive {name!r} of namespace {other}" in stranger.refusal()
    claim_archive(served, served.own_class(service.second.parameters), "elsewhere", name)
    assert f"it is on export {service.export.location}" in served.refusal("elsewhere")
    claim_archive(served, class_name, "unknown", "archived-nothing")
    assert "there is no archive 'archived-nothing'" in served.refusal("unknown")
    claim_archive(served, class_name, "nonsense", "../etc")
    assert "is not the name of an archive" in served.refusal("nonsense")
    annotations = {"annotations": {RESTORE: name}}
    source = {"kind": "PersistentVolumeClaim", "name": "old"}
    served.claim(class_name, "both", metadata=annotations, dataSource=source)
    assert "both name a source for the data" in served.refusal("both")
    assert records(root)[name] == before
    assert (root / name / "file").read_text() == "precious"
    control_plane.api.delete(f"/api/v1/namespaces/{other}")


def test_a_deleted_claim_gives_its_archive_back(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A claim deleted while the daemon is down in the middle of its restore leaves the archive as it was."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    name = archive(storage, export_directory, class_name)
    claim_archive(storage, class_name, "new", name)
    storage.bound("new")
    # This is what a crash right before the volume's creation leaves.
    uid = storage.get_claim("new")["metadata"]["uid"]
    started.kill()
    ledger = export_directory / ".provisioner"
    assert not (ledger / "pending" / f"pvc-{uid}").is_symlink()
    (ledger / "volumes" / f"pvc-{uid}").rename(ledger / "pending" / f"pvc-{uid}")
    record = json.loads((ledger / "pending" / f"pvc-{uid}").readlink().as_posix())
    was = record | {"del": "archive"}
    (ledger / "archives" / name).symlink_to(
        json.dumps({"v": 1, "pv": "pvc-old", "at": "2026-01-01T00:00:00Z", "was": was, "to": f"pvc-{uid}"})
    )
    storage.api.patch(f"/api/v1/persistentvolumes/pvc-{uid}", {"metadata": {"finalizers": None}})
    storage.api.patch(f"{storage.claims}/new", {"metadata": {"finalizers": None}})
    storage.delete_if_there(f"{storage.claims}/new")
    storage.delete_if_there(f"/api/v1/persistentvolumes/pvc-{uid}")
    storage.volume_gone(f"pvc-{uid}")
    started.start()
    storage.eventually(lambda: names(export_directory) == {name}, "the archive is back", timeout_s=90)
    assert (export_directory / name / "file").read_text() == "precious"


@pytest.mark.timeout(300)
def test_restores_and_crashes(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When the daemon is killed repeatedly while claims restore their archives, each gets its own bytes, once."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    archived = {
        number: archive(storage, export_directory, class_name, f"old-{number}", text=f"bytes {number}")
        for number in range(12)
    }
    chance = random.Random(5)
    for number, name in archived.items():
        claim_archive(storage, class_name, f"new-{number}", name)
        if number % 4 == 3:
            time.sleep(chance.uniform(0.0, 0.15))
            started.kill()
            started.start()
    for number in archived:
        assert text_of(storage, export_directory, f"new-{number}") == f"bytes {number}"
    assert names(export_directory) == set()
    storage.eventually(lambda: not records(export_directory), "the archives' records have ended", timeout_s=90)
    assert not list((export_directory / ".provisioner/pending").iterdir())


# ---------------------------------------------------------------------------------------------------- by command


def restore(control_plane: ControlPlane, served: ServedStorage, name: str, claim: str, *flags: str) -> tuple[int, str]:
    """Run `restore` for a claim of the test's namespace, or of another; return its status and its stderr."""
    where = claim if "/" in claim else f"{served.namespace}/{claim}"
    words = (served.export.flag, name, f"--claim={where}", *flags)
    done = command(control_plane, "restore", served.provisioner, *words)
    return done.returncode, done.stderr


def test_restored_by_command(control_plane: ControlPlane, served: ServedStorage) -> None:
    """The command creates a claim like the archived one, prints its events, and exits when the claim has the data."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old", text="bytes")
    status, said = restore(control_plane, served, name, "new")
    assert status == 0, said
    assert "ProvisioningSucceeded" in said
    assert f"has the data of archive {name}" in said
    claim = served.get_claim("new")
    assert claim["spec"]["storageClassName"] == class_name
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Mi"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert text_of(served, root, "new") == "bytes"


def test_claims_and_classes_as_they_are(control_plane: ControlPlane, served: ServedStorage) -> None:
    """A claim that waits for another archive is left alone; `--class` replaces a class that is gone."""
    root, class_name = served.export.root, served.own_class()
    first, second = (archive(served, root, class_name, name, text=name) for name in ("first", "second"))
    refused = served.own_class({"minFree": "100%"})
    served.claim(refused, "waiting", metadata={"annotations": {RESTORE: first}})
    served.refusal("waiting")
    status, said = restore(control_plane, served, second, "waiting")
    assert (status, f"already asks for archive '{first}'" in said) == (1, True), said
    served.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{class_name}")
    status, said = restore(control_plane, served, second, "new")
    assert (status, f"StorageClass {class_name} does not exist" in said) == (1, True), said
    status, said = restore(control_plane, served, second, "new", f"--class={served.own_class()}")
    assert status == 0, said
    assert text_of(served, root, "new") == "second"


def test_what_the_command_refuses(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """The command gives its reason for refusing another namespace, an unknown or unrecorded archive, a bound claim."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    served.claim(class_name, "bound")
    served.bound("bound")
    (root / "archived-bare").mkdir()
    cases = {
        (name, "default/new"): "is not of namespace default",
        ("archived-none", "new"): "there is no archive archived-none",
        ("archived-bare", "new"): "has no record",
        (name, "bound"): "already has a volume",
    }
    for (wanted, claim), words in cases.items():
        status, said = restore(control_plane, served, wanted, claim)
        assert (status, words in said) == (1, True), said
    status, said = restore(control_plane, served, name, "no/such/claim")
    assert (status, "NAMESPACE/NAME" in said) == (2, True), said
    elsewhere = served.own_class(service.second.parameters)
    status, said = restore(control_plane, served, name, "new", f"--class={elsewhere}")
    assert (status, "is not on that export" in said) == (1, True), said
    (root / "archived-bare").rmdir()
    assert (root / name / "file").read_text() == "precious"


def test_no_provisioner_runs(
    control_plane: ControlPlane, daemon: Daemons, storage: Storage, export_directory: Path
) -> None:
    """Without a provisioner the command says so and stops waiting; the claim still gets the data when one starts."""
    started = start(daemon, export_directory)
    name = archive(storage, export_directory, archive_class(storage, started))
    started.stop()
    flag, claim = f"--export=nas.example:/x={export_directory}", f"--claim={storage.namespace}/new"
    done = command(control_plane, "restore", started.provisioner_name, flag, name, claim, "--timeout=3s")
    assert done.returncode == 1
    assert "has responded: check that it is running" in done.stderr
    started.start()
    assert text_of(storage, export_directory, "new") == "precious"

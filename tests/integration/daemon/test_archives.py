"""Archives end to end: recorded, kept as long as the class says and no shorter, listed, and given back."""

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
    """A daemon on the directory, which need not wait for a dead predecessor's lease."""
    return daemon(f"--export=nas.example:/x={directory}", "--no-leader-election", **fields)


def archive_class(storage: Storage, daemon: Daemon, retention: str = "") -> str:
    """A class that archives, and keeps archives for so long."""
    kept = {"archiveRetention": retention} if retention else {}
    return storage.storage_class(daemon.provisioner_name, {"onDelete": "archive"} | kept)


def wanting(storage: Storage, class_name: str, claim: str, archived: str) -> None:
    """Make a claim that asks for an archive."""
    storage.claim(class_name, claim, metadata={"annotations": {RESTORE: archived}})


# ---------------------------------------------------------------------------------------------------- retention


def test_retention(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """An archive goes when its time is over and not before, with its record; those with other rules stay."""
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
    """Killed while an archive waits for its time, the next start ends it; one without a time is there for ever."""
    started = start(daemon, export_directory)
    kept = archive(storage, export_directory, archive_class(storage, started))
    archive(storage, export_directory, archive_class(storage, started, "5s"), "short")
    started.kill()
    time.sleep(2)
    assert len(names(export_directory)) == 2
    started.start()
    storage.eventually(lambda: names(export_directory) == {kept}, "the one has gone", timeout_s=60)


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    """The wall clock of a daemon."""
    if wrong_clock.missing():
        pytest.skip(f"this machine cannot have a wrong clock: {wrong_clock.missing()}")
    return WrongClock(tmp_path / "clock")


@pytest.fixture
def timeless(control_plane: ControlPlane, tmp_path: Path) -> Path:
    """A kubeconfig that does not look at the server's certificate, which is minutes old."""
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
    """However our clock is set, while we run, across a crash and back again, no archive goes before its time."""
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
    # The proof that it looks, and by the right time: what is due goes, and these do not.
    due = archive(storage, export_directory, soon, "due")
    storage.eventually(lambda: due not in names(export_directory), "what is due has gone", timeout_s=90)
    storage.eventually(lambda: due not in records(export_directory), "its record has ended")
    assert names(export_directory) == {before, during, after} == set(records(export_directory))
    now = datetime.now(UTC)
    for name in (before, during, after):
        kept_s = (now - datetime.fromisoformat(records(export_directory)[name]["at"])).total_seconds()
        assert kept_s < 600  # stamped with the real time, or a later one


def test_clocks_that_disagree_are_told_of(
    daemon: Daemons, storage: Storage, export_directory: Path, clock: WrongClock, timeless: Path
) -> None:
    """When our clock is behind the API server's, archives stay, and the log says why."""
    clock.set(-DAY_S)
    started = start(daemon, export_directory, environment=clock.environment, kubeconfig=timeless)
    name = archive(storage, export_directory, archive_class(storage, started, "1s"))
    storage.eventually(lambda: started.logged("clocks_disagree"), "the clocks' disagreement is told", timeout_s=90)
    assert names(export_directory) == {name}


def test_an_archive_that_was_taken_away(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When an admin removes an archive by hand, its record ends by itself, and nothing else does."""
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
    """What `archives` lists for programs."""
    done = command(
        control_plane, "archives", service.daemon.provisioner_name, service.export.flag, "-o", "json", *flags
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_archives_are_listed(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Each archive is listed with whose it was, since when, until when; one without a record is, too."""
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


def test_an_export_that_does_not_tell(control_plane: ControlPlane, tmp_path: Path) -> None:
    """An export that cannot be looked at is named, with what to do, and the status is 1."""
    done = command(control_plane, "archives", "test.example/nobody", f"--export=nas.example:/x={tmp_path}/missing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "skipped export nas.example:/x" in done.stderr


# ---------------------------------------------------------------------------------------------------- by annotation


def test_restored_by_annotation(served: ServedStorage) -> None:
    """A claim that asks for an archive gets its data, by a rename; the archive is none any more."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old", text="bytes")
    inode = (root / name).stat().st_ino
    wanting(served, class_name, "new", name)
    assert text_of(served, root, "new") == "bytes"
    assert served.directory(served.bound("new")).stat().st_ino == inode
    said = served.event("ProvisioningSucceeded", "new")["message"]
    assert name in said
    assert name not in names(root)
    served.eventually(lambda: name not in records(root), "the archive's record has ended")


def test_one_archive_for_two_claims(served: ServedStorage) -> None:
    """Of two claims that ask for one archive one gets it, and the other is told so."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    for claim in ("one", "two"):
        wanting(served, class_name, claim, name)
    bound = served.eventually(
        lambda: [c for c in ("one", "two") if not served.unbound([c])], "one of them is bound", timeout_s=30
    )
    (other,) = {"one", "two"} - set(bound)
    assert name in served.refusal(other)
    assert text_of(served, root, bound[0]) == "precious"


def test_what_annotation_does_not_give(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Another namespace, another export, an unknown archive or a dataSource: refused with words, nothing is touched."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    before = records(root)[name]
    other = f"{served.namespace}-other"
    control_plane.api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    stranger = ServedStorage(control_plane.api, other, daemon=service.daemon, export=service.export)
    wanting(stranger, class_name, "data", name)
    assert f"there is no archive {name!r} of namespace {other}" in stranger.refusal()
    wanting(served, served.own_class(service.second.parameters), "elsewhere", name)
    assert f"it is on export {service.export.location}" in served.refusal("elsewhere")
    wanting(served, class_name, "unknown", "archived-nothing")
    assert "there is no archive 'archived-nothing'" in served.refusal("unknown")
    wanting(served, class_name, "nonsense", "../etc")
    assert "is not the name of an archive" in served.refusal("nonsense")
    annotations = {"annotations": {RESTORE: name}}
    source = {"kind": "PersistentVolumeClaim", "name": "old"}
    served.claim(class_name, "both", metadata=annotations, dataSource=source)
    assert "both name a source for the data" in served.refusal("both")
    assert records(root)[name] == before
    assert (root / name / "file").read_text() == "precious"
    control_plane.api.delete(f"/api/v1/namespaces/{other}")


def test_a_claim_that_goes_gives_the_archive_back(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """Deleted while its restore was begun and the daemon was dead, a claim leaves the archive as it was."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    name = archive(storage, export_directory, class_name)
    wanting(storage, class_name, "new", name)
    storage.bound("new")
    # As a crash right before the volume was made leaves it.
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
    """Killed again and again while 30 claims get their archives, each has its own bytes in the end, once."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    archived = {
        number: archive(storage, export_directory, class_name, f"old-{number}", text=f"bytes {number}")
        for number in range(30)
    }
    chance = random.Random(5)
    for number, name in archived.items():
        wanting(storage, class_name, f"new-{number}", name)
        if number % 8 == 7:
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
    """Run the command for a claim of the test's namespace, or of another; its status and what it said."""
    where = claim if "/" in claim else f"{served.namespace}/{claim}"
    words = (served.export.flag, name, f"--claim={where}", *flags)
    done = command(control_plane, "restore", served.provisioner, *words)
    return done.returncode, done.stderr


def test_restored_by_command(control_plane: ControlPlane, served: ServedStorage) -> None:
    """The command makes the claim as the archived one was, tells what happens, and ends when it has the data."""
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
    """A claim that waits for another archive is left alone; where the old class is gone, another one may be named."""
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
    """Another namespace, an unknown archive, one without a record, a bound claim: refused with words."""
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
    """Without a provisioner the command says so and gives up; when one comes, the claim gets the data all the same."""
    started = start(daemon, export_directory)
    name = archive(storage, export_directory, archive_class(storage, started))
    started.stop()
    flag, claim = f"--export=nas.example:/x={export_directory}", f"--claim={storage.namespace}/new"
    done = command(control_plane, "restore", started.provisioner_name, flag, name, claim, "--timeout=3s")
    assert done.returncode == 1
    assert "no provisioner seems to run under the name" in done.stderr
    started.start()
    assert text_of(storage, export_directory, "new") == "precious"

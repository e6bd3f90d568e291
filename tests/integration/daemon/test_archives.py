"""Archives end to end: recorded, kept for the class's retention, and listed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbed import wrong_clock
from testbed.cluster import ControlPlane
from testbed.wrong_clock import WrongClock
from tests.integration.conftest import Service
from tests.support.archiving import archive, command, names, records
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
    (line,) = started.logged("archive_expired")
    assert line["claim"] == f"{storage.namespace}/data"


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

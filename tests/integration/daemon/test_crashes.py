"""kill -9 at any time: what was begun is finished by the next start, and disk and API agree in the end."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.api import Object
from tests.support.daemon import Daemon, Daemons
from tests.support.disk import disagreement, disk
from tests.support.storage import VOLUMES, Storage

CLAIMS = 200
KILLS = 4


def start(daemon: Daemons, directory: Path) -> Daemon:
    """A daemon on the directory, which need not wait for a dead predecessor's lease."""
    return daemon("--export", f"nas.example:/x={directory}", "--no-leader-election", "--workers=16")


def volumes_of(storage: Storage) -> list[Object]:
    """The volumes of the test's claims."""
    return [v for v in storage.api.list(VOLUMES) if v["spec"]["claimRef"]["namespace"] == storage.namespace]


def make_claims(storage: Storage, *classes: str) -> None:
    """CLAIMS claims, of the classes in turn."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: storage.claim(classes[n % len(classes)], f"claim-{n}"), range(CLAIMS)))


def kill_again_and_again(daemon: Daemon, *, seed: int) -> None:
    """End the daemon while it works, at moments that differ, and start it anew each time."""
    chance = random.Random(seed)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.02, 0.4))
        daemon.kill()
        daemon.start()
        daemon.wait_ready()


def agreed(storage: Storage, export: Path, *, volumes: int) -> None:
    """Wait until disk and API agree on so many volumes."""

    def same() -> bool:
        made = volumes_of(storage)
        return len(made) == volumes and disagreement(export, made) is None

    try:
        storage.eventually(same, "disk and API agree", timeout_s=90)
    except AssertionError as exc:
        made = volumes_of(storage)
        raise AssertionError(f"{exc}\n{len(made)} volumes, {made[:1]}; {disagreement(export, made)}") from exc


@pytest.mark.timeout(300)
def test_killed_in_the_middle_of_creations(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """Killed several times in the middle of 200 claims, each claim gets exactly one volume with its own directory."""
    first = start(daemon, export_directory)
    make_claims(storage, storage.storage_class(first.provisioner_name, {"onDelete": "delete"}))
    kill_again_and_again(first, seed=1)
    agreed(storage, export_directory, volumes=CLAIMS)


@pytest.mark.timeout(300)
def test_killed_in_the_middle_of_deletions(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """Killed several times in the middle of 200 deletes, every directory is deleted or archived once, as its rule says,

    and every byte of the archived ones is there.
    """
    first = start(daemon, export_directory)
    deleting = storage.storage_class(first.provisioner_name, {"onDelete": "delete"})
    archiving = storage.storage_class(first.provisioner_name, {"onDelete": "archive"})
    make_claims(storage, deleting, archiving)
    agreed(storage, export_directory, volumes=CLAIMS)
    for name in disk(export_directory).directories:
        (export_directory / name / "data").write_text(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: storage.delete_claim(f"claim-{n}"), range(CLAIMS)))
    kill_again_and_again(first, seed=2)

    agreed(storage, export_directory, volumes=0)
    archives = disk(export_directory).archives
    assert len(archives) == CLAIMS // 2
    assert all((export_directory / name / "data").read_text() in name for name in archives)


@pytest.mark.timeout(120)
def test_a_claim_deleted_while_the_daemon_is_down(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """What an attempt left whose claim is gone by the next start is taken back: the empty directory and its record."""
    first = start(daemon, export_directory)
    class_name = storage.storage_class(first.provisioner_name, {"onDelete": "delete"})
    storage.claim(class_name)
    volume = storage.bound()
    first.kill()
    # As a crash between the directory and the volume would have left it, for a claim that is gone.
    ledger = export_directory / ".provisioner"
    record = (ledger / "volumes" / volume["metadata"]["name"]).readlink()
    gone = "00000000-0000-4000-8000-000000000000"
    left = str(record).replace(storage.api.get(f"{storage.claims}/data")["metadata"]["uid"], gone)
    (ledger / "pending" / f"pvc-{gone}").symlink_to(left)
    (
        export_directory
        / volume["spec"]["nfs"]["path"].rsplit("/", 1)[1].replace(volume["metadata"]["name"], f"pvc-{gone}")
    ).mkdir()
    first.start()
    agreed(storage, export_directory, volumes=1)

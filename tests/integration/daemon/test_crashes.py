"""kill -9 at any time: the next start finishes the work, and disk and API agree in the end."""

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

CLAIMS = 100
KILLS = 4


def start(daemon: Daemons, directory: Path) -> Daemon:
    """Start a daemon on the directory, without leader election: it waits for no predecessor's lease."""
    return daemon("--export", f"nas.example:/x={directory}", "--no-leader-election", "--workers=16")


def volumes_of(storage: Storage) -> list[Object]:
    """Return the volumes of the test's claims."""
    return [v for v in storage.api.list(VOLUMES) if v["spec"]["claimRef"]["namespace"] == storage.namespace]


def make_claims(storage: Storage, *classes: str) -> None:
    """Create CLAIMS claims, of the classes in turn."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: storage.claim(classes[n % len(classes)], f"claim-{n}"), range(CLAIMS)))


def kill_again_and_again(daemon: Daemon, *, seed: int) -> None:
    """Kill the daemon at different moments of its work, and start it again each time."""
    chance = random.Random(seed)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.02, 0.4))
        daemon.kill()
        daemon.start()
        daemon.wait_ready()


def agreed(storage: Storage, export: Path, *, volumes: int) -> None:
    """Wait until disk and API agree on this number of volumes."""

    def same() -> bool:
        made = volumes_of(storage)
        return len(made) == volumes and disagreement(export, made) is None

    try:
        storage.eventually(same, "disk and API agree", timeout_s=90)
    except AssertionError as exc:
        made = volumes_of(storage)
        raise AssertionError(f"{exc}\n{len(made)} volumes, {made[:1]}; {disagreement(export, made)}") from exc


@pytest.mark.timeout(300)
def test_killed_while_it_creates_volumes(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When the daemon is killed repeatedly, each of many claims gets exactly one volume with its own directory."""
    first = start(daemon, export_directory)
    make_claims(storage, storage.storage_class(first.provisioner_name, {"onDelete": "delete"}))
    kill_again_and_again(first, seed=1)
    agreed(storage, export_directory, volumes=CLAIMS)


@pytest.mark.timeout(300)
def test_killed_while_it_reclaims_volumes(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When the daemon is killed repeatedly, each of many directories is deleted or archived once, without data loss."""
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

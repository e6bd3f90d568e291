"""The daemon's purge: it reports its progress, survives kill -9, and retries what cannot be removed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import vm
from testbed.api import Object
from testbed.vm import KernelClient
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.daemon import Daemon, Daemons
from tests.support.direct_export import DirectExport
from tests.support.disk import disk
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(240)

ENTRIES = 40_000
A_DIRECTORY = 300


def fill(directory: Path) -> None:
    """Create ENTRIES symlinks in a volume."""
    for number in range(ENTRIES):
        below = directory / str(number // A_DIRECTORY)
        if number % A_DIRECTORY == 0:
            below.mkdir()
        os.symlink("nowhere", below / str(number))


def metric(daemon: Daemon, name: str, export: DirectExport) -> float:
    """Return a metric's value for an export, 0 without a sample."""
    start = f'{name}{{export="{export.location} port {export.server.port}"}} '
    lines = (line for line in daemon.http("/metrics").splitlines() if line.startswith(start))
    return float(next(lines, f"{start}0").removeprefix(start))


@pytest.fixture
def alone(storage: Storage, daemon: Daemons) -> DirectStorage:
    """Storage with a daemon of the test's own, which the test can kill."""
    return DirectStorage(storage.api, storage.namespace, daemon("--no-leader-election"))


def released(direct: DirectStorage, volume: Object) -> None:
    """Delete a volume's claim, and wait until the volume is gone."""
    direct.delete_claim(volume["spec"]["claimRef"]["name"])
    direct.volume_gone(volume["metadata"]["name"])


def test_one_large_tree(alone: DirectStorage, serve: MakeServer) -> None:
    """While a large tree is removed the metrics grow; after a crash in the middle the next daemon removes the rest."""
    export = DirectExport(serve("/large"), "/large")
    alone.claim(alone.class_on(export))
    volume = alone.bound()
    fill(export.directory(volume))
    daemon = alone.daemon
    released(alone, volume)
    removed = "nfs_provisioner_purged_entries_total"
    first = alone.eventually(lambda: metric(daemon, removed, export), "some entries are removed")
    assert first < ENTRIES
    assert metric(daemon, "nfs_provisioner_trash_entries", export) == 1.0
    second = alone.eventually(lambda: max(0.0, metric(daemon, removed, export) - first), "more entries are removed")
    daemon.kill()
    assert second > 0
    assert len(disk(export.root).trash) == 1

    alone.claim(alone.class_on(export), "next")  # a class that names the export
    daemon.start()
    daemon.wait_ready()
    alone.purged(export)
    logged = alone.eventually(lambda: daemon.logged("purged"), "the log reports the removal")
    assert 0 < logged[-1]["entries"] < ENTRIES
    oldest_s = "nfs_provisioner_trash_oldest_seconds"
    alone.eventually(lambda: metric(daemon, oldest_s, export) == 0.0, "the trash has no age")
    alone.remove_classes()


@pytest.fixture
def immutable() -> Iterator[list[Path]]:
    """Files that become mutable again when the test ends."""
    files: list[Path] = []
    yield files
    for file in files:
        subprocess.run(["chattr", "-i", file], capture_output=True, check=False)


def test_a_file_that_cannot_be_removed(direct: DirectStorage, serve: MakeServer, immutable: list[Path]) -> None:
    """A directory that cannot be removed is logged once and counted, delays no other, and is removed when possible."""
    export = DirectExport(serve("/stuck"), "/stuck")
    name = direct.class_on(export)
    for claim in ("stuck", "other"):
        direct.claim(name, claim)
    stuck, other = direct.bound("stuck"), direct.bound("other")
    file = export.directory(stuck) / "file"
    file.touch()
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("this filesystem has no immutable files")
    released(direct, stuck)
    logged = direct.eventually(lambda: direct.daemon.logged("not_purged"), "the log reports the refusal")
    (trash,) = (export.root / ".provisioner/trash").iterdir()  # under the name that the removal gave it
    immutable.append(trash / "file")
    assert "permission" in logged[0]["error"]
    assert metric(direct.daemon, "nfs_provisioner_trash_refused", export) == 1.0
    released(direct, other)
    direct.eventually(lambda: disk(export.root).trash == {trash.name}, "the other one is removed")
    subprocess.run(["chattr", "-i", trash / "file"], check=True)
    direct.eventually(lambda: not disk(export.root).trash, "it is removed when possible", timeout_s=60)
    assert len(direct.daemon.logged("not_purged")) == 1
    assert metric(direct.daemon, "nfs_provisioner_trash_refused", export) == 0.0


TENANT = """
mount -t nfs -o "$OPTIONS" "$HOST:$VOLUME" /mnt
mkdir /mnt/deep
cd /mnt/deep
exec 3> /mnt/held
echo first >&3
rm /mnt/held            # the client keeps it as .nfs... for as long as it is open
exec 4> /mnt/deep/open
touch /mnt/ready
number=0
while [ $number -lt 3000 ] && touch "more-$number" && echo more >&4; do
  number=$((number + 1))
  sleep 0.05
done
echo "wrote $number"
[ $number -lt 3000 ]
"""


@pytest.mark.parametrize(
    ("version", "options"),
    [("4.1", []), pytest.param("3", ["nolock", "proto=tcp"], marks=pytest.mark.thorough)],
    ids=["4.1", "3"],
)
def test_a_client_that_still_has_files_open(
    direct: DirectStorage, serve: MakeServer, version: str, options: list[str]
) -> None:
    """A volume in which a Linux client works and holds files open, deleted ones too, is reclaimed and purged."""
    reason = vm.missing()
    if reason:
        pytest.skip(f"this machine cannot run the kernel's NFS client: {reason}")
    path = f"/open-{version}"
    # mount.nfs refuses `mountport` with NFSv4, so that server has no MOUNT.
    export = DirectExport(serve(path, versions=(3, 4) if version == "3" else (4,)), path, version)
    direct.claim(direct.class_on(export, options=options))
    volume = direct.bound()
    environment = {"OPTIONS": ",".join(volume["spec"]["mountOptions"]), "VOLUME": volume["spec"]["nfs"]["path"]}
    with ThreadPoolExecutor(1) as pool:
        tenant = pool.submit(lambda: KernelClient().run(TENANT, environment))
        direct.eventually(lambda: (export.directory(volume) / "ready").exists(), "the tenant works", timeout_s=120)
        released(direct, volume)
        direct.eventually(lambda: not disk(export.root).trash, "the trash is purged", timeout_s=60)
        ran = tenant.result(timeout=120)
    assert ran.status == 0, ran.output
    assert not disk(export.root).directories

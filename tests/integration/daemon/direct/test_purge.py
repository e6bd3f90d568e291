"""The purge by the daemon: it shows how it gets on, survives kill -9, and is patient with what cannot go."""

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
from tests.integration.daemon.direct.exported import DirectExport
from tests.support.daemon import Daemon, Daemons
from tests.support.disk import disk
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(240)

ENTRIES = 30_000
A_DIRECTORY = 300


def fill(directory: Path) -> None:
    """Put ENTRIES links into a volume."""
    for number in range(ENTRIES):
        below = directory / str(number // A_DIRECTORY)
        if number % A_DIRECTORY == 0:
            below.mkdir()
        os.symlink("nowhere", below / str(number))


def metric(daemon: Daemon, name: str, export: DirectExport) -> float:
    """A metric's value for an export; 0 where there is none."""
    start = f'{name}{{export="{export.location} port {export.server.port}"}} '
    lines = (line for line in daemon.http("/metrics").splitlines() if line.startswith(start))
    return float(next(lines, f"{start}0").removeprefix(start))


@pytest.fixture
def alone(storage: Storage, daemon: Daemons) -> DirectStorage:
    """Storage with a daemon of the test's own, that may be killed."""
    return DirectStorage(storage.api, storage.namespace, daemon("--no-leader-election"))


def released(direct: DirectStorage, volume: Object) -> None:
    """Delete a volume's claim, and wait until the volume is gone."""
    direct.delete_claim(volume["spec"]["claimRef"]["name"])
    direct.volume_gone(volume["metadata"]["name"])


def test_one_large_tree(alone: DirectStorage, serve: MakeServer) -> None:
    """While one large tree is removed the metrics grow; killed in the middle of it, the next start removes the rest."""
    export = DirectExport(serve("/large"), "/large")
    alone.claim(alone.class_on(export))
    volume = alone.bound()
    fill(export.directory(volume))
    daemon = alone.daemon
    released(alone, volume)
    removed = "nfs_provisioner_purged_entries_total"
    first = alone.eventually(lambda: metric(daemon, removed, export), "some entries went")
    assert first < ENTRIES
    assert metric(daemon, "nfs_provisioner_trash_entries", export) == 1.0
    second = alone.eventually(lambda: max(0.0, metric(daemon, removed, export) - first), "some more went")
    daemon.kill()
    assert second > 0
    assert len(disk(export.root).trash) == 1

    alone.claim(alone.class_on(export), "next")  # a class that names the export
    daemon.start()
    daemon.wait_ready()
    alone.purged(export)
    told = alone.eventually(lambda: daemon.logged("purged"), "the removal is told of")
    assert 0 < told[-1]["entries"] < ENTRIES
    oldest_s = "nfs_provisioner_trash_oldest_seconds"
    alone.eventually(lambda: metric(daemon, oldest_s, export) == 0.0, "the trash has no age any more")
    alone.remove_classes()


@pytest.fixture
def immutable() -> Iterator[list[Path]]:
    """Files that are made mutable again at the end."""
    files: list[Path] = []
    yield files
    for file in files:
        subprocess.run(["chattr", "-i", file], capture_output=True, check=False)


def test_what_cannot_go(direct: DirectStorage, serve: MakeServer, immutable: list[Path]) -> None:
    """What cannot be removed is told of once and counted, does not keep the rest, and goes when it can."""
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
    told = direct.eventually(lambda: direct.daemon.logged("not_purged"), "the refusal is told of")
    (trash,) = (export.root / ".provisioner/trash").iterdir()  # by now under the name that a removal has
    immutable.append(trash / "file")
    assert "permission" in told[0]["error"]
    assert metric(direct.daemon, "nfs_provisioner_trash_refused", export) == 1.0
    released(direct, other)
    direct.eventually(lambda: disk(export.root).trash == {trash.name}, "all else has gone")
    subprocess.run(["chattr", "-i", trash / "file"], check=True)
    direct.eventually(lambda: not disk(export.root).trash, "it goes when it can", timeout_s=60)
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


@pytest.mark.parametrize(("version", "options"), [("4.1", []), ("3", ["nolock", "proto=tcp"])])
def test_a_pod_that_still_has_it_open(
    direct: DirectStorage, serve: MakeServer, version: str, options: list[str]
) -> None:
    """A volume in which a Linux client works and holds files open, deleted ones too, is reclaimed and removed whole."""
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

"""A tenant swaps directories for symlinks while volumes are created, archived and deleted."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from provisioner.core.locations import RelPath, location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import ExportError, Ownership
from testbed.ganesha import Export
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import HOST, TENANT_TIMEOUT_S, DirectExport
from tests.support.disk import disk, listing

pytestmark = pytest.mark.timeout(240)

VOLUMES_A_ROUND = 24
MOST_VOLUMES = 40 * VOLUMES_A_ROUND
ENOUGH_SWAPS = 150
RULES = ("delete", "archive")
SWEEP_S = 60.0
SWAPPED = ("shared", "team")
"""Parents of volumes' directories, which their tenant can rename."""


class Swapper(threading.Thread):
    """A tenant who makes each path a directory, then nothing, then a symlink to the outside, in a loop."""

    def __init__(self, export: DirectExport, paths: list[RelPath], outside: list[str]) -> None:
        super().__init__()
        self.swaps = 0
        self.ending = threading.Event()
        self._export = export
        self._paths = paths
        self._outside = outside

    def run(self) -> None:
        """Swap until `ending` is set."""
        asyncio.run(self._swap())

    async def _swap(self) -> None:
        pool = ConnectionPool(Credentials(), timeout_s=TENANT_TIMEOUT_S)
        tree = DirectTree(location(HOST, self._export.path), pool, version="4.1", port=self._export.server.port)
        try:
            while not self.ending.is_set():
                for path in self._paths:
                    await self._swap_one(tree, path)
        finally:
            await tree.close()

    async def _swap_one(self, tree: DirectTree, path: RelPath) -> None:
        """Swap one path; each step can fail, as the provisioner creates parents at the same time."""
        target = self._outside[self.swaps % len(self._outside)]
        with contextlib.suppress(ExportError):
            await tree.rename(path, (f"away-{self.swaps}-{path[-1]}",))
        with contextlib.suppress(ExportError):
            await tree.make_symlink(path, target)
            self.swaps += 1
        await asyncio.sleep(0.005)
        with contextlib.suppress(ExportError):
            await tree.remove_symlink(path)
        if len(path) == 1:
            with contextlib.suppress(ExportError):
                await tree.make_directory(path, Ownership(mode=0o777))
            await asyncio.sleep(0.005)


@contextmanager
def swapping(export: DirectExport, paths: list[RelPath], outside: list[str]) -> Iterator[Swapper]:
    """Run a swapper while the context is open."""
    swapper = Swapper(export, paths, outside)
    swapper.start()
    try:
        yield swapper
    finally:
        swapper.ending.set()
        swapper.join()


def precious(place: pathlib.Path) -> pathlib.Path:
    """Fill a directory with data under names that volumes use too."""
    for parent in ("victim", *SWAPPED):
        (place / parent / "inside").mkdir(parents=True)
        (place / parent / "file").write_text("kept")
    for number in range(VOLUMES_A_ROUND):
        (place / f"old-{number}").mkdir()
    return place


@pytest.fixture
def neighbours(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory beside the export on the same disk, which is exported to others."""
    place = tmp_path / "neighbours"
    place.mkdir()
    return precious(place)


@pytest.mark.parametrize("version", [pytest.param("3", marks=pytest.mark.thorough), "4.2"])
def test_no_call_lands_outside(
    direct: DirectStorage, serve: MakeServer, neighbours: pathlib.Path, version: str
) -> None:
    """While a tenant swaps directories for symlinks, no call reaches outside, and all volumes are reclaimed."""
    server = serve(f"/swapped-{version}", start=False)
    server.exports = (*server.exports, Export(neighbours, f"/neighbours-{version}"))
    within = precious(server.exports[0].directory / "within")
    server.start()
    export = DirectExport(server, f"/swapped-{version}", version)
    classes = classes_below_parents(direct, export)
    old = claim_round(direct, classes, "old")
    for name in old:
        direct.bound(name)
    kept = [listing(neighbours), listing(within)]
    outside = [str(neighbours), f"../neighbours-{version}", str(within), "within", "/", ".provisioner/volumes"]
    paths: list[RelPath] = [path for name in old for path in ((SWAPPED[0],), (SWAPPED[0], name), (SWAPPED[1],))]
    with swapping(export, paths, outside) as swapper:
        new = claims_among_swaps(direct, classes, old, swapper)
    print(f"NFS {version}: {swapper.swaps} swaps, {len(old) + len(new)} volumes")
    assert [listing(neighbours), listing(within)] == kept
    volumes = [direct.bound(name, timeout_s=60) for name in new]
    # Each directory exists somewhere on the export: the tenant can have moved it.
    assert not [name for name in new if not list(export.root.glob(f"*/{name}"))]
    for name in new:
        direct.delete_claim(name)
    for volume in volumes:
        direct.volume_gone(volume["metadata"]["name"])
        assert not export.directory(volume).exists()
    direct.purged(export)
    direct.eventually(lambda: not disk(export.root).records, "no record is left", timeout_s=SWEEP_S + 15)
    assert [listing(neighbours), listing(within)] == kept
    left = disk(export.root).directories
    assert {name for name in left if not name.startswith("away-")} <= {"within", *SWAPPED}


def classes_below_parents(direct: DirectStorage, export: DirectExport) -> list[str]:
    """Create the parents, and a class per parent and rule."""

    async def make_parents(tree: DirectTree) -> None:
        for parent in SWAPPED:
            await tree.make_directory((parent,), Ownership(mode=0o777))

    export.tenant(make_parents)
    patterns = [{"pathPattern": f"{parent}/${{.PVC.name}}"} for parent in SWAPPED]
    return [direct.class_on(export, rule, parameters=pattern) for pattern in patterns for rule in RULES]


def claim_round(direct: DirectStorage, classes: list[str], prefix: str) -> list[str]:
    """Create some claims of each class, and return their names."""
    names = [f"{prefix}-{number}" for number in range(VOLUMES_A_ROUND)]
    for number, name in enumerate(names):
        direct.claim(classes[number % len(classes)], name)
    return names


def claims_among_swaps(direct: DirectStorage, classes: list[str], old: list[str], swapper: Swapper) -> list[str]:
    """Delete the old claims and create new ones until there were enough swaps and a symlink was met.

    Return the names of the new claims.
    """
    for name in old:
        direct.delete_claim(name)
    new: list[str] = []
    while (swapper.swaps < ENOUGH_SWAPS or not met_symlinks(direct)) and len(new) < MOST_VOLUMES:
        new += claim_round(direct, classes, f"new-{len(new)}")
    assert swapper.swaps >= ENOUGH_SWAPS
    assert met_symlinks(direct)
    return new


def met_symlinks(direct: DirectStorage) -> bool:
    """Whether a warning about a claim of the namespace mentions a symbolic link."""
    events = direct.api.list(f"/api/v1/namespaces/{direct.namespace}/events")
    return any("symbolic link" in event["message"] for event in events if event["reason"] == "ProvisioningFailed")

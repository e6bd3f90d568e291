"""Classes that name the same export with different mount options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from provisioner.core.locations import Location, location
from provisioner.core.mount_options import MountOptions
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Cause, ExportError
from testbed import ganesha
from testbed.ganesha import Export as Exported
from testbed.ganesha import Ganesha

pytestmark = pytest.mark.timeout(60)

WHERE = location("127.0.0.1", "/ways")


@pytest.fixture
def modern(tmp_path: Path) -> Iterator[Ganesha]:
    """A server with NFS 4 but not 3; skips the test if no server can run."""
    reason = ganesha.missing(versions=(4,)) or ganesha.vfs_problem(tmp_path)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    exported = tmp_path / "ways"
    exported.mkdir()
    with Ganesha([Exported(exported, "/ways")], versions=(4,)) as running:
        yield running


@pytest.fixture
def served(pool: ConnectionPool) -> ExportRegistry:
    """All exports, none mounted."""

    def reach(where: Location, options: MountOptions) -> tuple[Export, SetRoutes]:
        tree = DirectTree(where, pool, version=options.version, port=options.port, mount_port=options.mount_port)
        return Export(where, tree), tree.set_routes

    return ExportRegistry({}, None, reach)


@pytest.mark.parametrize("order", [("3", "4.1"), ("4.1", "3"), ("3", "4.1", "3"), ("3", "4.1", "3", "4.1", "3")])
async def test_one_class_is_right(served: ExportRegistry, modern: Ganesha, order: tuple[str, ...]) -> None:
    """An export opens with the options of the right class, however many wrong classes name it, in any order."""
    for version in order:
        export = served.get(WHERE, MountOptions(version=version, port=modern.port))
    for _ in range(2):
        served.get(WHERE, MountOptions(version="3", port=modern.port))
        with suppress(ExportError):
            await export.open(create=True)
    assert export.id
    assert await export.probe()


async def test_no_class_is_right(served: ExportRegistry, modern: Ganesha) -> None:
    """If all classes are wrong, each attempt fails, until a right class is added."""
    for mount_port in (20048, 20049):
        export = served.get(WHERE, MountOptions(version="3", port=modern.port, mount_port=mount_port))
    for _ in range(3):
        with pytest.raises(ExportError) as raised:
            await export.open(create=True)
        assert raised.value.cause is Cause.VERSION
    served.get(WHERE, MountOptions(version="4.2", port=modern.port))
    await export.open(create=True)
    assert export.id
    served.get(WHERE, MountOptions(version="3", port=modern.port))
    assert await export.probe()

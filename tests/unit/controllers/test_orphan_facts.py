"""controllers.orphan_facts: the command finds what the daemon finds, including odd paths."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import structs

from provisioner.controllers.orphan_facts import Known, find_unknown_directories, gather
from provisioner.core import orphans
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import Volume
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support import samples
from tests.support.fakes.tree import MemoryTree

NAS = Location("nas", "/exports")
NOW = datetime(2026, 5, 1, tzinfo=UTC)
US = "memory"


async def left_over(tree: MemoryTree) -> Export:
    """An export with the records of three deleted volumes, each with data."""
    export = Export(NAS, tree)
    await export.open()
    for name in ("a", "b", "c"):
        record = samples.record(name, claim_uid=name)
        await export.provision(f"pvc-{name}", structs.replace(record, cluster=US), Ownership())
        if name != "c":
            await export.settle(f"pvc-{name}")
        tree.write_file((name, "file"))
    return export


def unnamed(where: Location, _options: MountOptions) -> tuple[Export, SetRoutes]:
    raise ExportError(Cause.UNREACHABLE, f"no class names {where}")


def known(**volumes: Volume) -> Known:
    return Known(cluster=US, volumes=volumes, waiting=frozenset(), holder=lambda location, path: None)


async def found(export: Export, cluster: Known) -> list[tuple[str, str]]:
    unknown_directories = await find_unknown_directories(
        export, cluster, ExportRegistry({NAS: export}, None, unnamed), limit=10
    )
    evidence = await gather(export, cluster, now=NOW, unknown_directories=unknown_directories)
    return [(each.kind, each.directory) for each in orphans.find(evidence)]


async def replace_by_symlink(tree: MemoryTree, name: str) -> None:
    await tree.remove_tree((name,))
    tree.plant_symlink((name,), "/etc")


@pytest.mark.parametrize("name", ["a", "c"], ids=["settled", "pending"])
async def test_a_symlink_in_the_place_of_a_directory(name: str) -> None:
    """An orphan whose directory was replaced by a symlink counts, and hides none of the others."""
    tree = MemoryTree()
    export = await left_over(tree)
    await replace_by_symlink(tree, name)
    assert await found(export, known()) == [("attempt-left", "c"), ("volume-gone", "a"), ("volume-gone", "b")]


async def test_a_directory_without_permission() -> None:
    """A directory without permission counts as existing."""
    tree = MemoryTree()
    export = await left_over(tree)

    async def denied(call: str, path: tuple[str, ...]) -> None:
        if call == "is_empty" and path == ("b",):
            raise ExportError(Cause.DENIED)

    tree.before = denied
    assert ("volume-gone", "b") in await found(export, known())


async def test_an_export_that_does_not_answer() -> None:
    """An error of the whole export is raised, and no finding about one directory."""
    tree = MemoryTree()
    export = await left_over(tree)

    async def hangs(call: str, _path: tuple[str, ...]) -> None:
        if call == "is_empty":
            raise ExportError(Cause.UNREACHABLE)

    tree.before = hangs
    with pytest.raises(ExportError):
        await gather(export, known(), now=NOW, unknown_directories=())


async def test_volumes_that_exist() -> None:
    """Records with a volume, or with nothing at their path, are no orphans; unknown directories are."""
    tree = MemoryTree()
    export = await left_over(tree)
    await tree.remove_tree(("b",))
    await tree.remove_tree(("c",))
    await tree.make_directory(("foreign",), Ownership())
    tree.write_file(("foreign", "file"))
    cluster = Known(
        cluster=US, volumes={"pvc-a": samples.volume(name="pvc-a")}, waiting=frozenset(), holder=lambda *_: None
    )
    assert await found(export, cluster) == [("unknown", "foreign")]


async def test_the_advice_is_a_command() -> None:
    """The advice for an orphan is the complete command with the volume's name."""
    export = await left_over(MemoryTree())
    evidence = await gather(export, known(), now=NOW, unknown_directories=())
    advice = {each.volume: each.advice for each in orphans.find(evidence)}
    assert "nfs-provisioner recover --volume pvc-a --apply" in advice["pvc-a"]
    assert "nfs-provisioner recover --volume pvc-c --apply" in advice["pvc-c"]

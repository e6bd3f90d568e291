"""commands.recover_ledger over trees and a cluster in memory: it rewrites a lost ledger from the volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import pytest

from provisioner.commands.recover_ledger import Present, Rewriting
from provisioner.core import names
from provisioner.core.ledgers import Installation, Sheet, Skip
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.cluster import ApiUnavailable
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support import samples
from tests.support.fakes import tree as fake_tree
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree
from tests.support.ledger_faults import FAULTS, NAS, Fault, opened

HERE = "here"
MADE = {"pvc-1": "a", "pvc-2": "nested/b"}


def unnamed(where: Location, _options: MountOptions) -> NoReturn:
    raise ExportError(Cause.UNREACHABLE, f"no class names {where}")


def body(volume: str, directory: str, export_id: str) -> Mapping[str, object]:
    """A Bound volume of this provisioner."""
    return {
        "metadata": {
            "name": volume,
            "annotations": {
                names.PROVISIONED_BY: samples.US,
                names.ON_DELETE: "archive",
                names.DIRECTORY: directory,
                names.EXPORT_ID: export_id,
            },
        },
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteMany"],
            "nfs": {"server": NAS.server, "path": NAS.below(tuple(directory.split("/")))},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "nfs",
            "claimRef": {"namespace": "shop", "name": volume, "uid": volume.removeprefix("pvc-")},
        },
        "status": {"phase": "Bound"},
    }


async def in_use() -> tuple[MemoryTree, MemoryCluster, str]:
    """An export with two Bound volumes and its id; the records agree with the volumes."""
    tree, cluster = MemoryTree(), MemoryCluster(identity=HERE)
    export = await opened(tree)
    for volume, directory in MADE.items():
        uid = volume.removeprefix("pvc-")
        await export.provision(volume, samples.record(directory, claim_uid=uid), Ownership())
        tree.write_file((*directory.split("/"), "data"))
        made = await cluster.create_volume(body(volume, directory, export.id))
        await export.settle(volume, made.metadata.uid)
    return tree, cluster, export.id


async def looked(tree: MemoryTree, cluster: MemoryCluster) -> tuple[Rewriting, Sequence[Sheet]]:
    """One run of the command, with the exports open."""
    export = Export(NAS, tree)
    bare = False
    try:
        await export.open(create=False)
    except ExportError as exc:
        bare = exc.cause is Cause.NO_LEDGER
        if not bare:
            raise
    claims = {
        f"shop/{volume}": samples.claim(
            name=volume, uid=volume.removeprefix("pvc-"), spec=samples.claim_spec(volume_name=volume)
        )
        for volume in MADE
    }
    present = Present(
        own=Installation(provisioner=samples.US, cluster=HERE),
        volumes=cluster.volumes(),
        claims=claims,
        classes={"nfs": samples.storage_class({"archiveRetention": "30d"})},
    )
    exports, others = ([], [export]) if bare else ([export], [])
    rewriter = Rewriting(exports, others, ExportRegistry({NAS: export}, NAS, unnamed), cluster, present)
    return rewriter, await rewriter.look()


async def rewrite(tree: MemoryTree, cluster: MemoryCluster) -> Mapping[str, str]:
    """Run the whole command; return what failed."""
    rewriter, _ = await looked(tree, cluster)
    return await rewriter.apply()


async def is_whole(tree: MemoryTree, cluster: MemoryCluster, id: str) -> None:
    """Assert that each volume has the record that matches it."""
    export = Export(NAS, tree)
    await export.open(carried={id})
    assert export.id == id
    for volume in cluster.volumes():
        record = export.records[volume.name]
        assert (record.directory, record.cluster, record.volume_uid, record.on_delete, record.retention) == (
            MADE[volume.name],
            HERE,
            volume.metadata.uid,
            "archive",
            "30d",
        )
        assert (record.claim, record.capacity, record.modes) == (volume.name, "2Gi", "RWX")


def lose(tree: MemoryTree) -> None:
    """Remove the ledger."""
    del tree.root.entries[".provisioner"]


async def test_a_ledger_is_rewritten() -> None:
    """Each Bound volume whose directory exists gets its record back, and a second run has nothing to do."""
    tree, cluster, id = await in_use()
    lose(tree)
    _, (sheet,) = await looked(tree, cluster)
    assert (sheet.place.id, sheet.id, sheet.trouble, sorted(sheet.records)) == ("", id, "", sorted(MADE))
    assert await rewrite(tree, cluster) == {}
    await is_whole(tree, cluster, id)
    rewriter, (sheet,) = await looked(tree, cluster)
    assert (sheet.agree, list(sheet.steps), sheet.has_work) == (2, [], False)
    assert await rewriter.apply() == {}


async def test_a_look_changes_nothing() -> None:
    """A dry run writes neither to the export nor to the cluster."""
    tree, cluster, _ = await in_use()
    lose(tree)
    calls: set[str] = set()

    async def note(call: str, _about: object) -> None:
        calls.add(call)

    tree.before = cluster.before = note
    await looked(tree, cluster)
    assert calls <= {"root_id", "read_symlink", "read_symlinks", "list", "is_empty"}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_cut_off_anywhere(fault: Fault) -> None:
    """After a crash or a lost answer at any call to the export, the next run completes the work."""
    for number in range(1, 1000):
        tree, cluster, id = await in_use()
        lose(tree)
        if not await fault.at(number, tree, rewrite(tree, cluster)):
            break
        assert await rewrite(tree, cluster) == {}
        await is_whole(tree, cluster, id)
    assert number > 20


async def test_a_missing_directory() -> None:
    """A volume without its directory gets no record; the others do."""
    tree, cluster, id = await in_use()
    lose(tree)
    await tree.remove_tree(("a",))
    _, (sheet,) = await looked(tree, cluster)
    actions = {step.found.volume.name: step.action for step in sheet.steps}
    assert isinstance(actions["pvc-1"], Skip)
    assert "directory does not exist" in actions["pvc-1"].why
    assert await rewrite(tree, cluster) == {}
    assert set((await opened(tree)).records) == {"pvc-2"}
    assert (await opened(tree)).id == id


async def test_another_export_in_its_place() -> None:
    """On an empty export in the place of the right one, nothing is written."""
    tree, cluster, _ = await in_use()
    tree.root.entries.clear()
    rewriter, (sheet,) = await looked(tree, cluster)
    assert "right export" in sheet.trouble
    assert await rewriter.apply() == {}
    assert not tree.root.entries


async def test_a_volume_that_changes_during_the_command() -> None:
    """A volume that changed or disappeared after the look gets no record, and is reported."""
    tree, cluster, _ = await in_use()
    lose(tree)
    rewriter, _ = await looked(tree, cluster)
    cluster.change("volumes", "pvc-1", lambda stored: stored["status"].update(phase="Released"))
    cluster.change("volumes", "pvc-2", lambda stored: stored["metadata"].update(finalizers=[]))
    cluster.delete("volumes", "pvc-2")
    failed = await rewriter.apply()
    assert sorted(failed) == sorted(MADE)
    assert all("changed during the command" in why for why in failed.values())
    assert not (await opened(tree)).records


async def test_failures_are_reported() -> None:
    """An API server or an export that does not respond is reported per volume, and nothing else is written."""
    tree, cluster, id = await in_use()
    lose(tree)
    rewriter, _ = await looked(tree, cluster)

    async def silent(_call: str, _about: str) -> None:
        raise ApiUnavailable("lost")

    async def hangs(_call: str, _path: tuple[str, ...]) -> None:
        raise ExportError(Cause.UNREACHABLE)

    cluster.before = silent
    assert set((await rewriter.apply()).values()) == {"lost"}
    tree, cluster, id = await in_use()
    lose(tree)
    rewriter, _ = await looked(tree, cluster)
    tree.before = hangs
    assert dict(await rewriter.apply()) == dict.fromkeys(MADE, "the export is not responding")
    tree.before = fake_tree.no_fault
    assert await rewriter.apply() == {}
    await is_whole(tree, cluster, id)


async def test_an_export_that_does_not_answer() -> None:
    """An export that stops responding during the look is left out, and reported."""
    tree, cluster, _ = await in_use()
    lose(tree)
    rewriter, _ = await looked(tree, cluster)

    async def hangs(_call: str, _path: tuple[str, ...]) -> None:
        raise ExportError(Cause.UNREACHABLE)

    tree.before = hangs
    export = Export(NAS, tree)
    present = Present(
        own=Installation(provisioner=samples.US, cluster=HERE), volumes=cluster.volumes(), claims={}, classes={}
    )
    rewriter = Rewriting([], [export], ExportRegistry({NAS: export}, NAS, unnamed), cluster, present)
    assert list(await rewriter.look()) == []
    assert await rewriter.apply() == {}


async def test_an_unreadable_directory() -> None:
    """A directory that the provisioner cannot read is reported, and gets no record."""
    tree, cluster, _ = await in_use()
    lose(tree)

    async def closed(call: str, path: tuple[str, ...]) -> None:
        if call == "is_empty" and path == ("a",):
            raise ExportError(Cause.DENIED)

    tree.before = closed
    _, (sheet,) = await looked(tree, cluster)
    reasons = {step.found.volume.name: getattr(step.action, "why", "") for step in sheet.steps}
    assert "denies permission" in reasons["pvc-1"]

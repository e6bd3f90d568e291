"""commands.recover for volumes that exist while their data is in an archive or the trash, after a restore of etcd."""

from __future__ import annotations

import itertools

import pytest
from msgspec import structs

from provisioner.core import names
from provisioner.core.recovery import Bring, Skip
from provisioner.ports.tree import Ownership
from tests.support import samples
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import Directory, File, MemoryTree
from tests.support.ledger_faults import FAULTS, Fault, opened
from tests.unit.commands.test_recover import AT, NEW, interrupted, looked, recover

VOLUME, DIRECTORY = "pvc-1", "team/db"
ENTRY = VOLUME
TRASH = (".provisioner", "trash")
RULES = ("delete", "archive")


async def gone_back(rule: str) -> tuple[MemoryTree, MemoryCluster]:
    """A Bound claim and volume whose directory was reclaimed by its rule."""
    tree, cluster = MemoryTree(), MemoryCluster(identity=NEW)
    export = await opened(tree)
    claim = cluster.create("claims", _claim())
    uid = claim["metadata"]["uid"]
    record = structs.replace(samples.record(DIRECTORY, claim_uid=uid), cluster=NEW, namespace="default")
    await export.provision(VOLUME, record, Ownership())
    volume = cluster.create("volumes", _volume(uid, export.id))
    await export.settle(VOLUME, volume["metadata"]["uid"])
    tree.write_file((*DIRECTORY.split("/"), "data"), b"precious")
    await (export.move_to_trash(VOLUME) if rule == "delete" else export.archive(VOLUME, AT))
    await export.forget(VOLUME)
    return tree, cluster


def _claim() -> dict[str, object]:
    status = {"phase": "Bound"}
    return {"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": VOLUME}, "status": status}


def _volume(uid: str, export: str) -> dict[str, object]:
    annotations = {names.PROVISIONED_BY: samples.US, names.ON_DELETE: "delete", names.EXPORT_ID: export}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "nfs": {"server": "nas", "path": f"/exports/{DIRECTORY}"},
        "claimRef": {"namespace": "default", "name": "data", "uid": uid},
        "persistentVolumeReclaimPolicy": "Delete",
    }
    return {"metadata": {"name": VOLUME, "annotations": annotations}, "spec": spec, "status": {"phase": "Bound"}}


async def is_back(tree: MemoryTree, cluster: MemoryCluster) -> None:
    """Assert that the data is back in place, and that the ledger has the volume, settled, and no archive."""
    assert tree.look((*DIRECTORY.split("/"), "data")) == File(b"precious")
    export, volume = await opened(tree), cluster.volume(VOLUME)
    assert volume is not None
    record = export.records[VOLUME]
    assert (record.directory, record.volume_uid) == (DIRECTORY, volume.metadata.uid)
    assert record.claim_uid == cluster.claims()[0].uid
    assert not export.pending
    assert not export.archived
    assert await export.trash.names() == await export.archives() == []


@pytest.mark.parametrize("rule", RULES)
async def test_data_is_brought_back(rule: str) -> None:
    """A look changes nothing; a look without a name counts the volume; --apply brings the data back once."""
    tree, cluster = await gone_back(rule)
    _, prospect = await looked(tree, cluster)
    assert (prospect.away, prospect.steps) == ([VOLUME], [])
    _, prospect = await looked(tree, cluster, named=[VOLUME])
    assert [type(step.action) for step in prospect.steps] == [Bring]
    assert prospect.unknown == []
    for _ in range(2):
        assert await recover(tree, cluster, named=[VOLUME]) == {}
        await is_back(tree, cluster)
    _, prospect = await looked(tree, cluster)
    assert prospect.away == []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_cut_off_anywhere(rule: str, fault: Fault) -> None:
    """After a crash or a lost answer at any call, the next attempt completes the work."""
    for number in itertools.count(1):
        tree, cluster = await gone_back(rule)
        if not await interrupted(fault, number, tree, cluster, named=[VOLUME]):
            break
        assert await recover(tree, cluster, named=[VOLUME]) == {}
        await is_back(tree, cluster)
    assert number > 10


@pytest.mark.parametrize("rule", RULES)
async def test_an_empty_directory_gives_way(rule: str) -> None:
    """An empty directory in the volume's place is replaced; a directory with content is not, and is reported."""
    tree, cluster = await gone_back(rule)
    await tree.make_directory(tuple(DIRECTORY.split("/")), Ownership(mode=0o755))
    assert await recover(tree, cluster, named=[VOLUME]) == {}
    await is_back(tree, cluster)

    tree, cluster = await gone_back(rule)
    await tree.make_directory(tuple(DIRECTORY.split("/")), Ownership(mode=0o755))
    tree.write_file((*DIRECTORY.split("/"), "new"), b"new")
    _, prospect = await looked(tree, cluster, named=[VOLUME])
    (action,) = [step.action for step in prospect.steps]
    assert isinstance(action, Skip)
    assert "is not empty" in action.why


@pytest.mark.parametrize("rule", RULES)
async def test_a_pod_writes_during_the_command(rule: str) -> None:
    """Data that a pod writes between look and rename is not replaced; the old data stays where it is."""
    tree, cluster = await gone_back(rule)
    recovery, prospect = await looked(tree, cluster, named=[VOLUME])
    await tree.make_directory(tuple(DIRECTORY.split("/")), Ownership(mode=0o755))
    tree.write_file((*DIRECTORY.split("/"), "new"), b"new")
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=False)
    assert "is not empty" in failed[VOLUME]
    export = await opened(tree)
    assert len(await export.trash.names()) + len(await export.archives()) == 1


async def test_a_purge_that_was_faster() -> None:
    """Of a purge and the command, the first to rename gets the directory; the command reports that it is gone."""
    tree, cluster = await gone_back("delete")
    recovery, prospect = await looked(tree, cluster, named=[VOLUME])
    await tree.rename((*TRASH, ENTRY), (*TRASH, f"{ENTRY}.begun"))
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=False)
    assert "does not exist any more" in failed[VOLUME]
    assert isinstance(tree.look((*TRASH, f"{ENTRY}.begun")), Directory)
    _, prospect = await looked(tree, cluster, named=[VOLUME])
    assert [type(step.action) for step in prospect.steps] == [Skip]


async def test_a_purge_that_was_slower() -> None:
    """A purge that comes after the command finds nothing, and removes nothing."""
    tree, cluster = await gone_back("delete")
    assert await recover(tree, cluster, named=[VOLUME]) == {}
    assert await (await opened(tree)).trash.purge(ENTRY) == 0
    await is_back(tree, cluster)


async def test_a_volume_that_changes_during_the_command() -> None:
    """A volume that was replaced or deleted gets no data."""
    tree, cluster = await gone_back("delete")
    recovery, prospect = await looked(tree, cluster, named=[VOLUME])
    cluster.change("volumes", VOLUME, lambda body: body["spec"].update(persistentVolumeReclaimPolicy="Retain"))
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=False)
    assert "changed during the command" in failed[VOLUME]


async def test_a_volume_that_is_being_reclaimed() -> None:
    """A Released volume without its claim does not get its data back, and is not counted."""
    tree, cluster = await gone_back("delete")
    cluster.change("claims", "default/data", lambda body: body["metadata"].update(finalizers=[]))
    cluster.delete("claims", "default/data")
    cluster.change("volumes", VOLUME, lambda body: body["status"].update(phase="Released"))
    _, prospect = await looked(tree, cluster)
    assert prospect.away == []
    _, prospect = await looked(tree, cluster, named=[VOLUME])
    assert [type(step.action) for step in prospect.steps] == [Skip]

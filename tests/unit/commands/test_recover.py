"""commands.recover over a tree and a cluster in memory, with a fault at every single call to either."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import pytest
from msgspec import structs

from provisioner.commands.recover import Prospect, Recovery, present_in
from provisioner.core import names
from provisioner.core.records import Record, SnapshotRecord
from provisioner.core.recovery import Make
from provisioner.core.scope import Scope
from provisioner.core.tenancy import ANY
from provisioner.ledger.copying import Progress
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ApiUnavailable, ClusterError, Forbidden, KindMissing
from provisioner.ports.tree import ExportError, Ownership
from tests.support import samples
from tests.support.command_faults import broken_off
from tests.support.fakes.cluster import MemoryCluster, merged
from tests.support.fakes.tree import File, MemoryTree
from tests.support.ledger_faults import FAULTS, NAS, Fault, opened

OLD, NEW = "old", "new"
AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
MADE = {"pvc-1": "a", "pvc-2": "nested/b", "pvc-3": "nested/c"}
KEPT, ARCHIVED, LEFT = "pvc-4", "pvc-5", "pvc-6"


def record(directory: str, volume: str) -> Record:
    made = samples.record(directory, claim_uid=volume.removeprefix("pvc-"))
    return structs.replace(made, claim=f"claim-of-{volume}", cluster=OLD, modes="RWX")


async def lost_cluster() -> MemoryTree:
    """An export with everything that a cluster can leave: volumes, a retained one, an archive, an attempt with data."""
    tree = MemoryTree()
    export = await opened(tree)
    directories = {**MADE, KEPT: "kept", ARCHIVED: "archived", LEFT: "left"}
    for volume, directory in directories.items():
        await export.provision(volume, record(directory, volume), Ownership())
        if volume != LEFT:
            await export.settle(volume)
        tree.write_file((*directory.split("/"), "data"), volume.encode())
    await export.retain(KEPT, AT)
    await export.archive(ARCHIVED, AT)
    await export.forget(ARCHIVED)
    await export.heartbeats.beat(OLD, AT)
    return tree


async def looked(
    tree: MemoryTree, cluster: MemoryCluster, *, named: Collection[str] = (), wanted: str | None = None
) -> tuple[Recovery, Prospect]:
    """One run of the command, with the export open."""
    export = Export(NAS, tree)
    await export.open(create=False)
    recovery = Recovery(
        [export], cluster, await present_in(cluster, samples.US), scope=Scope(provisioner=samples.US), offline=""
    )
    return recovery, await recovery.look(wanted, named)


async def recover(tree: MemoryTree, cluster: MemoryCluster, *, named: Collection[str] = ()) -> Mapping[str, str]:
    """Run the whole command; return what failed."""
    recovery, prospect = await looked(tree, cluster, named=named)
    return await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)


async def is_recovered(tree: MemoryTree, cluster: MemoryCluster) -> None:
    """Assert the complete state after a recovery."""
    assert [volume.name for volume in cluster.volumes()] == sorted(MADE)
    export = await opened(tree)
    for name, directory in MADE.items():
        held, volume = export.records[name], cluster.volume(name)
        assert volume is not None
        assert held == structs.replace(
            record(directory, name), cluster=NEW, claim_uid="", volume_uid=volume.metadata.uid, namespace_uid=ANY
        )
        assert volume.spec.nfs is not None
        assert volume.spec.nfs.path == f"/exports/{directory}"
        assert volume.spec.persistent_volume_reclaim_policy == "Retain"
        assert tree.look((*directory.split("/"), "data")) == File(name.encode())
    assert (export.records[KEPT].cluster, bool(export.records[KEPT].retained)) == (NEW, True)
    assert tree.look(("kept", "data")) == File(KEPT.encode())
    ((archive, archived),) = export.archived.items()
    assert (archived.volume, archived.was.cluster, archived.was.claim_uid) == (ARCHIVED, NEW, "5")
    assert tree.look((archive, "data")) == File(ARCHIVED.encode())
    assert export.records[LEFT] == record("left", LEFT)
    assert set(export.pending) == {LEFT}
    assert tree.look(("left", "data")) == File(LEFT.encode())


async def test_recovery() -> None:
    """The lost cluster's volumes are created, retained and archived data is included, and a second run does nothing."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    assert await recover(tree, cluster) == {}
    await is_recovered(tree, cluster)
    _, prospect = await looked(tree, cluster, wanted=OLD)
    assert [step.remains.volume for step in prospect.steps] == [LEFT]
    assert await recover(tree, cluster) == {}
    await is_recovered(tree, cluster)


HANDLE = "uid-of-the-snapshot"
TAKEN = SnapshotRecord("shop", "nightly", "data", "pvc-1", "snaps", "1Gi", "2026-01-01T00:00:00Z", OLD)
CONTENT = names.restored_content_name(HANDLE)


async def lost_snapshot() -> MemoryTree:
    """An export with nothing but a snapshot of a lost cluster."""
    tree = MemoryTree()
    export = await opened(tree)
    await export.provision("pvc-1", record("a", "pvc-1"), Ownership())
    await export.settle("pvc-1")
    await export.snapshots.begin(HANDLE, TAKEN)
    copy = await export.snapshot_of(export, ("a",), HANDLE, Progress(), allows=lambda: True)
    await export.snapshots.place(HANDLE, copy, TAKEN.created)
    await export.retain("pvc-1", AT)
    return tree


async def test_snapshots() -> None:
    """A snapshot gets its content, and its VolumeSnapshot once the namespace exists; a second run does nothing."""
    tree, cluster = await lost_snapshot(), MemoryCluster(identity=NEW)
    assert await recover(tree, cluster) == {}
    content = cluster.snapshot_content(CONTENT)
    assert content is not None
    assert content.spec.deletion_policy == "Retain"
    assert (await opened(tree)).snapshots.complete == {HANDLE: TAKEN}
    cluster.namespaces.add("shop")
    namespace = cluster.namespaces.get("shop")
    assert namespace is not None
    for _ in range(2):
        assert await recover(tree, cluster) == {}
        snapshot = cluster.snapshot("shop/nightly")
        assert snapshot is not None
        assert snapshot.spec.source.volume_snapshot_content_name == CONTENT
        own = structs.replace(TAKEN, cluster=NEW, namespace_uid=namespace.metadata.uid)
        assert (await opened(tree)).snapshots.complete == {HANDLE: own}


async def test_snapshots_that_changed_during_the_command() -> None:
    """Objects and records that are others by then stay as they are."""
    tree, cluster = await lost_snapshot(), MemoryCluster(identity=NEW)
    cluster.namespaces.add("shop")
    recovery, prospect = await looked(tree, cluster)
    spec = {"driver": samples.US, "source": {"snapshotHandle": "other"}, "volumeSnapshotRef": {}}
    cluster.create("snapshot_contents", {"metadata": {"name": CONTENT}, "spec": spec})
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)
    assert "another VolumeSnapshotContent" in failed[HANDLE]
    cluster.delete("snapshot_contents", CONTENT)
    source = {"source": {"persistentVolumeClaimName": "data"}}
    cluster.create("snapshots", {"metadata": {"name": "nightly", "namespace": "shop"}, "spec": source})
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)
    assert "was created during the command" in failed[HANDLE]
    other = await opened(tree)
    await other.snapshots.replace_record(HANDLE, structs.replace(TAKEN, cluster="third"))
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)
    assert "its record has changed" in failed[HANDLE]


@pytest.mark.parametrize("error", [KindMissing("no"), Forbidden("no")], ids=["no CRDs", "no right"])
async def test_a_cluster_without_snapshots(error: ClusterError) -> None:
    """A cluster that cannot have VolumeSnapshots gets none, and everything else."""
    tree, cluster = await lost_snapshot(), MemoryCluster(identity=NEW)

    async def refuse(call: str, _about: str) -> None:
        if call == "get_snapshot":
            raise error

    cluster.before = refuse
    _, prospect = await looked(tree, cluster)
    (step,) = prospect.snapshots
    assert step.is_skipped
    assert await recover(tree, cluster) == {}


async def test_a_look_changes_nothing() -> None:
    """A dry run writes neither to the export nor to the cluster."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    calls: set[str] = set()

    async def note(call: str, _about: object) -> None:
        calls.add(call)

    tree.before = cluster.before = note
    _, prospect = await looked(tree, cluster)
    assert sum(isinstance(step.action, Make) for step in prospect.steps) == len(MADE)
    assert calls <= {"root_id", "read_symlink", "read_symlinks", "list", "is_empty", "identity", "get_namespace"}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_cut_off_anywhere(fault: Fault) -> None:
    """After a crash or a lost answer at any call, the next recovery completes the work."""
    for number in itertools.count(1):
        tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
        if not await interrupted(fault, number, tree, cluster):
            break
        assert await recover(tree, cluster) == {}
        await is_recovered(tree, cluster)
    assert number > 20


async def interrupted(
    fault: Fault, number: int, tree: MemoryTree, cluster: MemoryCluster, *, named: Collection[str] = ()
) -> bool:
    """Recover with the fault at the n-th call; return False if there are fewer calls."""
    run = recover(tree, cluster, named=named)
    return await broken_off(fault, number, tree, cluster, run, errors=(ExportError, ApiUnavailable))


async def test_volumes_put_back_by_other_means() -> None:
    """Volumes that an admin applied from the printed manifests are recorded for this cluster, not created twice."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    _, prospect = await looked(tree, cluster)
    for step in prospect.steps:
        if isinstance(step.action, Make):
            await cluster.create_volume(step.action.body)
    assert await recover(tree, cluster) == {}
    await is_recovered(tree, cluster)


async def test_by_name() -> None:
    """Named volumes are created alone, including one that never had a volume and one that was retained."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    recovery, prospect = await looked(tree, cluster, named=[LEFT, KEPT, "pvc-typo"])
    assert prospect.unknown == ["pvc-typo"]
    assert await recovery.apply(prospect, lambda done, total: None, cluster_gone=True) == {}
    assert {volume.name for volume in cluster.volumes()} == {KEPT, LEFT}
    export = await opened(tree)
    assert set(export.pending) == set()
    assert {name: export.records[name].cluster for name in (LEFT, KEPT, "pvc-1")} == {
        LEFT: NEW,
        KEPT: NEW,
        "pvc-1": OLD,
    }
    assert [archived.was.cluster for archived in export.archived.values()] == [OLD]


async def test_a_backup_applied_beside_it() -> None:
    """A Released volume with policy Delete is not recorded: the next reclaim would delete its directory."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    _, prospect = await looked(tree, cluster)
    (action,) = [step.action for step in prospect.steps if step.remains.volume == "pvc-1"]
    assert isinstance(action, Make)
    claimed = {"claimRef": {"namespace": "shop", "name": "claim-of-pvc-1", "uid": "1"}}
    backup = merged(action.body, {"spec": {**claimed, "persistentVolumeReclaimPolicy": "Delete"}})
    await cluster.create_volume(backup)
    await recover(tree, cluster)
    assert (await opened(tree)).records["pvc-1"] == structs.replace(record("a", "pvc-1"), volume_uid="")
    kept = merged(cluster.body("volumes", "pvc-1") or {}, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    cluster.change("volumes", "pvc-1", lambda body: body.update(kept))
    assert await recover(tree, cluster, named=["pvc-1"]) == {}
    held, volume = (await opened(tree)).records["pvc-1"], cluster.volume("pvc-1")
    assert volume is not None
    assert (held.cluster, held.volume_uid) == (NEW, volume.metadata.uid)


async def test_a_volume_that_changes_during_the_command() -> None:
    """A volume that exists is recorded as it was read, or not at all."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    recovery, prospect = await looked(tree, cluster)
    for step in prospect.steps:
        if isinstance(step.action, Make):
            await cluster.create_volume(step.action.body)
    recovery, prospect = await looked(tree, cluster)
    cluster.change("volumes", "pvc-1", lambda body: body["spec"].update(persistentVolumeReclaimPolicy="Delete"))
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)
    assert list(failed) == ["pvc-1"]
    assert (await opened(tree)).records["pvc-1"] == record("a", "pvc-1")


async def test_a_cluster_that_lives() -> None:
    """A volume that its old cluster reclaims at the same time is not created: it would point to a deleted directory."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    recovery, prospect = await looked(tree, cluster)
    living = await opened(tree)
    await living.move_to_trash("pvc-1")
    await living.forget("pvc-1")
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)
    assert list(failed) == ["pvc-1"]
    assert "changed during the command" in failed["pvc-1"]
    assert {volume.name for volume in cluster.volumes()} == MADE.keys() - {"pvc-1"}
    assert "pvc-1" not in (await opened(tree)).records


async def test_a_volume_that_appears_during_the_command() -> None:
    """A volume that appears between look and apply is reported, and the next look decides about it."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    recovery, prospect = await looked(tree, cluster)
    (action,) = [step.action for step in prospect.steps if step.remains.volume == "pvc-1"]
    assert isinstance(action, Make)
    await cluster.create_volume(action.body)
    failed = await recovery.apply(prospect, lambda done, total: None, cluster_gone=True)
    assert list(failed) == ["pvc-1"]
    assert await recover(tree, cluster) == {}
    await is_recovered(tree, cluster)


async def test_unreadable_entries() -> None:
    """An unreadable record and an entry that is not a directory are reported, and stop nothing else."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    await tree.make_symlink((".provisioner", "volumes", "pvc-future"), '{"v":9}')
    await tree.rename(("a",), ("moved",))
    await tree.make_symlink(("a",), "/etc")
    _, prospect = await looked(tree, cluster)
    assert prospect.unreadable == {"nas:/exports": ["pvc-future"]}
    actions = {step.remains.volume: step.action for step in prospect.steps}
    assert "cannot be read" in getattr(actions["pvc-1"], "why", "")
    assert await recover(tree, cluster) == {}
    assert {volume.name for volume in cluster.volumes()} == MADE.keys() - {"pvc-1"}


async def test_an_export_with_two_names() -> None:
    """An export with two addresses has one ledger, and its volumes are created once."""
    tree, cluster = await lost_cluster(), MemoryCluster(identity=NEW)
    exports = [await opened(tree), await opened(tree)]
    recovery = Recovery(
        exports, cluster, await present_in(cluster, samples.US), scope=Scope(provisioner=samples.US), offline=""
    )
    prospect = await recovery.look(None, ())
    assert sum(isinstance(step.action, Make) for step in prospect.steps) == len(MADE)

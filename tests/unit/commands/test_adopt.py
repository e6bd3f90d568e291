"""commands.adopt over a tree and a cluster in memory, with a fault at every single call to either."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import NoReturn

import pytest
from msgspec import structs

from provisioner.commands.adopt import Adoption
from provisioner.commands.session import Session
from provisioner.core.adoption import NotAdopted, Wish
from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import Location
from provisioner.core.mount_options import MountOptions
from provisioner.core.records import NO_OBJECT
from provisioner.core.scope import Scope, Seen
from provisioner.ledger.errors import PathTaken
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support import samples
from tests.support.command_faults import broken_off
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import File, MemoryTree, Symlink
from tests.support.ledger_faults import FAULTS, NAS, Fault, opened

US = "red"
WISH = Wish(path=("old", "photos"), namespace="shop", claim="data", capacity="1Gi")
DATA = File(b"years of work")


def _nowhere(location: Location, _options: MountOptions) -> NoReturn:
    raise ExportError(Cause.UNREACHABLE, str(location))


async def site() -> tuple[MemoryTree, MemoryCluster]:
    """An export with a ledger and a manually created directory, and a cluster with a pending claim."""
    tree, cluster = MemoryTree(), MemoryCluster(identity=US)
    await opened(tree)
    await tree.make_directory(WISH.path, Ownership())
    tree.write_file((*WISH.path, "file"), DATA.content)
    cluster.namespaces.add("shop")
    cluster.create("classes", {"metadata": {"name": "nfs"}, "provisioner": samples.US, "parameters": {}})
    spec = {
        "storageClassName": "nfs",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeMode": "Filesystem",
    }
    cluster.create("claims", {"metadata": {"name": "data", "namespace": "shop"}, "spec": spec})
    return tree, cluster


async def adoption(tree: MemoryTree, cluster: MemoryCluster, wish: Wish = WISH) -> Adoption:
    """One run of the command, with the exports open."""
    export = Export(NAS, tree)
    await export.open(create=False)
    storage_class = cluster.storage_class("nfs")
    assert storage_class is not None
    session = Session(
        cluster=cluster,
        cluster_id=US,
        classes=[storage_class],
        exports=[export],
        bare=[],
        scope=Scope(provisioner=samples.US, exports=[Seen(export=export.name)]),
        registry=ExportRegistry({NAS: export}, NAS, _nowhere),
    )
    return Adoption(session, wish, set())


async def adopt(tree: MemoryTree, cluster: MemoryCluster, wish: Wish = WISH) -> None:
    """Run the whole command."""
    run = await adoption(tree, cluster, wish)
    await run.apply(await run.look(samples.US))


async def is_adopted(tree: MemoryTree, cluster: MemoryCluster) -> str:
    """Assert that the claim has one volume, with the data, and that the ledger agrees; return the uid in the record."""
    (volume,) = cluster.volumes()
    claim = cluster.claim("shop/data")
    assert claim is not None
    assert volume.spec.nfs is not None
    assert volume.spec.claim_ref is not None
    assert (volume.spec.nfs.path, volume.spec.claim_ref.uid) == ("/exports/old/photos", claim.uid)
    assert volume.spec.persistent_volume_reclaim_policy == "Retain"
    export = await opened(tree)
    ((name, record),) = export.records.items()
    assert (name, record.path, record.claim_uid) == (volume.name, WISH.path, claim.uid)
    assert record.namespace_uid == "red-ns-0003"
    assert not export.pending
    assert tree.look((*WISH.path, "file")) == DATA
    assert record.volume_uid in (volume.metadata.uid, NO_OBJECT)
    return record.volume_uid


async def test_adopted() -> None:
    """`adopt` creates the claim's volume on the unchanged directory and a record for it; a second run is refused."""
    tree, cluster = await site()
    await adopt(tree, cluster)
    assert await is_adopted(tree, cluster) != NO_OBJECT
    with pytest.raises(NotAdopted, match="overlaps with that of volume"):
        await adopt(tree, cluster)


async def test_a_look_writes_nothing() -> None:
    """Without --apply, neither the export nor the cluster changes."""
    tree, cluster = await site()
    calls: set[str] = set()

    async def note(call: str, _about: object) -> None:
        calls.add(call)

    run = await adoption(tree, cluster)
    tree.before = cluster.before = note
    assert (await run.look(samples.US)).claim_is_there
    assert calls <= {"root_id", "read_symlink", "read_symlinks", "list", "is_empty", "get_namespace", "identity"}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_cut_off_anywhere(fault: Fault) -> None:
    """After a crash or a lost answer at any call, the next run completes the adoption, once."""
    for number in itertools.count(1):
        tree, cluster = await site()
        if not await interrupted(fault, number, tree, cluster):
            break
        with suppress(NotAdopted):  # the volume was made; its record follows when it is bound
            await adopt(tree, cluster)
        await is_adopted(tree, cluster)
    assert number > 10


async def interrupted(fault: Fault, number: int, tree: MemoryTree, cluster: MemoryCluster) -> bool:
    """Adopt with the fault at the n-th call; return False if there are fewer calls."""
    return await broken_off(fault, number, tree, cluster, adopt(tree, cluster), errors=(ProvisionerError,))


@pytest.mark.parametrize("directory", ["old/photos", "old", "old/photos/2019"])
@pytest.mark.parametrize("cluster_id", [US, "blue"])
async def test_a_volume_created_at_the_same_time(directory: str, cluster_id: str) -> None:
    """A claim of any cluster that gets the directory, or one above or below, after the look makes `adopt` refuse."""
    tree, cluster = await site()
    run = await adoption(tree, cluster)
    prospect = await run.look(samples.US)
    other = await opened(tree)
    held = structs.replace(samples.record(directory, claim_uid="9"), cluster=cluster_id)
    await other.take_over({"pvc-9": held})
    with pytest.raises(NotAdopted, match="overlaps with"):
        await run.apply(prospect)
    assert cluster.volumes() == []
    assert set((await opened(tree)).records) == {"pvc-9"}


async def test_refused_by_the_ledger() -> None:
    """`adopt` refuses a symlink, another export's root, a path inside one, and an unreadable record."""
    tree, cluster = await site()
    tree.root.entries["link"] = Symlink("old")
    for path, words in ((("link",), "no directory"), (("link", "photos"), "no directory")):
        with pytest.raises(NotAdopted, match=words):
            await adopt(tree, cluster, Wish(path=path, namespace="shop", claim="data"))
    await tree.make_symlink((".provisioner", "volumes", "pvc-damaged"), "{")
    with pytest.raises(PathTaken, match=r"cannot read.*pvc-damaged"):
        await adopt(tree, cluster)
    await tree.make_directory(("old", ".provisioner"), Ownership())
    with pytest.raises(PathTaken, match="root of"):
        await adopt(tree, cluster)
    assert cluster.volumes() == []

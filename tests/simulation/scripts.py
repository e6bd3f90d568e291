"""What people do in a simulation: the life of one volume, of two volumes, special events, and random deeds."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable

from provisioner.commands.recover import Recovery, present_in
from provisioner.commands.recover_ledger import Present, Rewriting
from provisioner.core import names
from provisioner.core.ledgers import Installation
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim
from provisioner.core.paths import LEDGER
from provisioner.core.records import OnDelete, decode
from provisioner.core.scope import Scope
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.tree import Cause, ExportError
from tests.simulation.faults import Chance
from tests.simulation.judge import TRASH, Home
from tests.simulation.process import PROVISIONER, nowhere
from tests.simulation.snapshotting import Album, StockController
from tests.simulation.world import DEEP, NAMED, NAMESPACES, NAS, OTHER_NAS, Script, Site, World
from tests.support.fakes.cluster import Body
from tests.support.fakes.tree import Directory, File, Symlink

Meddle = Callable[[World], None]
"""What a tenant does at the very moment of a fault."""

KEY, OTHER = "shop/data", "shop/more"


def leave(_world: World) -> None:
    """Do nothing."""


def delete(world: World) -> None:
    """Delete the claim."""
    world.delete_claim(KEY)


def delete_clone(world: World) -> None:
    """Delete the other claim."""
    world.delete_claim(OTHER)


def remove(world: World) -> None:
    """Delete all volumes, as an admin."""
    for volume in world.site.cluster.volumes():
        world.note(f"admin deletes volume {volume.name}")
        world.site.cluster.delete("volumes", volume.name)


def recreate(world: World) -> None:
    """Delete the claim, and create it again under its name as soon as it is gone."""
    site = world.site
    before = site.cluster.claim(KEY)
    world.delete_claim(KEY)

    async def again() -> None:
        if await world.until(lambda: site.cluster.claim(KEY) is None) and before is not None:
            world.claim(KEY, before.class_name)

    world.later(again())


def lifecycle(rule: OnDelete, meddle: Meddle = leave, *, pattern: str = NAMED, **parameters: str) -> Script:
    """A claim is bound, used, deleted, and created again under the same name, so that it gets the same directory."""

    async def script(world: World) -> None:
        world.add_class("nfs", onDelete=rule, pathPattern=pattern, **parameters)
        world.plant(("stranger",))
        world.met = lambda fault: meddle(world)
        for name in ("one", "two"):
            if world.site.cluster.claim(KEY) is None:
                world.claim(KEY, "nfs")
            if not await _used(world, KEY, name):
                world.judge.blame(f"claim {KEY} was not bound")
            world.delete_claim(KEY)
            await world.until(lambda: world.site.cluster.claim(KEY) is None)
        await world.rest()

    return script


def two_volumes(rule: OnDelete, meddle: Meddle = leave, *, pattern: str = NAMED) -> Script:
    """Two claims in parallel; one is deleted while the other one stays in use."""

    async def script(world: World) -> None:
        world.add_class("nfs", onDelete=rule, pathPattern=pattern)
        world.plant(("stranger",))
        world.met = lambda fault: meddle(world)
        world.claim(KEY, "nfs")
        world.claim(OTHER, "nfs")
        await asyncio.gather(_used(world, KEY, "one"), _used(world, OTHER, "two"))
        world.delete_claim(KEY)
        await world.until(lambda: world.site.cluster.claim(KEY) is None)
        await world.rest()

    return script


def copied(meddle: Meddle = leave, **parameters: str) -> Script:
    """A claim in use is cloned; the clone is used, the source is deleted, and then the clone."""

    async def script(world: World) -> None:
        world.add_class("nfs", onDelete="delete", pathPattern=NAMED, **parameters)
        world.plant(("stranger",))
        world.claim(KEY, "nfs")
        await _used(world, KEY, "one")
        world.met = lambda fault: meddle(world)
        world.claim(OTHER, "nfs", dataSource={"kind": "PersistentVolumeClaim", "name": KEY.partition("/")[2]})
        copying = world.hold(world.trees[NAS], "make", (LEDGER, "copies"), 30.0)
        world.later(_deleted_during_the_copy(world, copying))
        if not await _used(world, OTHER, "two") and meddle is leave:
            world.judge.blame(f"claim {OTHER} was not bound")
        for key in (KEY, OTHER):
            world.delete_claim(key)
            await world.until(lambda key=key: world.site.cluster.claim(key) is None)  # type: ignore[misc]
        await world.rest()

    return script


async def _deleted_during_the_copy(world: World, copying: asyncio.Event) -> None:
    """Delete the source while its copy is held up."""
    await copying.wait()
    world.delete_claim(KEY)


async def content_deleted(world: World) -> None:
    """An admin deletes the content of a snapshot; later a tenant deletes the snapshot: only then can its data go."""
    cluster, key = world.site.cluster, "shop/first"
    world.add_class("nfs", onDelete="delete", pathPattern=NAMED)
    Album(world, world.site)
    world.later(StockController(world, world.site).run())
    cluster.create(
        "snapshot_classes", {"metadata": {"name": "snaps"}, "driver": PROVISIONER, "deletionPolicy": "Delete"}
    )
    world.claim(KEY, "nfs")
    await _used(world, KEY, "one")
    world.note(f"tenant takes snapshot {key} of {KEY}")
    namespace, _, name = key.partition("/")
    source = {"persistentVolumeClaimName": KEY.partition("/")[2]}
    spec = {"source": source, "volumeSnapshotClassName": "snaps"}
    cluster.create("snapshots", {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    if not await world.until(lambda: (taken := cluster.snapshot(key)) is not None and taken.status.ready_to_use):
        world.judge.blame(f"snapshot {key} was not ready")
    for content in cluster.snapshot_contents():
        world.note(f"admin deletes content {content.name}")
        cluster.delete("snapshot_contents", content.name)
    await asyncio.sleep(120.0)
    world.note(f"tenant deletes snapshot {key}")
    cluster.delete("snapshots", key)
    await world.until(lambda: cluster.snapshot(key) is None and not cluster.snapshot_contents())
    await world.rest()


async def unrecorded(world: World) -> None:
    """A volume's record is removed from the export behind the leader's back: from then on nothing may be changed.

    An admin may do this to keep a directory, or another leader that removed the record and gave the path away.
    """
    world.add_class("nfs", onDelete="delete", pathPattern=NAMED)
    world.claim(KEY, "nfs")
    await _used(world, KEY, "one")
    await world.until(lambda: all(world.unrecord(home.volume) for home in world.judge.homes))
    for home in world.judge.homes:
        home.rule = "retain"
    world.delete_claim(KEY)
    await asyncio.sleep(120.0)


async def nested(world: World) -> None:
    """An export of one cluster lies within that of another, where claims ask for paths inside the inner export."""
    outer, inner = world.sites
    world.add_class("nfs", onDelete="delete", pathPattern="${.PVC.annotations.path}")
    world.claim(KEY, "nfs", site=inner, annotations={"path": "db"})
    await world.until(lambda: bool(world.judge.homes))
    world.write(inner.cluster.claims()[0], "one")
    wishes = ("team/db/inside", "team/db", "team", "team/new", "team/new/x")
    for number, path in enumerate(wishes):
        world.claim(f"lab/wish-{number}", "nfs", site=outer, annotations={"path": path})
    world.claim("lab/beside", "nfs", site=outer, annotations={"path": "teams/db"})
    await asyncio.sleep(30.0)
    bound = {claim.metadata.name for claim in outer.cluster.claims() if claim.status.phase == "Bound"}
    if bound != {"beside"}:
        world.judge.blame(f"claims on the outer export that are bound: {sorted(bound)}")
    world.delete_claim(KEY, site=inner)
    await asyncio.sleep(120.0)


async def unlocated(world: World) -> None:
    """A predecessor's volume lies on the export by an unknown name of its server; claims ask for paths inside it."""
    world.add_class("nfs", onDelete="delete", pathPattern=NAMED)
    world.plant(("shop",))
    reference = {"namespace": "shop", "name": "all"}
    body = {
        "metadata": {"name": "pvc-peer", "annotations": {names.PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "claimRef": reference,
            "nfs": {"server": "10.0.0.5", "path": "/exports/shop"},
        },
    }
    world.site.cluster.create("volumes", body)
    for key in (KEY, OTHER, "lab/data"):
        world.claim(key, "nfs")
    await asyncio.sleep(120.0)
    bound = {claim.key for claim in world.site.cluster.claims() if claim.status.phase == "Bound"}
    if bound != {"lab/data"}:
        world.judge.blame(f"claims that are bound: {sorted(bound)}")


async def folding(world: World) -> None:
    """The server ignores case; claims ask for another claim's directory in other spellings, or one above or below."""
    world.add_class("nfs", onDelete="delete", pathPattern="${.PVC.annotations.path}")
    world.claim(KEY, "nfs", annotations={"path": "team/db"})
    await _used(world, KEY, "one")
    wishes = ("TEAM/db", "Team", "team/DB/inside", "tea\u0301m/DB")
    for number, path in enumerate(wishes):
        world.claim(f"lab/wish-{number}", "nfs", annotations={"path": path})
    await asyncio.sleep(30.0)
    bound = {claim.metadata.name for claim in world.site.cluster.claims() if claim.status.phase == "Bound"}
    if bound != {"data", "wish-3"}:
        world.judge.blame(f"claims that are bound: {sorted(bound)}")
    for claim in world.site.cluster.claims():
        if claim.key != KEY:
            world.delete_claim(claim.key)
    await asyncio.sleep(120.0)


async def reborn(world: World) -> None:
    """A namespace is deleted, and another team with a namespace of that name asks for its directories and archives."""
    world.add_class("kept", onDelete="retain", pathPattern=NAMED)
    world.add_class("archived", onDelete="archive")
    world.claim(KEY, "kept")
    world.claim(OTHER, "archived")
    for key in (KEY, OTHER):
        await _used(world, key, "one")
        world.delete_claim(key)
    await world.until(lambda: not world.site.cluster.claims() and bool(_archives(world)))
    await asyncio.sleep(60.0)
    world.create_namespace_again("shop")
    world.claim(KEY, "kept")
    for number, archive in enumerate(_archives(world)):
        world.claim(f"shop/any-{number}", "archived", annotations={names.RESTORE: archive})
    await asyncio.sleep(60.0)
    bound = [claim.key for claim in world.site.cluster.claims() if claim.status.phase == "Bound"]
    if bound:
        world.judge.blame(f"claims that got data of an earlier namespace: {bound}")
    await world.rest()


async def handed_over(world: World) -> None:
    """An admin gives a directory with data to a pending claim; that of a live claim is refused."""
    world.add_class("nfs", onDelete="archive", pathPattern=NAMED)
    world.claim(KEY, "nfs")
    await _used(world, KEY, "one")
    live = world.site.cluster.claim(KEY)
    home = world.judge.home_of(live) if live is not None else None
    assert home is not None
    world.judge.put(home, "inner", Directory())
    lab = world.trees[NAS].root.entries["lab"] = Directory()
    lab.entries["data"] = by_hand = Directory()
    by_hand.entries["file"] = File(b"years of work")
    world.claim("lab/data", "nfs")
    await asyncio.sleep(20.0)
    for path in (("shop",), ("shop", "data", "inner"), ("shop", "data")):
        if await world.adopt(path, "lab/data"):
            world.judge.blame(f"{'/'.join(path)} was adopted beside {home}")
    if not await world.adopt(("lab", "data"), "lab/data"):
        world.judge.blame("a directory without an owner was not adopted")
    await world.until(lambda: _is_bound(world, "lab/data"))
    adopted = world.site.cluster.claim("lab/data")
    place = world.judge.home_of(adopted) if adopted is not None else None
    if place is None or place.directory is not by_hand or "file" not in by_hand.entries:
        world.judge.blame("the claim does not have the directory that was given to it")
    world.delete_claim("lab/data")
    await asyncio.sleep(120.0)
    if by_hand.entries.get("file") != File(b"years of work"):
        world.judge.blame("the adopted data is not kept")
    await world.rest()


def _archives(world: World) -> list[str]:
    return [name for tree in world.trees.values() for name in tree.root.entries if name.startswith("archived-")]


async def _used(world: World, key: str, name: str) -> bool:
    """Wait until a claim is bound or gone, and write into its directory; return False if neither happens in time."""

    def is_over() -> bool:
        claim = world.site.cluster.claim(key)
        return claim is None or claim.status.phase == "Bound" or claim.metadata.deletion_timestamp is not None

    came = await world.until(is_over)
    claim = world.site.cluster.claim(key)
    if claim is not None:
        world.write(claim, name)
    return came


# ------------------------------------------------------------------------------------------- backups and bindings

_SOURCE = {"apiGroup": "populator.example", "kind": "Image", "name": "any"}


async def _volume_of(world: World, key: str, rule: OnDelete, **parameters: str) -> Home:
    """Create a claim in use; return its directory."""
    given = {name: value for name, value in parameters.items() if value}
    world.add_class("nfs", onDelete=rule, pathPattern=NAMED, **given)
    world.plant(("stranger",))
    world.claim(key, "nfs")
    await _used(world, key, "one")
    await asyncio.sleep(120.0)  # until all faults during the creation are over
    claim = world.site.cluster.claim(key)
    home = world.judge.home_of(claim) if claim is not None else None
    assert home is not None
    return home


_NOT_APPLIED = ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")


def applicable(site: Site, volume_name: str) -> Body:
    """A volume as `kubectl get -o yaml` prints it, without the fields that `kubectl apply` does not write."""
    body = copy.deepcopy(site.cluster.body("volumes", volume_name))
    assert body is not None
    metadata = {key: value for key, value in body["metadata"].items() if key not in _NOT_APPLIED}
    return {"metadata": metadata, "spec": body["spec"]}


def _lose(world: World, home: Home) -> None:
    """An admin deletes a volume including its finalizers; its directory must not change from then on."""
    world.note(f"an admin removes volume {home.volume} by force")
    home.rule = "retain"
    world.judge.forced.add(home.volume)
    world.site.cluster.change("volumes", home.volume, lambda body: body["metadata"].update(finalizers=[]))
    world.site.cluster.delete("volumes", home.volume)


def reapplied(rule: OnDelete, *, lost: bool, elsewhere: bool) -> Script:
    """A volume is applied from a backup: after it and its claim were `lost`, in another cluster, or both."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, rule)
        backup = applicable(world.site, home.volume)
        if lost:
            _lose(world, home)
            world.delete_claim(KEY)
            await world.until(lambda: world.site.cluster.claim(KEY) is None)
            await asyncio.sleep(5.0)
        world.note(f"an admin applies volume {home.volume} from a backup")
        world.sites[-1 if elsewhere else 0].cluster.create("volumes", backup)
        await asyncio.sleep(120.0)
        await world.rest()

    return script


def reapplied_predecessors(*, known: bool, elsewhere: bool) -> Script:
    """A predecessor's volume, known to the ledger or not, is applied from a backup."""

    async def script(world: World) -> None:
        await _volume_of(world, OTHER, "delete")  # so that there is a ledger in use
        world.plant(("peers",))
        uid = "peers-claim"
        name = names.volume_name(uid)
        world.judge.by_hand.add(name)
        reference = {"namespace": "lab", "name": "data", "uid": uid}
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "nfs": {"server": NAS.server, "path": NAS.below(("peers",))},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "nfs",
        }
        metadata = {"name": name, "annotations": {names.PROVISIONED_BY: PROVISIONER}}
        body = {"metadata": metadata, "spec": {**spec, "claimRef": reference}}
        site = world.site
        if known:
            world.claim("lab/data", "", volumeName=name)
            claim = site.cluster.claim("lab/data")
            assert claim is not None
            body["spec"]["claimRef"] = {**reference, "uid": claim.uid}
            site.cluster.create("volumes", copy.deepcopy(body))
            await world.until(lambda: _phase(site, name) == "Bound")
            await asyncio.sleep(120.0)
            site.cluster.change("volumes", name, lambda stored: stored["metadata"].update(finalizers=[]))
            site.cluster.delete("volumes", name)
            world.delete_claim("lab/data")
            await world.until(lambda: site.cluster.claim("lab/data") is None)
        world.note(f"an admin applies the predecessor's volume {name}")
        world.sites[-1 if elsewhere else 0].cluster.create("volumes", body)
        await asyncio.sleep(120.0)
        await world.rest()

    return script


def _phase(site: Site, volume_name: str) -> str:
    volume = site.cluster.volume(volume_name)
    return volume.status.phase if volume is not None else ""


async def forgotten(world: World) -> None:
    """The cluster goes back to before a claim had its volume; an event on the claim names the command to recover it."""
    home = await _volume_of(world, KEY, "delete")
    _lose(world, home)

    def back(body: Body) -> None:
        del body["spec"]["volumeName"]
        body["status"] = {"phase": "Pending"}
        body["metadata"]["annotations"] = {}

    world.site.cluster.change("claims", KEY, back)
    await asyncio.sleep(120.0)
    warnings = _warnings_of(world, "")
    if not any(f"recover --volume {home.volume}" in message for message in warnings):
        world.judge.blame(f"nothing says how to recover volume {home.volume}: {warnings}")
    await world.rest()


def gone_back(rule: OnDelete, *, running: bool, late: bool) -> Script:
    """Etcd is restored to before the deletion of a claim, and its data is recovered; `late`: the volume was gone too.

    The daemon keeps running, or starts after it. The server removes nothing from the trash until then.
    """

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, rule, archiveRetention="2m" if rule == "archive" else "")
        site, tree = world.site, world.trees[NAS]
        saved, moved = site.cluster.saved(), asyncio.Event()
        before, after = tree.before, tree.after

        async def hold_up(call: str, path: RelPath) -> None:
            await before(call, path)
            if call == "rename" and path[: len(TRASH)] == TRASH:
                raise ExportError(Cause.OTHER, "it is in use")

        async def watch(call: str, path: RelPath) -> None:
            await after(call, path)
            if call == "rename" and world.judge.where(home) != home.path:
                moved.set()

        tree.before, tree.after = hold_up, watch
        world.delete_claim(KEY)
        await moved.wait()
        if late:
            await world.until(lambda: site.cluster.volume(home.volume) is None)
            await asyncio.sleep(5.0)
        for process in () if running else tuple(site.processes):
            process.die()
        world.go_back(site, saved)
        tree.before, tree.after = before, after
        await asyncio.sleep(300.0)
        if not home.away:
            world.judge.blame(f"the data is not kept: {home}")
        await world.rest()
        await _recover(world, home)
        await asyncio.sleep(300.0)
        if world.judge.where(home) != home.path:
            world.judge.blame(f"the data was not recovered: {home}")
        await world.rest()
        world.delete_claim(KEY)
        await world.until(lambda: site.cluster.claim(KEY) is None)
        await world.rest()

    return script


async def _recover(world: World, home: Home) -> None:
    """An admin runs `recover --volume`."""
    world.note(f"an admin recovers the data of {home.volume}")
    export = Export(NAS, world.trees[NAS])
    await export.open(create=False)
    present = await present_in(world.site.cluster, PROVISIONER)
    scope = Scope(provisioner=PROVISIONER)
    recovery = Recovery([export], world.site.cluster, present, scope=scope, offline="")
    failed = await recovery.apply(await recovery.look(None, [home.volume]), lambda *_: None, cluster_gone=False)
    if failed:
        world.judge.blame(f"the data cannot be recovered: {failed}")


async def bound_elsewhere(world: World) -> None:
    """A claim names another volume, and Kubernetes releases its own: its directory stays as long as the claim."""
    await _volume_of(world, KEY, "delete")
    world.note(f"claim {KEY} names another volume")
    world.site.cluster.change("claims", KEY, lambda body: body["spec"].update(volumeName="another"))
    await asyncio.sleep(120.0)
    await world.rest()


def shared(rule: OnDelete, *below: str) -> Script:
    """An admin creates a second volume on a claim's directory, or below it, and deletes it after the claim."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, rule)
        cluster = world.site.cluster
        nfs = {"server": NAS.server, "path": NAS.below((*home.path, *below))}
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "nfs": nfs}
        world.note("an admin creates a second volume")
        cluster.create("volumes", {"metadata": {"name": "second"}, "spec": spec})
        await asyncio.sleep(10.0)
        home.rule = "retain"
        world.delete_claim(KEY)
        await asyncio.sleep(120.0)
        world.note("an admin deletes the second volume")
        home.rule = rule
        cluster.delete("volumes", "second")
        await world.rest()

    return script


def populated(rule: OnDelete) -> Script:
    """A populator fills a volume of a claim of its own, and binds it to the user's claim."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, rule)
        cluster = world.site.cluster
        world.claim(OTHER, "nfs", dataSourceRef=_SOURCE)
        target = cluster.claim(OTHER)
        assert target is not None
        _bind(world, home, target, uid=target.uid)
        await world.until(lambda: _is_bound(world, OTHER))
        world.delete_claim(KEY)
        await _handed_over(world)

    return script


def used_again(rule: OnDelete) -> Script:
    """A volume is retained, its claim is deleted, and an admin binds it to another claim."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, rule)
        cluster = world.site.cluster
        _set_policy(world, home, "Retain")
        world.delete_claim(KEY)
        await world.until(lambda: _phase(world.site, home.volume) == "Released")
        world.claim(OTHER, "nfs", volumeName=home.volume)
        target = cluster.claim(OTHER)
        assert target is not None
        _bind(world, home, target, uid="")
        await world.until(lambda: _is_bound(world, OTHER))
        _set_policy(world, home, "Delete")
        await _handed_over(world)

    return script


def _bind(world: World, home: Home, target: Claim, *, uid: str) -> None:
    """Write another claim into the claimRef of a volume."""
    world.note(f"volume {home.volume} is bound to {target.key}")
    reference = {"namespace": target.metadata.namespace, "name": target.metadata.name, "uid": uid}
    world.judge.rebound(home.volume, target)
    world.site.cluster.change("volumes", home.volume, lambda body: body["spec"].update(claimRef=reference))


def _set_policy(world: World, home: Home, policy: str) -> None:
    def change(body: Body) -> None:
        body["spec"]["persistentVolumeReclaimPolicy"] = policy

    world.site.cluster.change("volumes", home.volume, change)


def _is_bound(world: World, key: str, *, site: Site | None = None) -> bool:
    claim = (site or world.site).cluster.claim(key)
    return claim is not None and claim.status.phase == "Bound"


async def _handed_over(world: World) -> None:
    """The new claim of the volume uses it for a while, and is deleted."""
    await _used(world, OTHER, "two")
    await asyncio.sleep(150.0)
    world.delete_claim(OTHER)
    await world.until(lambda: world.site.cluster.claim(OTHER) is None)
    await world.rest()


def restored(rule: OnDelete) -> Script:
    """A tenant restores an archive with a class of another rule, and deletes that claim later."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, "archive")
        world.add_class("another", onDelete=rule, archiveRetention="20s")
        world.delete_claim(KEY)
        await world.until(lambda: home.archived_s is not None)
        await asyncio.sleep(120.0)
        (archive,) = (name for name in world.trees[NAS].root.entries if name.startswith("archived-"))
        world.claim(OTHER, "another", annotations={names.RESTORE: archive})
        await world.until(lambda: _is_bound(world, OTHER))
        await _handed_over(world)

    return script


# ------------------------------------------------------------------------------------------- damaged ledgers

Damage = Callable[[World, str], None]
"""Damages the ledger of an export, or the record of a volume in it."""


def remove_ledger(world: World, _volume: str) -> None:
    """Remove the whole ledger."""
    del world.trees[NAS].root.entries[LEDGER]


def remove_id(world: World, _volume: str) -> None:
    """Remove the id of the export."""
    del _ledger(world).entries["export"]


def replace_ledger(world: World, _volume: str) -> None:
    """Replace the ledger by another one."""
    world.trees[NAS].root.entries[LEDGER] = Directory(entries={"export": Symlink("another")})


def remove_record(world: World, volume: str) -> None:
    """Remove the record of the volume."""
    world.unrecord(volume)


def garble_record(world: World, volume: str) -> None:
    """Make the record of the volume unreadable."""
    world.trees[NAS].plant_symlink((LEDGER, "volumes", volume), "garbage")


WHOLE = (remove_ledger, remove_id, replace_ledger)
"""Damages after which the export is not used."""
DAMAGES = (*WHOLE, remove_record, garble_record)


def damaged(damage: Damage, rule: OnDelete, *, restarts: bool) -> Script:
    """A ledger in use is damaged, an admin restores it, and the volume is reclaimed by its rule."""

    async def script(world: World) -> None:
        home = await _volume_of(world, KEY, rule)
        id = _id(world)
        world.note(f"an admin does {damage.__name__}")
        damage(world, home.volume)
        left = _id(world)
        if restarts:
            for process in world.site.processes:
                process.die()
        await asyncio.sleep(60.0)
        world.claim(OTHER, "nfs")
        await asyncio.sleep(60.0)
        if damage in WHOLE:
            if _id(world) != left or _is_bound(world, OTHER):
                world.judge.blame("a ledger was created although volumes carry the id of a lost one")
            if not _is_reported(world, "recover --ledger"):
                world.judge.blame("nothing says how to restore a lost ledger")
        await _rewrite(world)
        if await _used(world, OTHER, "two") and not _is_bound(world, OTHER):
            world.judge.blame("an export with a restored ledger is not used")
        await asyncio.sleep(60.0)
        record = world.trees[NAS].look((LEDGER, "volumes", home.volume))
        if _id(world) != id or not isinstance(record, Symlink) or decode(record.target).claim_uid != home.claim_uid:
            world.judge.blame(f"the ledger is not what it was: {_id(world)} was {id}, the record is {record}")
        world.delete_claim(KEY)
        await world.until(lambda: world.site.cluster.claim(KEY) is None)
        await asyncio.sleep(60.0)
        await world.rest()

    return script


async def _rewrite(world: World) -> None:
    """An admin runs `recover --ledger --apply`."""
    world.note("an admin restores the ledgers")
    site, exports, bare = world.site, list[Export](), list[Export]()
    for location in site.locations:
        export = world.parts.export(location, world.trees[location])
        try:
            await export.open(create=False)
            exports.append(export)
        except ExportError:
            bare.append(export)
    served = ExportRegistry({export.location: export for export in (*exports, *bare)}, NAS, nowhere)
    cluster = site.cluster
    present = Present(
        own=Installation(provisioner=PROVISIONER, cluster=await cluster.cluster_uid()),
        volumes=cluster.volumes(),
        claims={claim.key: claim for claim in cluster.claims()},
        classes={each: made for each in ("nfs",) if (made := cluster.storage_class(each)) is not None},
    )
    rewriter = Rewriting(exports, bare, served, cluster, present)
    await rewriter.look()
    failed = await rewriter.apply()
    if failed:
        world.judge.blame(f"a ledger was not restored: {failed}")


def _ledger(world: World) -> Directory:
    ledger = world.trees[NAS].look((LEDGER,))
    assert isinstance(ledger, Directory)
    return ledger


def _id(world: World) -> object:
    return world.trees[NAS].look((LEDGER, "export"))


def _warnings_of(world: World, name: str) -> list[str]:
    """The messages of the warnings on an object, or on all objects if none is named."""
    events = (each.event for each in world.site.cluster.events.values())
    return [each.message for each in events if each.type == "Warning" and name in ("", each.about.name)]


def _is_reported(world: World, words: str) -> bool:
    return any(words in message for message in _warnings_of(world, ""))


# ------------------------------------------------------------------------------------------------ a copy of a cluster


def cloned(rule: OnDelete) -> Script:
    """A copy of the cluster is started, and claims are deleted in it; then in the original, until an admin decides."""

    async def script(world: World) -> None:
        site = world.site
        await _volume_of(world, KEY, rule)
        world.claim(OTHER, "nfs")
        await _used(world, OTHER, "two")
        copy_of = world.clone()
        world.delete_claim(KEY, site=copy_of)
        await asyncio.sleep(120.0)
        world.claim("lab/data", "nfs", site=copy_of)
        await world.until(lambda: _is_bound(world, "lab/data", site=copy_of), limit_s=60.0)
        world.claim("lab/data", "nfs")
        world.claim("lab/more", "nfs")
        world.delete_claim(OTHER)
        await _used(world, "lab/more", "three")
        await _is_stopped(world)
        world.decide()  # too early: the copy is still at work
        await asyncio.sleep(60.0)
        await _is_stopped(world)
        world.take_down(copy_of)
        for process in site.processes:
            process.die()  # a restart decides nothing
        await asyncio.sleep(60.0)
        await _is_stopped(world)
        world.decide()
        if not _is_bound(world, "lab/data", site=copy_of) or _is_bound(world, "lab/data"):
            world.judge.blame("a directory does not belong to the first claim alone")
        await world.rest()

    return script


async def _is_stopped(world: World) -> None:
    """Check that the cluster keeps a volume without a claim, and that an event says why, unless a fault lost it."""
    await asyncio.sleep(30.0)
    released = [each.name for each in world.site.cluster.volumes() if each.status.phase == "Released"]
    events = [each.event for each in world.site.cluster.events.values() if each.event.about.name in released]
    messages = sorted({event.message for event in events})
    is_reported = any("two clusters" in message for message in messages)
    if not released or not (is_reported or isinstance(world.plan, Chance)):
        world.judge.blame(f"volumes that wait: {released}, with events: {messages}")
    if any(world.tree_at(home) is None for home in world.judge.homes):
        world.judge.blame("a directory that two clusters use is gone")


# ------------------------------------------------------------------------------------------------ groups


async def group_in_trash(world: World) -> None:
    """A directory in the trash cannot be removed for a while, and claims come that want a group of their own."""
    tree = world.trees[NAS]
    works = tree.before

    async def fails(call: str, path: RelPath) -> None:
        if call == "remove_tree":
            raise ExportError(Cause.DENIED)
        await works(call, path)

    world.grouped = True
    await _volume_of(world, KEY, "delete")
    tree.before = fails
    world.delete_claim(KEY)
    await asyncio.sleep(300.0)
    world.claim(OTHER, "nfs")
    await _used(world, OTHER, "two")
    tree.before = works
    await world.rest()


# ------------------------------------------------------------------------------------------------ held up


def held_up(rule: OnDelete, *, verifies: bool) -> Script:
    """A leader is suspended, as a virtual machine can be, right before it sends the rename of a volume's directory.

    The next leader reclaims the volume. Then a new claim gets the same directory, and the first leader continues.
    """

    async def script(world: World) -> None:
        site, tree = world.site, world.trees[NAS]
        tree.verifies = verifies
        await _volume_of(world, KEY, rule)
        held = world.hold(tree, "rename", (), 90.0)
        world.delete_claim(KEY)
        await world.until(held.is_set)
        await asyncio.sleep(15.0)
        world.start(site)
        await world.until(lambda: site.cluster.claim(KEY) is None and not site.cluster.volumes())
        world.claim(KEY, "nfs")
        await _used(world, KEY, "two")
        await asyncio.sleep(900.0)
        world.mend()
        await world.rest()

    return script


async def restored_by_two(world: World) -> None:
    """A leader is suspended after it read an archive's record; the next one restores the archive for the same claim.

    The first leader continues when the other one has created the volume, and has not settled its record yet.
    """
    site, tree = world.site, world.trees[NAS]
    await _volume_of(world, KEY, "archive")
    world.delete_claim(KEY)
    await world.until(lambda: site.cluster.claim(KEY) is None and not site.cluster.volumes())
    (archive,) = (name for name in tree.root.entries if name.startswith("archived-"))
    held = world.hold(tree, "is_empty", tuple(OTHER.split("/")), 60.0)
    world.claim(OTHER, "nfs", annotations={names.RESTORE: archive})
    await world.until(held.is_set)
    claim = site.cluster.claim(OTHER)
    assert claim is not None
    world.hold(tree, "move_symlink", (LEDGER, "drafts", names.volume_name(claim.uid)), 90.0)
    world.start(site)
    await _used(world, OTHER, "two")
    await asyncio.sleep(300.0)
    world.mend()
    await world.rest()


# ------------------------------------------------------------------------------------------------ random deeds

KEYS = ("shop/data", "shop/more", "lab/data", "lab/stranger")
_CLASSES: dict[str, dict[str, str]] = {
    "delete-named": {"onDelete": "delete", "pathPattern": NAMED},
    "archive-named": {"onDelete": "archive", "pathPattern": NAMED},
    "archive-briefly": {"onDelete": "archive", "pathPattern": NAMED, "archiveRetention": "20s"},
    "retain-named": {"onDelete": "retain", "pathPattern": NAMED},
    "delete-unique": {"onDelete": "delete"},
    "archive-deep": {"onDelete": "archive", "pathPattern": f"{DEEP}/{NAMED}/${{.PV.name}}"},
    "delete-whole": {"onDelete": "delete", "pathPattern": "${.PVC.namespace}"},
    "kept-by-policy": {"onDelete": "delete", "pathPattern": NAMED},
    "elsewhere": {"onDelete": "delete", "pathPattern": NAMED, "server": OTHER_NAS.server, "share": OTHER_NAS.path},
}


class Crowd:
    """Random deeds of tenants and admins, and mishaps; `leaders` is how many processes may lead at the same time."""

    def __init__(self, world: World, *, leaders: int = 1) -> None:
        self._world = world
        self._chance = world.chance
        self._leaders = leaders
        self._files = 0
        self._saved: list[Body] = []
        self._classes = self._chance.sample(list(_CLASSES), self._chance.randint(1, 3))
        self._deeds: dict[Callable[[Site], None], int] = {
            self._claim: 5, self._delete: 4, self._write: 3,
            self._remove: 1, self._offer: 1, self._mishap: 1, self._lead: 1, self._swap: 2,
            self._backup: 2, self._apply: 2, self._namespace: 1,
        }  # fmt: skip

    async def act(self) -> None:
        """Do random deeds for a while, then end all faults and wait for rest."""
        world, chance = self._world, self._chance
        await self._begin()
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        for deed in chance.choices(list(self._deeds), list(self._deeds.values()), k=chance.randint(10, 50)):
            deed(chance.choice(world.sites))
            await asyncio.sleep(chance.choice((0.0, 0.05, 0.5, 3.0)) * chance.random())
        self._mend()
        world.mend()
        await world.rest()

    async def _begin(self) -> None:
        """An admin creates the classes, and strangers have data."""
        for name in self._classes:
            policy = "Retain" if name == "kept-by-policy" else "Delete"
            self._world.add_class(name, policy=policy, **_CLASSES[name])
        for path in (("stranger",), ("lab", "stranger")):
            self._world.plant(path)

    def _mend(self) -> None:
        """End what a kind of crowd has disturbed by itself."""

    def _claim(self, site: Site) -> None:
        key = self._chance.choices(KEYS, (6, 3, 3, 1))[0]
        if site.cluster.claim(key) is None:
            self._world.claim(key, self._chance.choice(self._classes), site=site, annotations=self._wish())

    def _wish(self) -> dict[str, str]:
        """Sometimes ask for an archive, of any owner."""
        there = _archives(self._world)
        wanted = bool(there) and self._chance.random() < 0.4
        return {names.RESTORE: self._chance.choice(there)} if wanted else {}

    def _delete(self, site: Site) -> None:
        claims = [claim for claim in site.cluster.claims() if not claim.metadata.deletion_timestamp]
        if not claims:
            return
        claim = self._chance.choice(claims)
        if claim.status.phase == "Bound" and self._chance.random() < 0.2:
            site.controllers.in_use.add(claim.key)  # by a pod, for a while
            asyncio.get_running_loop().call_later(self._chance.uniform(0.0, 9.0), site.controllers.release, claim.key)
        self._world.delete_claim(claim.key, site=site)
        if self._chance.random() < 0.5:
            self._claim(site)

    def _write(self, site: Site) -> None:
        claims = [claim for claim in site.cluster.claims() if claim.status.phase == "Bound"]
        if claims:
            self._files += 1
            self._world.write(self._chance.choice(claims), f"file-{self._files}")

    def _swap(self, _site: Site) -> None:
        """A tenant replaces a directory, or one above it, by a symlink for a moment."""
        homes = self._world.judge.homes
        if homes:
            home = self._chance.choice(homes)
            self._world.swap(home.location, home.path[: self._chance.randint(1, len(home.path))])
            asyncio.get_running_loop().call_later(self._chance.uniform(0.0, 2.0), self._world.swap_back)

    def _remove(self, site: Site) -> None:
        """An admin deletes a volume."""
        volumes = site.cluster.volumes()
        if volumes and self._chance.random() < 0.5:
            name = self._chance.choice(volumes).name
            self._world.note(f"admin deletes volume {name}")
            site.cluster.delete("volumes", name)

    def _backup(self, site: Site) -> None:
        """An admin saves all volumes of a cluster."""
        self._saved += [applicable(site, volume.name) for volume in site.cluster.volumes() if volume.is_by(PROVISIONER)]

    def _apply(self, site: Site) -> None:
        """An admin applies a volume from a backup, of this cluster or of another one."""
        lost = [body for body in self._saved if site.cluster.volume(body["metadata"]["name"]) is None]
        if lost:
            body = self._chance.choice(lost)
            self._world.note(f"admin applies volume {body['metadata']['name']} in {site.name}")
            site.cluster.create("volumes", copy.deepcopy(body))

    def _namespace(self, site: Site) -> None:
        """A namespace without claims is deleted, and another team creates one of that name."""
        name = self._chance.choice(NAMESPACES)
        if not any(claim.metadata.namespace == name for claim in site.cluster.claims()):
            self._world.create_namespace_again(name, site=site)

    def _offer(self, site: Site) -> None:
        """An admin creates a volume of another kind for a pending claim."""
        claim = site.cluster.claim(self._chance.choice(KEYS))
        if claim is None or claim.status.phase != "Pending" or self._chance.random() < 0.5:
            return
        self._files += 1
        reference = {"namespace": claim.metadata.namespace, "name": claim.metadata.name}
        spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "claimRef": reference}
        self._world.note(f"admin offers a volume to {claim.key}")
        site.cluster.create("volumes", {"metadata": {"name": f"offer-{self._files}"}, "spec": spec})

    def _mishap(self, site: Site) -> None:
        living = [process for process in site.processes if not process.dead]
        if living and self._chance.random() < 0.3:
            self._world.note("a process is killed")
            self._chance.choice(living).die()
        elif self._chance.random() < 0.3:
            site.cluster.expire()
        elif self._chance.random() < 0.5:
            self._world.note("the clocks are set")
            self._world.clock_error_s = self._chance.choice((-86400.0, -60.0, 0.0, 60.0, 86400.0))

    def _lead(self, site: Site) -> None:
        """Start another process that believes it leads, or end one if there are too many."""
        living = [process for process in site.processes if not process.dead]
        if len(living) < self._leaders:
            self._world.start(site)
        elif len(living) > 1:
            self._chance.choice(living).die()


def crowd(leaders: int = 1) -> Script:
    """Random deeds."""

    async def script(world: World) -> None:
        await Crowd(world, leaders=leaders).act()

    return script

"""Hand-written PersistentVolumes on exports over NFS: the daemon writes and deletes nothing, wherever they point."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import pytest

from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Ownership
from testbed.api import Object
from testbed.ganesha import Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import HOST, DirectExport
from tests.support.disk import Listing, listing

pytestmark = pytest.mark.timeout(180)

FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
DIRECTORY = "nfs-provisioner/directory"
NOBODY = "00000000-0000-4000-8000-00000000000b"


def changes(before: Sequence[Listing], after: Sequence[Listing]) -> set[str]:
    """Return the paths at which listings differ."""
    return {path for old, new in zip(before, after, strict=True) for path, _ in old.items() ^ new.items()}


def forged(direct: DirectStorage, victim: Object, *, path: str, directory: str, port: int, server: str = HOST) -> str:
    """Create a volume with all fields of the victim except its directory; return its name."""
    name = f"forged-{secrets.token_hex(4)}"
    annotations = victim["metadata"]["annotations"] | {DIRECTORY: directory}
    spec = {
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "1Mi"},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": victim["spec"]["storageClassName"],
        "mountOptions": [option for option in victim["spec"]["mountOptions"] if not option.startswith("port=")]
        + [f"port={port}"],
        "nfs": {"server": server, "path": path},
        "claimRef": {"namespace": direct.namespace, "name": "nobody", "uid": NOBODY},
    }
    metadata = {"name": name, "annotations": annotations, "finalizers": [FINALIZER]}
    direct.make_volume({"metadata": metadata, "spec": spec})
    return name


@pytest.mark.parametrize("version", [pytest.param("3", marks=pytest.mark.thorough), "4.2"])
def test_forged_volumes_touch_nothing(direct: DirectStorage, serve: MakeServer, version: str) -> None:
    """Forged volumes on another export, server or directory change no byte, and each gets an event."""
    ours, theirs, tenants = (f"/{name}-{version}" for name in ("ours", "theirs", "tenants"))
    server, other = serve(ours, theirs, tenants), serve(f"/other-{version}")
    export = DirectExport(server, ours, version)
    direct.claim(direct.class_on(export))
    victim = direct.bound()
    target = export.directory(victim).name
    precious(DirectExport(server, theirs), "precious")
    precious(DirectExport(other, f"/other-{version}"), "precious")
    precious(export, f"{target}/precious", "aside/precious")
    copied_ledger(export, victim, below="aside")
    places = [server.exports[0].directory, server.exports[1].directory, other.exports[0].directory]
    before = [listing(place) for place in places]
    names = [
        forged(direct, victim, path=path, directory=directory, port=port)
        for path, directory, port in (
            (f"{theirs}/precious", "precious", server.port),
            (f"{theirs}/precious/inside", "inside", server.port),
            (f"{theirs}/precious/inside", "precious/inside", server.port),
            (f"/other-{version}/precious", "precious", other.port),
            (f"{ours}/{target}", target, server.port),
            (f"{ours}/{target}/precious", "precious", server.port),
            (f"{ours}/{target}/precious", f"{target}/precious", server.port),
            (f"{ours}/aside/precious", "precious", server.port),
            (f"{ours}/aside/precious", "aside/precious", server.port),
            (f"{ours}/.provisioner/volumes", "volumes", server.port),
            (f"{ours}/.provisioner/trash", ".provisioner/trash", server.port),
            (f"{ours}/./{target}", target, server.port),
            (f"{ours}/x/../{target}", f"x/../{target}", server.port),
            (f"{ours}/..{ours}/{target}", target, server.port),
            (f"{ours}", ours[1:], server.port),
            (f"{theirs}", theirs, server.port),
        )
    ]
    for name in names:
        assert direct.volume_event(name, timeout_s=60)["message"]
    # The daemon creates and removes a mark in its ledger to recognize a copy: that directory's time changes.
    own_ledger = str(places[0] / ".provisioner")
    assert changes(before, [listing(place) for place in places]) <= {own_ledger}
    assert all(direct.has_volume(name) for name in names)
    assert not (server.exports[1].directory / ".provisioner").exists()
    assert not list(Path(export.root).glob(f"{target}/**/.provisioner"))
    direct.remove_volumes()  # those that lie in the directory delay its deletion
    direct.delete_claim()
    direct.volume_gone(victim["metadata"]["name"])
    assert not export.directory(victim).exists()


def precious(export: DirectExport, *paths: str) -> None:
    """Create directories with something inside."""

    async def make(tree: DirectTree) -> None:
        for path in paths:
            await tree.make_directory((*path.split("/"), "inside"), Ownership())

    export.tenant(make)


def copied_ledger(export: DirectExport, victim: Object, *, below: str) -> None:
    """Write a copy of the ledger into a tenant's directory, with the same record as the real one."""

    async def copy(tree: DirectTree) -> None:
        for name in ("pending", "volumes", "trash", "archives"):
            await tree.make_directory((below, ".provisioner", name), Ownership())
        await tree.make_symlink((below, ".provisioner", "export"), await tree.read_symlink((".provisioner", "export")))
        volume = victim["metadata"]["name"]
        record = await tree.read_symlink((".provisioner", "volumes", volume))
        await tree.make_symlink((below, ".provisioner", "volumes", volume), record)

    export.tenant(copy)


def test_an_export_that_a_volume_names_first_works_for_a_class(direct: DirectStorage, serve: MakeServer) -> None:
    """An export that only a forged volume names gets no ledger, until a class names it too."""
    server = serve("/known", "/unknown", versions=(4,))
    known, unknown = DirectExport(server, "/known"), DirectExport(server, "/unknown")
    direct.claim(direct.class_on(known), "victim")
    victim = direct.bound("victim")
    name = forged(direct, victim, path="/unknown/x", directory="x", port=server.port)
    assert "no provisioner has created a volume on it" in direct.volume_event(name)["message"]
    assert os.listdir(unknown.root) == []
    direct.claim(direct.class_on(unknown))
    volume = direct.bound(timeout_s=20)
    assert unknown.directory(volume).is_dir()


def test_a_forged_volume_with_unusable_options(direct: DirectStorage, serve: MakeServer) -> None:
    """A forged volume that names an export with unusable options does not keep a class from using it."""
    server: Ganesha = serve("/spoilt-known", "/spoilt", versions=(4,))
    direct.claim(direct.class_on(DirectExport(server, "/spoilt-known")), "victim")
    victim = direct.bound("victim")
    victim["spec"]["mountOptions"] = ["nfsvers=3"]
    direct.volume_event(forged(direct, victim, path="/spoilt/x", directory="x", port=server.port))
    direct.claim(direct.class_on(DirectExport(server, "/spoilt")))
    direct.bound(timeout_s=20)


def test_a_forged_volume_on_an_impossible_server(direct: DirectStorage, serve: MakeServer) -> None:
    """Volumes whose server no resolver takes, or does not find, delay no claim."""
    server: Ganesha = serve("/named", versions=(4,))
    class_name = direct.class_on(DirectExport(server, "/named"))
    direct.claim(class_name, "victim")
    victim = direct.bound("victim")
    for name in ("nas..example.com", f"{'x' * 64}.example.com", "a\u00a0b", "nas.invalid"):
        forged(direct, victim, path="/x/y", directory="y", port=server.port, server=name)
    direct.claim(class_name)
    direct.bound(timeout_s=20)
    direct.delete_claim()

"""What keeps a claim waiting is said in an event, in words that tell an admin what to do; and it ends by itself."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Ownership
from testbed.ganesha import Export, Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.integration.daemon.direct.exported import HOST, DirectExport

pytestmark = pytest.mark.timeout(180)

TOLD_S = 10.0
RECOVERY_S = 15.0
BINDING_S = 10.0
"""What the cluster takes to bind a claim whose volume is there, on a busy machine."""


def replaced(server: Ganesha, **fields: Any) -> Ganesha:
    """Stop a server and give one in its place: same directories, same ports, other settings; not yet started."""
    exports = [Export(export.directory, export.path, **fields) for export in server.exports]
    server.stop()
    successor = Ganesha(exports, versions=server.versions)
    successor.port, successor.mount_port = server.port, server.mount_port
    return successor


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """A server that is as it should be."""
    return serve("/words", "/words-krb5")


def test_each_cause_in_words(direct: DirectStorage, server: Ganesha, serve: MakeServer) -> None:
    """Within 10 s a claim's event names the export, what is wrong and what to change, for every cause at once."""
    new_only, down = serve("/new-only", versions=(4,)), serve("/down", start=False)
    squashed, read_only = serve("/squashed", squash="Root_Squash"), serve("/read-only", access="RO")
    causes: dict[str, tuple[DirectExport, tuple[str, ...]]] = {
        "refused": (DirectExport(down, "/down"), (f"refuses connections on port {down.port}", "start")),
        "nowhere": (DirectExport(server, "/nowhere", "4.1"), ("does not export /nowhere",)),
        "nowhere-3": (DirectExport(server, "/nowhere-3", "3"), ("/nowhere-3", "export")),
        "squashed": (DirectExport(squashed, "/squashed"), ("denies permission", "no_root_squash")),
        "read-only": (DirectExport(read_only, "/read-only"), ("is read-only", "rw in exports(5)")),
        "version": (DirectExport(new_only, "/new-only", "3"), ("version 3", "nfsvers=")),
    }
    for name, (export, _) in causes.items():
        direct.claim(direct.class_on(export), name)
    kerberos = DirectExport(server, "/words-krb5")
    direct.claim(direct.class_on(kerberos, options=["sec=krb5p"]), "kerberos")
    causes["kerberos"] = kerberos, ("Kerberos", "--export")
    unnamed = {"server": "no-such-server.invalid", "share": "/x"}
    direct.claim(direct.storage_class(direct.daemon.provisioner_name, unnamed), "name")
    for name, (export, words) in causes.items():
        message = direct.failure(name, export.location, *words, timeout_s=TOLD_S)
        assert not [word for word in ("NFS4ERR", "Errno", "MNT3ERR") if word in message]
    direct.failure("name", "no-such-server.invalid:/x", "the name no-such-server.invalid is not found")


def test_an_export_for_low_ports(direct: DirectStorage, serve: MakeServer) -> None:
    """A daemon that may use source ports below 1024 is served by an export that asks for them."""
    direct.claim(direct.class_on(DirectExport(serve("/secure", privileged_port=True), "/secure")))
    direct.bound()


@pytest.mark.parametrize("version", ["3", "4.1", None])
def test_recovery_from_read_only(direct: DirectStorage, serve: MakeServer, version: str | None) -> None:
    """A claim whose export was read-only is served within 15 s of its server's return as read-write."""
    path = f"/healed-{version or 'any'}"
    server = serve(path, access="RO")
    export = DirectExport(server, path, version)
    direct.claim(direct.class_on(export))
    direct.failure("data", export.location, "read-only", timeout_s=TOLD_S)
    with replaced(server, access="RW"):
        direct.bound(timeout_s=RECOVERY_S + BINDING_S)


def test_recovery_from_a_squashed_root(direct: DirectStorage, serve: MakeServer) -> None:
    """A claim on an export that squashed root is served within 15 s of its export with no_root_squash."""
    server = serve("/unsquashed", squash="Root_Squash")
    export = DirectExport(server, "/unsquashed")
    direct.claim(direct.class_on(export))
    direct.failure("data", export.location, "no_root_squash", timeout_s=TOLD_S)
    with replaced(server, squash="No_Root_Squash"):
        direct.bound(timeout_s=RECOVERY_S + BINDING_S)


def test_recovery_of_a_server_that_was_not_there(direct: DirectStorage, serve: MakeServer) -> None:
    """Claims and a release that met a refused connection go on within 15 s of the server's start."""
    server = serve("/late", start=False)
    export = DirectExport(server, "/late")
    class_name = direct.class_on(export)
    direct.claim(class_name)
    direct.failure("data", export.location, "refuses connections", timeout_s=TOLD_S)
    server.start()
    volume = direct.bound(timeout_s=RECOVERY_S + BINDING_S)
    server.kill()
    direct.delete_claim()
    name = volume["metadata"]["name"]
    event = direct.volume_event(name, timeout_s=TOLD_S + BINDING_S)
    assert f"{export.location} port {server.port}" in event["message"]
    assert "refuses connections" in event["message"]
    assert export.directory(volume).is_dir()
    server.start()
    direct.volume_gone(name, timeout_s=RECOVERY_S + BINDING_S)
    assert not export.directory(volume).exists()


def test_a_class_that_is_corrected_works(direct: DirectStorage, serve: MakeServer) -> None:
    """A class made anew with a version that the server has is served, though the first one asked for another."""
    server = serve("/corrected", versions=(4,))
    wrong = DirectExport(server, "/corrected", "3")
    direct.claim(direct.class_on(wrong), "wrong")
    direct.failure("wrong", wrong.location, "version 3", timeout_s=TOLD_S)
    direct.claim(direct.class_on(DirectExport(server, "/corrected", "4.1")), "right")
    direct.bound("right", timeout_s=RECOVERY_S + BINDING_S)


def test_an_export_whose_directory_comes_later(direct: DirectStorage, server: Ganesha) -> None:
    """A share below an export that is not there yet is told as missing, and served once somebody has made it."""
    below = DirectExport(server, "/words")
    class_name = direct.storage_class(
        direct.daemon.provisioner_name,
        below.parameters | {"share": "/words/later"},
        mountOptions=[*below.mount_options, "nfsvers=4.1"],
    )
    direct.claim(class_name)
    direct.failure("data", f"{HOST}:/words/later", "does not export /words/later", timeout_s=TOLD_S)

    async def make(tree: DirectTree) -> None:
        await tree.make_directory(("later",), Ownership())

    below.tenant(make)
    direct.bound(timeout_s=RECOVERY_S + BINDING_S)

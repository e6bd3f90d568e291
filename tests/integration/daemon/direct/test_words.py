"""Events of claims that wait for their export name the cause and the remedy, and the claims recover by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Ownership
from testbed.ganesha import Export, Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import HOST, DirectExport

pytestmark = pytest.mark.timeout(180)

TOLD_S = 10.0
RECOVERY_S = 15.0
BINDING_S = 10.0
"""What the cluster needs to bind a claim whose volume exists, on a busy machine."""


def replaced(server: Ganesha, **fields: Any) -> Ganesha:
    """Stop a server and return its successor, not yet started: same directories and ports, other settings."""
    exports = [Export(export.directory, export.path, **fields) for export in server.exports]
    server.stop()
    successor = Ganesha(exports, versions=server.versions)
    successor.port, successor.mount_port = server.port, server.mount_port
    return successor


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """A server without problems."""
    return serve("/words", "/words-krb5")


def test_each_cause_has_its_message(direct: DirectStorage, server: Ganesha, serve: MakeServer) -> None:
    """Within 10 s a claim's event names the export, the cause and what to change, for every cause."""
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
    """A daemon that can use source ports below 1024 works with an export that requires them."""
    direct.claim(direct.class_on(DirectExport(serve("/secure", privileged_port=True), "/secure")))
    direct.bound()


@pytest.mark.parametrize("version", ["3", pytest.param("4.1", marks=pytest.mark.thorough), None])
def test_recovery_from_read_only(direct: DirectStorage, serve: MakeServer, version: str | None) -> None:
    """A claim on a read-only export is provisioned within 15 s after the export becomes read-write."""
    path = f"/healed-{version or 'any'}"
    server = serve(path, access="RO")
    export = DirectExport(server, path, version)
    direct.claim(direct.class_on(export))
    direct.failure("data", export.location, "read-only", timeout_s=TOLD_S)
    with replaced(server, access="RW"):
        direct.bound(timeout_s=RECOVERY_S + BINDING_S)


def test_recovery_from_a_squashed_root(direct: DirectStorage, serve: MakeServer) -> None:
    """A claim on an export that squashes root is provisioned within 15 s after no_root_squash is set."""
    server = serve("/unsquashed", squash="Root_Squash")
    export = DirectExport(server, "/unsquashed")
    direct.claim(direct.class_on(export))
    direct.failure("data", export.location, "no_root_squash", timeout_s=TOLD_S)
    with replaced(server, squash="No_Root_Squash"):
        direct.bound(timeout_s=RECOVERY_S + BINDING_S)


def test_recovery_of_a_server_that_was_down(direct: DirectStorage, serve: MakeServer) -> None:
    """A claim and a reclaim that met a refused connection complete within 15 s after the server's start."""
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


def test_a_corrected_class_works(direct: DirectStorage, serve: MakeServer) -> None:
    """A class with a version that the server has works, although an earlier class asked for another."""
    server = serve("/corrected", versions=(4,))
    wrong = DirectExport(server, "/corrected", "3")
    direct.claim(direct.class_on(wrong), "wrong")
    direct.failure("wrong", wrong.location, "version 3", timeout_s=TOLD_S)
    direct.claim(direct.class_on(DirectExport(server, "/corrected", "4.1")), "right")
    direct.bound("right", timeout_s=RECOVERY_S + BINDING_S)


def test_an_export_whose_directory_appears_later(direct: DirectStorage, server: Ganesha) -> None:
    """A share whose directory does not exist is reported as missing, and works once the directory exists."""
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

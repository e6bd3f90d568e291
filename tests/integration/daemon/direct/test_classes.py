"""A class with a server and a share works without an --export and without a mount."""

from __future__ import annotations

import pytest

from provisioner.nfs.client.tree import DirectTree
from provisioner.ports.tree import Ownership
from testbed.api import Object
from testbed.ganesha import Ganesha
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import DirectExport
from tests.support.disk import disk
from tests.support.storage import CLASSES

pytestmark = pytest.mark.timeout(120)

NFS_VERSIONS = ("3", "4.0", "4.1", "4.2", "4", None)
EVERY_CHANGE = ("3", "4.2", None)
"""Tested on every change; `make test-all` has the others too."""


def path_of(version: str | None) -> str:
    """Return the export of a version: one export has one connection, so versions need exports of their own."""
    return f"/classes-{version or 'any'}"


@pytest.fixture(scope="module")
def server(serve: MakeServer) -> Ganesha:
    """One server with an export per version of NFS."""
    return serve(*map(path_of, NFS_VERSIONS))


@pytest.fixture(
    params=[
        pytest.param(version, id=version or "any", marks=[] if version in EVERY_CHANGE else [pytest.mark.thorough])
        for version in NFS_VERSIONS
    ]
)
def export(server: Ganesha, request: pytest.FixtureRequest) -> DirectExport:
    """The export whose classes name one version."""
    return DirectExport(server, path_of(request.param), request.param)


def name_of(volume: Object) -> str:
    """Return a volume's name."""
    name: str = volume["metadata"]["name"]
    return name


def fill(export: DirectExport, volume: Object) -> None:
    """Write directories and a symlink into a volume, as its user does."""
    directory = volume["spec"]["nfs"]["path"].removeprefix(f"{export.path}/")

    async def write(tree: DirectTree) -> None:
        await tree.make_directory((directory, "data", "deep"), Ownership(mode=0o700))
        await tree.make_symlink((directory, "data", "link"), "text")

    export.tenant(write)


def test_every_rule_works_without_an_export_flag(direct: DirectStorage, export: DirectExport) -> None:
    """Claims bind, and delete, archive, retain and policy Retain treat a volume with data as they promise."""
    policies: dict[str, dict[str, str]] = {
        "delete": {},
        "archive": {},
        "retain": {},
        "kept": {"reclaimPolicy": "Retain"},
    }
    for name, fields in policies.items():
        rule = "delete" if name == "kept" else name
        direct.claim(
            direct.class_on(export, rule, parameters={"mode": "0750", "uid": "1234", "gid": "2345"}, **fields), name
        )
    volumes = {name: direct.bound(name) for name in policies}
    for volume in volumes.values():
        assert volume["spec"]["mountOptions"] == export.mount_options
        found = export.directory(volume).stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o750, 1234, 2345)
        fill(export, volume)
    for name in policies:
        direct.delete_claim(name)
    for name in ("delete", "archive", "retain"):
        direct.volume_gone(name_of(volumes[name]))
    direct.purged(export)
    retained = {name_of(volumes["retain"]), name_of(volumes["kept"])}
    direct.eventually(lambda: disk(export.root).records == retained, "the records of the others are deleted")
    seen = disk(export.root)
    kept = {export.directory(volumes[name]).name for name in ("retain", "kept")}
    assert seen.directories == kept
    assert {export.root / name / "data/deep" for name in kept} <= set(export.root.glob("*/data/deep"))
    (archive,) = seen.archives
    assert (export.root / archive / "data" / "link").is_symlink()
    assert archive.startswith(f"archived-{export.directory(volumes['archive']).name}-")
    assert direct.get_volume(name_of(volumes["kept"]))["status"]["phase"] in ("Bound", "Released")
    assert not seen.pending


def test_volumes_outlive_their_class(direct: DirectStorage, server: Ganesha) -> None:
    """With the class deleted and the daemon restarted, a volume is reclaimed by its own annotations."""
    exports = [DirectExport(server, path_of(version), version) for version in ("3", "4.1", None)]
    volumes: list[tuple[DirectExport, Object]] = []
    classes = []
    for number, export in enumerate(exports):
        classes.append(direct.class_on(export))
        direct.claim(classes[-1], f"data-{number}")
    for number, export in enumerate(exports):
        volumes.append((export, direct.bound(f"data-{number}")))
    for name in classes:
        direct.api.delete(f"{CLASSES}/{name}")
    direct.daemon.restart()
    for number, (export, volume) in enumerate(volumes):
        fill(export, volume)
        direct.delete_claim(f"data-{number}")
    for export, volume in volumes:
        direct.volume_gone(name_of(volume))
        assert not export.directory(volume).exists()
        direct.unrecorded(export, name_of(volume))
        direct.purged(export)


def test_impossible_server_names(direct: DirectStorage, server: Ganesha) -> None:
    """A class whose server cannot be a name or an address is refused with a reason, and other classes work."""
    good = DirectExport(server, path_of(None))
    for number, name in enumerate(("nas..example.com", f"{'x' * 64}.example.com", "b\u00fccher.example", "nas:")):
        direct.claim(direct.class_on(good, parameters={"server": name}), f"refused-{number}")
        assert "not a" in direct.failure(f"refused-{number}", "server", "IP")
    direct.claim(direct.class_on(good), "served")
    direct.bound("served")

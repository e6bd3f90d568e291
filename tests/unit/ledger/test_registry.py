"""ledger.registry: which export a volume lies on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from provisioner.core import mount_options
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location, RelPath
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import NfsSource, Volume
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, SetRoutes
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import Cause, ExportError
from tests.support import samples
from tests.support.fakes.tree import MemoryTree

MOUNTED, INNER = Location("nas", "/exports"), Location("nas", "/exports/team")
DIRECT, DEEPER = Location("nas2", "/"), Location("nas2", "/srv/k8s")


def exports() -> ExportRegistry:
    """Return a registry with two mounted exports, one in the other."""
    servers = ConnectionPool(Credentials(uid=0, gid=0), timeout_s=1.0)

    def reach(where: Location, options: MountOptions) -> tuple[Export, SetRoutes]:
        name = f"{where} port {options.port}"
        tree = DirectTree(where, servers, version=None, port=options.port, mount_port=None, observe=lambda *_: None)
        return Export(where, MemoryTree(), name=name), tree.set_routes

    mounted = {where: Export(where, MemoryTree()) for where in (MOUNTED, INNER)}
    return ExportRegistry(mounted, None, reach)


def located(served: ExportRegistry, server: str, path: str, *options: str) -> tuple[str, RelPath] | None:
    """Return the name of the export that another provisioner's volume lies on, and its path below."""
    found = served.locate(samples.peers_volume(nfs=NfsSource(server, path), mount_options=options))
    return None if found is None else (found[0].name, found[1])


def test_a_peers_volume_on_a_mounted_export() -> None:
    """A volume of another provisioner lies on the innermost of the mounted exports that contain it."""
    served = exports()
    assert located(served, "NAS", "/exports//ns/data/") == ("nas:/exports", ("ns", "data"))
    assert located(served, "nas", "/exports/team/data") == ("nas:/exports/team", ("data",))
    assert located(served, "nas", "/exports") == ("nas:/exports", ())
    assert located(served, "nas", "/elsewhere/data") is None
    assert located(served, "nas2", "/exports/data") is None


def test_a_peers_volume_on_a_direct_export() -> None:
    """A volume of another provisioner lies on the innermost export that a class names at its port."""
    served = exports()
    served.get(DIRECT, MountOptions())
    served.get(DEEPER, MountOptions(port=2050))
    served.get(DEEPER, MountOptions(port=2051))
    assert located(served, "nas2", "/srv/k8s/data") == ("nas2:/ port None", ("srv", "k8s", "data"))
    assert located(served, "nas2", "/srv/k8s/data", "port=2049") == ("nas2:/ port None", ("srv", "k8s", "data"))
    assert located(served, "nas2", "/srv/k8s/data", "hard,port=2051") == ("nas2:/srv/k8s port 2051", ("data",))
    assert located(served, "nas2", "/srv/k8s/data", "port=2052") is None
    assert located(served, "nas2", "/srv/k8s/data", "port=many") is None


def test_the_export_of_a_snapshot_class() -> None:
    """An export that a class of snapshots names is that of the StorageClasses, at their port, or a new one."""
    served = exports()
    assert served.at(MOUNTED) is served.get(MOUNTED, MountOptions())
    other = served.get(DIRECT, MountOptions())
    known = served.get(DEEPER, MountOptions(port=2050))
    assert served.at(DEEPER) is known
    assert served.at(DIRECT) is other
    assert served.at(Location("nas3", "/srv")).name == "nas3:/srv port None"


def test_an_export_that_only_a_volume_names() -> None:
    """An export that only a volume's annotation names can be forged: another provisioner's volume does not use it."""
    served = exports()
    ours = samples.volume(nfs=NfsSource("nas3", "/srv/data"), annotations={"nfs-provisioner/directory": "data"})
    assert served.locate(ours) is not None
    assert located(served, "nas3", "/srv/data") is None
    served.get(Location("nas3", "/srv"), mount_options.parse([]))
    assert located(served, "nas3", "/srv/data") == ("nas3:/srv port None", ("data",))


@pytest.mark.parametrize("path", ["/exports/team/data", "/exports/ns/data"])
def test_between_mounted_and_direct(path: str) -> None:
    """Of a mounted export and one that a class names, a volume of another provisioner lies on the inner one."""
    served = exports()
    served.get(Location("nas", "/exports/ns"), MountOptions())
    assert located(served, "nas", path) == (
        ("nas:/exports/team", ("data",)) if "team" in path else ("nas:/exports/ns port None", ("data",))
    )


@pytest.mark.parametrize(
    ("option", "cause"),
    [
        ("sec=krb5p", Cause.KERBEROS),
        ("SEC=KRB5", Cause.KERBEROS),
        ("xprtsec=mtls", Cause.TRANSPORT),
        ("XPRTSEC=TLS", Cause.TRANSPORT),
        ("tls", Cause.TRANSPORT),
        ("proto=rdma", Cause.TRANSPORT),
        ("udp", Cause.TRANSPORT),
    ],
)
def test_what_we_do_not_speak(option: str, cause: Cause) -> None:
    """A class or a volume with an unsupported option is refused with the option's name and what to do."""
    options = mount_options.parse([option])
    served = exports()
    with pytest.raises(ExportError) as caught:
        served.get(DIRECT, options)
    assert caught.value.cause is cause
    assert "--export nas2:/=DIRECTORY" in caught.value.advice
    assert served.get(MOUNTED, options).name == "nas:/exports"
    where = NfsSource("nas2", "/srv/data")
    ours = samples.volume(nfs=where, annotations={"nfs-provisioner/directory": "data"}, mount_options=(option,))
    assert served.locate(ours) is None
    assert caught.value.cause.value in served.obstacle(ours)
    served.get(DIRECT, MountOptions())
    if cause is Cause.KERBEROS or "tls" in option.lower():
        assert located(served, "nas2", "/srv/data", option) is None


def test_nothing_keeps_us_from_a_server() -> None:
    """A volume with usual options meets no obstacle, and one with a wrong option has it named."""
    served, where = exports(), NfsSource("nas2", "/srv/data")
    assert served.obstacle(samples.peers_volume(nfs=where, mount_options=("hard",))) == ""
    assert "port=x" in served.obstacle(samples.peers_volume(nfs=where, mount_options=("port=x",)))


def test_two_names_of_one_export() -> None:
    """Once two objects are known to be one export, one stands for it: for classes, for volumes and in the list."""
    served = exports()
    by_name, by_address = served.get(DIRECT, MountOptions()), served.get(Location("10.0.0.5", "/"), MountOptions())
    assert by_name is not by_address
    served.unite(by_address, by_name)
    assert served.get(Location("10.0.0.5", "/"), MountOptions()) is by_name
    assert served.primary(by_address) is by_name
    assert list(served).count(by_name) == 1
    assert by_address not in list(served)
    assert served.places.same(by_name.location) == (by_name.location, by_address.location)
    ours = samples.volume(nfs=NfsSource("10.0.0.5", "/data"), annotations={"nfs-provisioner/directory": "data"})
    assert served.locate(ours) == (by_name, ("data",))
    peers = samples.peers_volume(nfs=NfsSource("10.0.0.5", "/team/data"))
    assert served.locate(peers) == (by_name, ("team", "data"))
    served.forget(by_name)
    assert served.get(Location("10.0.0.5", "/"), MountOptions()) not in (by_name, by_address)
    assert served.places.same(by_name.location) == (by_name.location,)


class Reached:
    """What a registry asks of the NFS client: the routes of each export, in the order in which they were set."""

    def __init__(self, refusal: str = "") -> None:
        self.routes: list[Sequence[MountOptions]] = []
        self._refusal = refusal
        self.registry = ExportRegistry({}, None, self._reach)

    def _reach(self, where: Location, _options: MountOptions) -> tuple[Export, SetRoutes]:
        if self._refusal:
            raise InvalidSettings(self._refusal)
        return Export(where, MemoryTree()), self.routes.append


def volume_at(server: str, path: str, *options: str, directory: str = "data") -> Volume:
    """Return a volume of the provisioner itself."""
    annotations = {"nfs-provisioner/directory": directory} if directory else {}
    return samples.volume(nfs=NfsSource(server, path), annotations=annotations, mount_options=options)


V3_OPTIONS, V4_OPTIONS = mount_options.parse(["nfsvers=3"]), mount_options.parse(["nfsvers=4.1"])


def test_the_options_of_a_class_replace_those_of_a_volume() -> None:
    """Mount options that only a volume names are not tried any more once a class names its own."""
    reached = Reached()
    reached.registry.locate(volume_at("nas", "/exports/data", "nfsvers=3"))
    assert reached.routes == []
    reached.registry.get(MOUNTED, V4_OPTIONS)
    assert reached.routes == [[V4_OPTIONS]]


async def test_the_options_of_a_second_class() -> None:
    """The latest class's mount options are tried first, until the export is open: then its working route stays."""
    reached = Reached()
    reached.registry.get(MOUNTED, V3_OPTIONS)
    reached.registry.get(MOUNTED, V3_OPTIONS)
    assert reached.routes == []
    export = reached.registry.get(MOUNTED, V4_OPTIONS)
    assert reached.routes == [[V4_OPTIONS, V3_OPTIONS]]
    await export.open()
    reached.registry.get(MOUNTED, mount_options.parse(["nfsvers=4.2"]))
    assert len(reached.routes) == 1


def test_options_that_the_client_cannot_use() -> None:
    """An export whose mount options the NFS client refuses is an error with the client's words, and is not kept."""
    reached = Reached("nfsvers=2 is not supported: use 3, 4, 4.1 or 4.2")
    with pytest.raises(ExportError) as caught:
        reached.registry.get(MOUNTED, MountOptions())
    assert caught.value.cause is Cause.VERSION
    assert "nfsvers=2 is not supported" in caught.value.advice
    assert list(reached.registry) == []


def test_a_volume_that_is_not_of_nfs() -> None:
    """A volume without an NFS source lies on no export and meets no obstacle."""
    served = exports()
    assert served.locate(samples.csi_volume({})) is None
    assert served.obstacle(samples.csi_volume({})) == ""


@pytest.mark.parametrize("directory", ["", "elsewhere"], ids=["removed", "changed"])
def test_a_volume_whose_annotation_is_wrong(directory: str) -> None:
    """A volume whose directory annotation does not fit its path lies on an export only if a class names that one."""
    served = exports()
    volume = volume_at("nas2", "/srv/k8s/data", directory=directory)
    assert served.locate(volume) is None
    named = served.get(DEEPER, MountOptions())
    assert served.locate(volume) == (named, ("data",))

"""settings: parsing and validation of flags and environment variables."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from provisioner import settings as setting
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseTimes
from provisioner.core.locations import Location
from provisioner.settings import ExportSetting
from tests.support.provisioner_names import NAMES, NO_NAMES

NAS = Location("nas", "/exports")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""DNS-1123 subdomain, which the name of a Lease must be (Kubernetes, "Object Names and IDs")."""


@pytest.mark.parametrize("name", NAMES)
def test_provisioner_name(name: str) -> None:
    """Every name that a class can have, including those of nfs-subdir, is accepted unchanged."""
    assert setting.provisioner_name(name) == name


@pytest.mark.parametrize("name", ["kubernetes.io/nfs", *NO_NAMES])
def test_unusable_provisioner_name(name: str) -> None:
    """A name that no class can use, or that is reserved, is refused; the message names the flag."""
    with pytest.raises(InvalidSettings, match="--provisioner-name"):
        setting.provisioner_name(name)


@hypothesis_settings(deadline=None)
@given(st.from_regex(r"([A-Za-z0-9.-]{1,20}/)?[A-Za-z0-9._-]{1,20}", fullmatch=True))
@example("d" * 189 + ".example/" + "n" * 63)
@example(".".join(["d" * 63] * 3) + "/" + "n" * 62 + "N")
def test_every_accepted_name_has_a_lease(name: str) -> None:
    """Every accepted name yields a Lease name that the API server accepts."""
    try:
        accepted = setting.provisioner_name(name)
    except InvalidSettings:
        return
    lease_name = sample(provisioner=accepted).lease_name
    assert SUBDOMAIN.fullmatch(lease_name), lease_name
    assert len(lease_name) <= 253


def sample(*, provisioner: str) -> setting.Settings:
    return setting.Settings(
        provisioner=provisioner,
        exports=(),
        default_export=None,
        require_mount=False,
        nfs_uid=0,
        nfs_gid=0,
        nfs_timeout_s=10.0,
        kubeconfig=None,
        leader_election=True,
        lease_namespace="default",
        lease_times=LeaseTimes(),
        listen_host="0.0.0.0",
        listen_port=8080,
        workers=64,
        volume_metrics=False,
    )


def test_lease_name() -> None:
    """The Lease is named after the provisioner, as sig-storage-lib names it."""
    assert sample(provisioner="example.com/nfs").lease_name == "example.com-nfs"


@pytest.mark.parametrize(
    ("name", "lease_name"),
    [
        ("nfs", "nfs"),
        ("example.com/NFS", "example.com-nfs"),
        ("k8s-sigs.io/nfs_subdir", "k8s-sigs-io-nfs-subdir"),
        ("x/nfs--subdir", "x-nfs--subdir"),
        ("a..b", "a-b"),
    ],
)
def test_a_lease_keeps_its_name(name: str, lease_name: str) -> None:
    """An update does not change the name of a Lease: two releases that run side by side share it."""
    assert sample(provisioner=name).lease_name == lease_name


@pytest.mark.parametrize(
    ("one", "other"),
    [("NFS", "nfs"), ("nfs_client", "nfs-client"), ("Example.com/nfs", "example.com/nfs"), ("NFS", "Nfs")],
)
def test_two_names_that_look_alike(one: str, other: str) -> None:
    """Two provisioners in one namespace whose names differ in case or by a _ have different Leases."""
    assert sample(provisioner=one).lease_name != sample(provisioner=other).lease_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nas:/exports", ExportSetting(location=NAS)),
        ("nas:/exports=/mnt/k8s", ExportSetting(location=NAS, directory="/mnt/k8s")),
        ("[fd00::1]:/x=/mnt", ExportSetting(location=Location("fd00::1", "/x"), directory="/mnt")),
    ],
)
def test_export(text: str, expected: ExportSetting) -> None:
    """An export has a location, and a directory if it is mounted."""
    assert setting.export(text) == expected


@pytest.mark.parametrize("text", ["nas", "nas:exports", "nas:/exports=mnt", "nas:/exports=", "=/mnt", ""])
def test_unusable_export(text: str) -> None:
    """An unusable export is refused; the message names the flag."""
    with pytest.raises(InvalidSettings, match="--export"):
        setting.export(text)


def test_exports() -> None:
    """The export of NFS_SERVER and NFS_PATH comes first; a flag can add its directory."""
    other = ExportSetting(location=Location("other", "/x"))
    mounted = ExportSetting(location=NAS, directory="/mnt")
    assert setting.exports([other], "NAS", "/exports/") == (ExportSetting(location=NAS), other)
    assert setting.exports([other, mounted], "nas", "/exports") == (mounted, other)
    assert setting.exports([], None, None) == ()


@pytest.mark.parametrize(
    ("given_", "server", "path", "words"),
    [
        ([], "nas", None, "belong together"),
        ([], None, "/x", "belong together"),
        ([], "nas", "x", "must begin with /"),
        (
            [ExportSetting(location=NAS, directory="/a"), ExportSetting(location=NAS, directory="/b")], None, None,
            "--export nas:/exports is given twice",
        ),
    ],
)  # fmt: skip
def test_unusable_exports(given_: list[ExportSetting], server: str | None, path: str | None, words: str) -> None:
    """An incomplete export and one with two directories are refused."""
    with pytest.raises(InvalidSettings, match=words):
        setting.exports(given_, server, path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        (":9", ("0.0.0.0", 9)),
        ("[::]:80", ("::", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_listen(text: str, expected: tuple[str, int]) -> None:
    """An address to listen on is HOST:PORT."""
    assert setting.listen(text) == expected


@pytest.mark.parametrize("text", ["", "8080", "a:", "a:b", "a:65536", "a:-1", "a:٣"])
def test_unusable_listen(text: str) -> None:
    """Any other text is refused; the message names the flag."""
    with pytest.raises(InvalidSettings, match="--listen"):
        setting.listen(text)


def test_lease_namespace() -> None:
    """The namespace of the Lease comes from the settings."""
    assert setting.lease_namespace("storage") == "storage"


def test_identity() -> None:
    """Two processes never have the same identity, not even on one host."""
    assert setting.replica_identity() != setting.replica_identity()

"""core.mount_options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidSettings
from provisioner.core.mount_options import VERSIONS, MountOptions, parse


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], MountOptions()),
        (["nfsvers=3"], MountOptions(version="3")),
        (["v4.2"], MountOptions(version="4.2")),
        (["vers=4.1"], MountOptions(version="4.1")),
        (["nfsvers=4", "minorversion=2"], MountOptions(version="4.2")),
        (["nfsvers=4"], MountOptions(version="4")),
        (["nfsvers=3", "minorversion=2"], MountOptions(version="3")),
        (["vers=3", "nfsvers=4.2"], MountOptions(version="4.2")),
        (["hard,nfsvers=3 , port=2050", "mountport=2"], MountOptions(version="3", port=2050, mount_port=2)),
        (["port=0"], MountOptions()),
        (["sec=sys"], MountOptions()),
        (["sec=krb5p"], MountOptions(kerberos=True)),
        (["sec=krb5:krb5i"], MountOptions(kerberos=True)),
        (["sec=krb5:sys"], MountOptions()),
        (["sec="], MountOptions()),
        (["SEC = Krb5P"], MountOptions(kerberos=True)),
        (["krb5p"], MountOptions(kerberos=True)),
        (["sec=krb5p", "sec=sys"], MountOptions(kerberos=True)),
        (["sec=null"], MountOptions()),
        (["ro", "", "nolock"], MountOptions()),
        (["NFSVERS=4.1", "V4.2"], MountOptions(version="4.2")),
        (["xprtsec=mtls"], MountOptions(encryption="xprtsec=mtls")),
        (["hard,XPRTSEC = TLS ,ro"], MountOptions(encryption="xprtsec=tls")),
        (["xprtsec=tls", "xprtsec=none"], MountOptions(encryption="xprtsec=tls")),
        (["xprtsec=none"], MountOptions()),
        (["tls"], MountOptions(encryption="tls")),
        (["encryptInTransit=true"], MountOptions(encryption="encryptintransit=true")),
        (["tls=off", "notls"], MountOptions()),
        (["xprtsec:mtls"], MountOptions(encryption="xprtsec:mtls")),
        (["Use-TLS=yes"], MountOptions(encryption="use-tls=yes")),
        (["sec:krb5p", "hard"], MountOptions(kerberos=True)),
        (["security=krb5i"], MountOptions(kerberos=True)),
        (["proto=rdma", "port=20049"], MountOptions(port=20049, transport="proto=rdma")),
        (["rdma6"], MountOptions(transport="rdma6")),
        (["Proto=UDP"], MountOptions(transport="proto=udp")),
        (["udp6"], MountOptions(transport="udp6")),
        (["proto=tcp6", "tcp"], MountOptions()),
        (["nfsvers=3", "mountaddr=10.0.0.9"], MountOptions(version="3", transport="mountaddr=10.0.0.9")),
        (["mounthost=x"], MountOptions()),
        (["noresvport", "nconnect=4", "trunkdiscovery", "nosharecache", "mountproto=udp"], MountOptions()),
    ],
    ids=str,
)  # fmt: skip
def test_accepted(options: list[str], expected: MountOptions) -> None:
    """Options that matter are parsed as in nfs(5), the last of several counts, and others are ignored."""
    assert parse(options) == expected


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("nfsvers=2", "nfsvers"),
        ("vers=5", "vers"),
        ("nfsvers=", "nfsvers"),
        ("nfsvers=4.3", "nfsvers"),
        ("port=x", "port"),
        ("port=", "port"),
        ("port=65536", "port"),
        ("mountport=-1", "mountport"),
        ("sec=dh", "sec"),
        ("sec=sys:dh", "sec"),
        ("xprtsec=auto", "xprtsec"),
        ("xprtsec", "xprtsec"),
        ("proto=sctp", "proto"),
        ("nfsvers=4.1 hard", "nfsvers"),
    ],
)
def test_refused(option: str, name: str) -> None:
    """An option that cannot be used is refused with its name."""
    with pytest.raises(InvalidSettings, match=f"{name}="):
        parse([option])


@given(st.lists(st.text(max_size=20)))
def test_any_options(options: list[str]) -> None:
    """Any mount options are parsed or refused with a message."""
    try:
        found = parse(options)
    except InvalidSettings:
        return
    assert found.version in (None, *VERSIONS)
    assert all(port is None or 0 < port <= 65535 for port in (found.port, found.mount_port))

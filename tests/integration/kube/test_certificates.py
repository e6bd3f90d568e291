"""Client certificates: a server that admits only some of them, and credentials that change while calls continue."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from provisioner.core.errors import InvalidSettings
from provisioner.kube.cluster import open_cluster
from provisioner.ports.cluster import ApiUnavailable, Rejected
from tests.integration.kube.network import write_kubeconfig
from tests.support import certificates
from tests.unit.kube.server import OK, Reader, Writer, read_request, serving

BOTH = certificates.certificate(certificates.OLD) + certificates.certificate(certificates.NEW)
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers requests of clients with the accepted certificate, and refuses the others."""

    def __init__(self, accepted: str) -> None:
        self.accepted = accepted
        self.connections = 0

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        name = dict(pair[0] for pair in certificate["subject"])["commonName"]
        while True:
            await read_request(reader)
            writer.write(OK if name == self.accepted else REFUSED)


def files(directory: Path) -> dict[str, Any]:
    """A user with a certificate and a key in files."""
    return {"client-certificate": str(directory / "crt"), "client-key": str(directory / "key")}


def plugin(directory: Path) -> dict[str, Any]:
    """A user with a credential plugin that prints the certificate and the key in these files."""
    script = directory / "plugin.sh"
    script.write_text(f"#!/bin/sh\ncat {directory}/credential\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}


def write(directory: Path, pem: str) -> None:
    """Write the certificate and the key for both kinds of users."""
    certificate, key = certificates.certificate(pem), certificates.key(pem)
    (directory / "crt").write_text(certificate)
    (directory / "key").write_text(key)
    status = {"clientCertificateData": certificate, "clientKeyData": key}
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    (directory / "credential").write_text(json.dumps(credential))


def kubeconfig(directory: Path, port: int, user: dict[str, Any]) -> str:
    ca = base64.b64encode(certificates.certificate(certificates.SERVER).encode()).decode()
    cluster = {"certificate-authority-data": ca}
    return write_kubeconfig(directory / "kubeconfig", f"https://localhost:{port}", user=user, cluster=cluster)


@pytest.mark.parametrize("user", [files, plugin])
async def test_a_changed_certificate_is_used_for_new_connections(tmp_path: Path, user: Any) -> None:
    """When the server refuses the old certificate, all calls succeed with the new one."""
    write(tmp_path, certificates.OLD)
    server = Server("old")
    async with serving(server.serve, tls=certificates.server_context(tmp_path, clients=BOTH)) as port:
        path = kubeconfig(tmp_path, port, user(tmp_path))
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            await asyncio.gather(*(cluster.ping() for _ in range(3)))
            write(tmp_path, certificates.NEW)
            server.accepted = "new"
            await asyncio.gather(*(cluster.ping() for _ in range(8)))
            before = server.connections
            await asyncio.gather(*(cluster.ping() for _ in range(3)))
            assert server.connections == before


async def test_a_certificate_that_stays_refused(tmp_path: Path) -> None:
    """Without a newer certificate the refusal is the result."""
    write(tmp_path, certificates.OLD)
    server = Server("new")
    async with serving(server.serve, tls=certificates.server_context(tmp_path, clients=BOTH)) as port:
        path = kubeconfig(tmp_path, port, files(tmp_path))
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(Rejected, match="401"):
                await cluster.ping()


async def test_a_new_certificate_that_is_unusable(tmp_path: Path) -> None:
    """A certificate without its key is an error of the call."""
    write(tmp_path, certificates.OLD)
    server = Server("new")
    async with serving(server.serve, tls=certificates.server_context(tmp_path, clients=BOTH)) as port:
        path = kubeconfig(tmp_path, port, files(tmp_path))
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            (tmp_path / "crt").write_text(certificates.certificate(certificates.NEW))
            with pytest.raises(ApiUnavailable):
                await cluster.ping()


@pytest.mark.parametrize(
    ("cluster", "why"), [({"proxy-url": "socks5://h:1"}, "proxy"), ({"proxy-url": "nonsense"}, "proxy")]
)
async def test_a_proxy_that_cannot_be_used(tmp_path: Path, cluster: dict[str, str], why: str) -> None:
    """A proxy of another kind is refused at the start, with its URL."""
    path = write_kubeconfig(tmp_path / "kubeconfig", "https://h", cluster=cluster)
    with pytest.raises(InvalidSettings, match=why) as caught:
        async with open_cluster(path, provisioner="p", identity="i"):
            pass
    assert cluster["proxy-url"] in str(caught.value)


async def test_an_untrusted_server(tmp_path: Path) -> None:
    """The error says that the certificate is not accepted; insecure-skip-tls-verify accepts every certificate."""

    async def serve(reader: Reader, writer: Writer) -> None:
        while True:
            await read_request(reader)
            writer.write(OK)

    async with serving(serve, tls=certificates.server_context(tmp_path)) as port:
        path = write_kubeconfig(tmp_path / "kubeconfig", f"https://localhost:{port}")
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(ApiUnavailable, match="its certificate is not accepted: self-signed certificate"):
                await cluster.ping()
        skip = {"insecure-skip-tls-verify": True}
        path = write_kubeconfig(tmp_path / "kubeconfig", f"https://localhost:{port}", cluster=skip)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            await cluster.ping()


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX: y", "ü"])
async def test_a_token_that_no_header_can_have(tmp_path: Path, token: str) -> None:
    """A line break in a token is an error of the call; it never becomes a header of its own."""
    seen: list[str] = []

    async def serve(reader: Reader, writer: Writer) -> None:
        seen.append((await read_request(reader))[0])

    async with serving(serve) as port:
        path = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}", user={"token": token})
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(ApiUnavailable, match="token"):
                await cluster.ping()
    assert not seen

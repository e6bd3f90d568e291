"""kube.library: only the loaders are imported, and the rest of the library stays usable."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from provisioner.core.errors import InvalidSettings
from provisioner.kube import kubeconfig
from provisioner.kube.library import Configuration
from tests.unit.kube.server import Reader, Writer, read_request, serving

IMPORT = """
import sys
import provisioner.commands.run
print(sorted({"aiohttp", "oauthlib", "pydantic", "requests", "urllib3", "kubernetes"} & set(sys.modules)))
import kubernetes.aio
print(kubernetes.aio.client.Configuration.__module__, kubernetes.aio.client.CoreV1Api.__name__)
"""


def test_the_daemon_imports_no_client_of_the_library() -> None:
    """The daemon's memory holds no unused client, and a later import gets the complete library."""
    printed = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == ["[]", "kubernetes.aio.client.configuration CoreV1Api"]


def token(expire_s: float) -> str:
    """Return a JWT, as far as the library reads it."""
    part = urlsafe_b64encode(json.dumps({"exp": int(expire_s)}).encode()).decode().rstrip("=")
    return f"head.{part}.signature"


def oidc(path: Path, issuer: str, id_token: str) -> str:
    """Write a kubeconfig with an OIDC user; return its path."""
    config = {
        "client-id": "c",
        "client-secret": "s",
        "id-token": id_token,
        "idp-issuer-url": issuer,
        "refresh-token": "r",
    }
    path.write_text(
        json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://h"}}],
                "users": [{"name": "u", "user": {"auth-provider": {"name": "oidc", "config": config}}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return str(path)


async def test_an_oidc_token_that_is_valid(tmp_path: Path) -> None:
    """A token that has not expired is used without asking its issuer."""
    valid = token(time.time() + 3600)
    configuration = Configuration()
    await kubeconfig.load(configuration, oidc(tmp_path / "kubeconfig", "http://issuer.invalid", valid))
    assert configuration.authorization() == f"Bearer {valid}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes")
async def test_an_expired_oidc_token_is_refreshed(tmp_path: Path) -> None:
    """The issuer gives a new token, each time that the old one has expired."""
    issued = iter(["new", "newer"])

    async def serve(reader: Reader, writer: Writer) -> None:
        while True:
            head, _ = await read_request(reader)
            if "openid-configuration" in head:
                answer = {"token_endpoint": f"http://{writer.get_extra_info('sockname')[0]}:{port}/token"}
            else:
                answer = {"id_token": next(issued), "refresh_token": "r"}
            body = json.dumps(answer).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )

    async with serving(serve) as port:
        path = oidc(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}", token(time.time() - 3600))
        for expected in ("Bearer new", "Bearer newer"):
            configuration = Configuration()
            await kubeconfig.load(configuration, path)
            assert configuration.authorization() == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes")
async def test_an_oidc_issuer_that_is_gone(tmp_path: Path) -> None:
    """The error is one line that names the kubeconfig."""
    async with serving(read_request) as port:  # type: ignore[arg-type]
        pass
    path = oidc(tmp_path / "kubeconfig", f"http://127.0.0.1:{port}", token(time.time() - 3600))
    with pytest.raises(InvalidSettings, match="oidc") as caught:
        await kubeconfig.load(Configuration(), path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)

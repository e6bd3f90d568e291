"""Credentials, throttling, time limits and proxies, against a server that plays the API server."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from provisioner.core.errors import InvalidSettings
from provisioner.kube.cluster import Limits, open_cluster
from provisioner.ports.cluster import ApiUnavailable, Cluster, Rejected
from tests.integration.kube.network import Handler, serve, status, volume, write_kubeconfig


class Requests(list[web.BaseRequest]):
    """All requests of a test."""

    def keeping(self, handler: Handler) -> Handler:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            self.append(request)
            return await handler(request)

        return handle


@pytest.fixture
def requests() -> Requests:
    return Requests()


def throttled(code: int, times: int, retry_after: str | None) -> Handler:
    """Refuses this many requests, then accepts all."""
    left = [times]

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if left[0]:
            left[0] -= 1
            response = status(code, "TooManyRequests")
            if retry_after is not None:
                response.headers["Retry-After"] = retry_after
            return response
        return web.json_response(volume("a", uid="u", resourceVersion="1"), status=201)

    return handle


async def test_throttling_is_obeyed_within_the_call(tmp_path: Path, requests: Requests) -> None:
    """After a 429 with Retry-After, the same request with its body is sent again."""
    bodies = []
    throttle = throttled(429, 1, "1")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        bodies.append(await request.read())
        return await throttle(request)

    async with serve(requests.keeping(handle)) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            started_s = asyncio.get_running_loop().time()
            made = await cluster.create_volume(volume("a"))
            took_s = asyncio.get_running_loop().time() - started_s
    assert made.name == "a"
    assert len(requests) == 2
    assert bodies[0] == bodies[1] != b""
    assert took_s >= 1.0


@pytest.mark.parametrize(
    ("code", "retry_after", "expected"),
    [(429, "3600", 3600.0), (429, None, None), (503, "1", 1.0), (500, None, None), (504, "2", 2.0)],
)
async def test_refusals_that_are_not_retried_in_the_call(
    tmp_path: Path, requests: Requests, code: int, retry_after: str | None, expected: float | None
) -> None:
    """A wait beyond the time limit, and any refusal but 429, raise ApiUnavailable immediately, with Retry-After."""
    async with serve(requests.keeping(throttled(code, 9, retry_after))) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(ApiUnavailable) as caught:
                await cluster.create_volume(volume("a"))
    assert caught.value.retry_after_s == expected
    assert len(requests) == 1


async def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """A call raises ApiUnavailable when its time limit is over, and the message says so."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with serve(handle) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        limits = Limits(call_s=0.3)
        async with open_cluster(path, provisioner="p", identity="i", limits=limits) as cluster:
            for call in (cluster.ping(), anext(cluster.watch("claims", "1"))):
                with pytest.raises(ApiUnavailable, match=r"no answer within 0\.3 s"):
                    await call


@pytest.mark.parametrize("body", ["<html>welcome</html>", "{}", '{"kind":"Status","status":"Success"}', ""])
async def test_an_answer_that_is_not_the_api_servers_is_no_answer(tmp_path: Path, body: str) -> None:
    """A 200 with other content, as a captive portal sends it, never reads as an empty or missing object."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=body, content_type="application/json")

    async with serve(handle) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            for call in (cluster.list("claims"), cluster.get_claim("n", "c"), cluster.get_volume("v")):
                with pytest.raises(ApiUnavailable):
                    await call
            with pytest.raises(ApiUnavailable):
                await cluster.get_lease("n", "l")


async def test_a_404_of_a_proxy_is_not_an_absence(tmp_path: Path) -> None:
    """Only the API server's own NotFound makes get_claim return None: volumes are destroyed on that answer."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, text="404 page not found")

    async with serve(handle) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(Rejected):
                await cluster.get_claim("n", "c")


async def test_a_body_cut_short_is_no_answer(tmp_path: Path) -> None:
    """A connection that breaks within the body raises ApiUnavailable."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"kind":')
        assert request.transport is not None
        request.transport.close()
        return response

    async with serve(handle) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(ApiUnavailable):
                await cluster.get_volume("v")


async def test_a_redirect_is_not_followed(tmp_path: Path, requests: Requests) -> None:
    """The token goes to the configured server alone."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async with serve(requests.keeping(handle)) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(Rejected):
                await cluster.get_volume("v")
    assert len(requests) == 1


# ------------------------------------------------------------------------------------------------ the server's time


def dated(text: str, *, delay_s: float = 0.0) -> Handler:
    """Answers with 200 and the date."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(delay_s)
        return web.Response(text="ok", headers={"Date": text})

    return handle


async def test_the_servers_time(tmp_path: Path) -> None:
    """The server's clock is known from its first answer on, advances locally, and is never behind the server's date."""
    async with serve(dated("Wed, 21 Oct 2015 07:28:00 GMT")) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            assert cluster.server_time() is None
            await cluster.ping()
            first = cluster.server_time()
            await asyncio.sleep(0.05)
            second = cluster.server_time()
    assert first is not None
    assert second is not None
    assert first >= datetime(2015, 10, 21, 7, 28, tzinfo=UTC)
    assert second - first >= timedelta(seconds=0.05)


@pytest.mark.parametrize("handler", [dated("yesterday"), dated("Wed, 21 Oct 2015 07:28:00 GMT", delay_s=3.2)])
async def test_a_time_that_cannot_be_relied_on(tmp_path: Path, handler: Handler) -> None:
    """An invalid date, and the date of a slow answer, are ignored."""
    async with serve(handler) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            await cluster.ping()
            assert cluster.server_time() is None


# ------------------------------------------------------------------------------------------------ credentials


def guarded(accepted: list[str]) -> Handler:
    """Accepts requests with one of these tokens."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in accepted:
            return status(401, "Unauthorized")
        return web.Response(text="ok")

    return handle


def token_file(path: Path) -> dict[str, Any]:
    return {"tokenFile": str(path)}


def exec_plugin(path: Path) -> dict[str, Any]:
    """A credential plugin (client.authentication.k8s.io) that prints the token in a file, valid for an hour."""
    script = path.with_suffix(".sh")
    script.write_text(
        "#!/bin/sh\n"
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":'
        '{"token":"%s","expirationTimestamp":"2126-01-01T00:00:00Z"}}\' "$(cat ' + str(path) + ')"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}


@pytest.mark.parametrize("user", [token_file, exec_plugin])
async def test_changed_credentials_are_reloaded(tmp_path: Path, requests: Requests, user: Any) -> None:
    """When the server refuses an old token, many concurrent calls get the new one with one retry each."""
    secret = tmp_path / "token"
    secret.write_text("old\n")
    accepted = ["old"]
    async with serve(requests.keeping(guarded(accepted))) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url, user=user(secret))
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            await cluster.ping()
            secret.write_text("new\n")
            accepted[:] = ["new"]
            await asyncio.gather(*(cluster.ping() for _ in range(8)))
    assert len(requests) <= 1 + 2 * 8


def once_then_hangs(path: Path, expire: str) -> dict[str, Any]:
    """A credential plugin that prints a token, hangs when it runs again, and notes each run."""
    script = path.with_suffix(".sh")
    script.write_text(
        "#!/bin/sh\n"
        f"echo $$ >> {path}.runs\n"
        f"[ $(wc -l < {path}.runs) = 1 ] || {{ sleep 600 & sleep 600; }}\n"
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":'
        '{"token":"old","expirationTimestamp":"' + expire + "\"}}'\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}


async def test_a_plugin_that_hangs_at_the_renewal_stops_no_call(tmp_path: Path, requests: Requests) -> None:
    """Credentials are renewed before they expire, while calls continue; the plugin ends with the connection."""
    user = once_then_hangs(tmp_path / "token", (datetime.now(UTC) + timedelta(seconds=30)).isoformat())
    async with serve(requests.keeping(guarded(["old"]))) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url, user=user)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            for _ in range(20):
                await cluster.ping()
                await asyncio.sleep(0.05)
            runs = await asyncio.to_thread((tmp_path / "token.runs").read_text)
    assert len(runs.split()) == 2
    await gone(int(runs.split()[1]))


async def test_a_refused_token_whose_plugin_hangs_costs_a_call_its_time(tmp_path: Path) -> None:
    """Calls end at their time limit while one plugin runs, not one plugin per call."""
    user = once_then_hangs(tmp_path / "token", "2126-01-01T00:00:00Z")
    async with serve(guarded(["new"])) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url, user=user)
        async with open_cluster(path, provisioner="p", identity="i", limits=Limits(call_s=1.0)) as cluster:
            for call in [cluster.ping() for _ in range(3)]:
                with pytest.raises(ApiUnavailable, match="no answer within 1 s"):
                    await call
            runs = await asyncio.to_thread((tmp_path / "token.runs").read_text)
    assert len(runs.split()) == 2
    await gone(int(runs.split()[1]))


async def gone(pid: int) -> None:
    """Wait until a killed process has ended."""
    for _ in range(600):
        if not is_running(pid):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def is_running(pid: int) -> bool:
    """Return True if a process exists that is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_credentials_that_are_refused_are_rejected(tmp_path: Path, requests: Requests) -> None:
    """A token that stays refused raises Rejected, after one request if there is no newer one."""
    secret = tmp_path / "token"
    secret.write_text("wrong")
    async with serve(requests.keeping(guarded(["right"]))) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url, user=token_file(secret))
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(Rejected, match="401"):
                await cluster.ping()
    assert len(requests) == 1


async def test_the_proxy_of_the_kubeconfig_carries_the_requests(tmp_path: Path, requests: Requests) -> None:
    """With `proxy-url`, the proxy resolves the name of the server."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok")

    async with serve(requests.keeping(handle)) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", "http://api.invalid/prefix/", cluster={"proxy-url": url})
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            await cluster.ping()
    assert str(requests[0].url) == "http://api.invalid/prefix/readyz"
    assert requests[0].headers["User-Agent"].startswith("nfs-provisioner/")


# ------------------------------------------------------------------------------------------------ settings


async def opened(kubeconfig: str | None) -> Cluster:
    async with open_cluster(kubeconfig, provisioner="p", identity="i") as cluster:
        return cluster


async def test_outside_a_pod_we_ask_for_a_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a kubeconfig and outside a pod, the error names the missing flag, on one line."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidSettings, match="--kubeconfig") as caught:
        await opened(None)
    assert "\n" not in str(caught.value)


CONTEXT = "{current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}], users: [{name: u, user: {}}]"


def kubeconfig(user_of_context: str, user: str = "user: {token: t}") -> str:
    """A kubeconfig whose server is never asked."""
    return (
        f"{{current-context: x, contexts: [{{name: x, context: {{cluster: c, {user_of_context}}}}}],"
        f" users: [{{name: u, {user}}}], clusters: [{{name: c, cluster: {{server: 'https://h'}}}}]}}"
    )


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "just words",
        "a: [1",
        "[]",
        "clusters: 5",
        "{current-context: x}",
        CONTEXT + "}",
        CONTEXT + ", clusters: []}",
        CONTEXT + ", clusters: [{name: c, cluster: {}}]}",
        CONTEXT + ", clusters: [{name: c, cluster: {server: 'host:6443'}}]}",
        CONTEXT + ", clusters: [{name: c, cluster: {server: 'https://h', certificate-authority: /nowhere/ca.crt}}]}",
        CONTEXT + ", clusters: [{name: c, cluster: {server: 'https://h', certificate-authority-data: bm8=}}]}",
        CONTEXT + ", clusters: [{name: c, cluster: {server: 'https://h'}}]}",
        kubeconfig("user: nobody"),
        kubeconfig(""),
        kubeconfig("user: u", "user: "),
        kubeconfig("user: u", "user: {token: ''}"),
        kubeconfig("user: u", "user: {tokenFile: /nowhere/token}"),
        kubeconfig("user: u", "user: {tokenFile: /dev/null}"),
        kubeconfig("user: u", "user: {client-certificate: /nowhere/crt, client-key: /nowhere/key}"),
        kubeconfig("user: u", "user: {client-certificate: /dev/null}"),
        kubeconfig("user: u", "user: {client-certificate: /dev/null, client-key: /nowhere/key}"),
        kubeconfig("user: u", "user: {client-certificate-data: '%', client-key-data: '%'}"),
        kubeconfig("user: u", "user: {auth-provider: {name: gcp}}"),
        kubeconfig("user: u", "user: {auth-provider: {name: oidc}}"),
        kubeconfig("user: u", "user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin}}"),
        kubeconfig("user: u", "user: {exec: 5}"),
    ],
)
async def test_a_kubeconfig_that_is_none_is_refused(tmp_path: Path, text: str | None) -> None:
    """A missing file, an unusable kubeconfig and missing certificates each give one line that names the file."""
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidSettings) as caught:
        await opened(str(path))
    assert str(path) in str(caught.value) or "kubeconfig's" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "[Errno" not in str(caught.value)

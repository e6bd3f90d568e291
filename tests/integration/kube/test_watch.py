"""Watches against a real API server, and against one that breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from provisioner.kube.cluster import Limits, open_cluster
from provisioner.ports.cluster import ApiUnavailable, Cluster, WatchEvent
from testbed.cluster import ControlPlane
from tests.integration.kube.network import TcpProxy, serve, write_kubeconfig


async def until_end(watch: AsyncIterator[WatchEvent[Any]]) -> list[WatchEvent[Any]]:
    return [event async for event in watch]


async def test_a_watch_ends_when_the_server_is_killed(cluster: Cluster, control_plane: ControlPlane) -> None:
    """When the API server dies, a watch ends or raises an error; it never stays silent."""
    version = (await cluster.list("volumes")).version
    watch = asyncio.create_task(until_end(cluster.watch("volumes", version)))
    await asyncio.sleep(0.5)
    control_plane.api_server.kill()
    try:
        with pytest.raises(ApiUnavailable):
            await watch
    finally:
        control_plane.api_server.start()
        await asyncio.to_thread(control_plane.wait_ready)


async def test_a_half_open_watch_is_noticed(control_plane: ControlPlane, tmp_path: Path) -> None:
    """When a proxy stops forwarding without closing, the watch raises ApiUnavailable soon after its own end."""
    token = control_plane.kubeconfig.read_text().split('"token": "')[1].split('"')[0]
    limits = Limits(watch_s=(2, 2), watch_grace_s=1.0)
    async with TcpProxy(urlsplit(control_plane.url).port or 0).serving() as proxy:
        path = write_kubeconfig(
            tmp_path / "kubeconfig",
            f"https://127.0.0.1:{proxy.port}",
            user={"token": token},
            cluster={"certificate-authority": str(control_plane.ca_file)},
        )
        async with open_cluster(path, provisioner="p", identity="i", limits=limits) as cluster:
            version = (await cluster.list("volumes")).version
            watch = asyncio.create_task(until_end(cluster.watch("volumes", version)))
            await asyncio.sleep(0.5)
            proxy.freeze()
            with pytest.raises(ApiUnavailable):
                await watch


# ------------------------------------------------------------------------------------------------ misbehaviour


LARGE = b'{"type":"ADDED","object":%s}\n' % (
    b'{"metadata":{"name":"large","uid":"u","resourceVersion":"5","annotations":{"a":"%s"}}}' % (b"x" * 3_000_000)
)
SMALL = b'{"type":"MODIFIED","object":{"metadata":{"name":"small","uid":"u","resourceVersion":"6"}}}\n'


def streaming(*chunks: bytes, broken_off: bool = False, query: dict[str, str] | None = None) -> Any:
    """Return a handler that answers a watch with these chunks."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if query is not None:
            query.update(request.query)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        if broken_off:
            cast("asyncio.Transport", request.transport).abort()
        return response

    return handle


async def test_lines_may_be_large_and_cut_anywhere(tmp_path: Path) -> None:
    """A line of 3 MB and the next line arrive complete, and the watch asks for bookmarks, a version and an end."""
    data = LARGE + SMALL
    query: dict[str, str] = {}
    pieces = [data[i : i + 65_537] for i in range(0, len(data), 65_537)]
    async with serve(streaming(*pieces, query=query)) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            events = await until_end(cluster.watch("volumes", "4"))
    assert [(event.type, event.version) for event in events] == [("ADDED", "5"), ("MODIFIED", "6")]
    assert events[0].item is not None
    assert len(events[0].item.metadata.annotations["a"]) == 3_000_000
    assert 45 <= int(query.pop("timeoutSeconds")) <= 60
    assert query == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "4"}


@pytest.mark.parametrize(
    ("chunks", "broken_off"),
    [((SMALL,), True), ((SMALL, LARGE[:1000]), True), ((SMALL, LARGE[:1000]), False), ((SMALL, b"<html>\n"), False)],
)
async def test_a_watch_that_breaks_off_is_unavailable(
    tmp_path: Path, chunks: tuple[bytes, ...], broken_off: bool
) -> None:
    """A broken connection, a truncated line and garbage raise ApiUnavailable."""
    async with serve(streaming(*chunks, broken_off=broken_off)) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i") as cluster:
            with pytest.raises(ApiUnavailable):
                await until_end(cluster.watch("volumes", "4"))


async def test_a_watch_closed_early_gives_its_connection_back(tmp_path: Path) -> None:
    """After a reader closed the generator, a pool of one connection serves the next call."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/readyz":
            return web.Response(text="ok")
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(SMALL)
        await asyncio.sleep(60)
        return response

    async with serve(handle) as url:
        path = write_kubeconfig(tmp_path / "kubeconfig", url)
        async with open_cluster(path, provisioner="p", identity="i", connections=1) as cluster:
            watch = cluster.watch("volumes", "4")
            assert (await anext(watch)).version == "6"
            await watch.aclose()
            await cluster.ping()

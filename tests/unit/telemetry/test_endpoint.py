"""telemetry.endpoint: the content of the pages, and how often it is computed."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from provisioner.core.errors import InvalidSettings
from provisioner.telemetry import endpoint
from provisioner.telemetry.metrics import Metrics, Sample
from provisioner.telemetry.shared import Shared

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Counting(Collector):
    """A metric that counts how often it was collected."""

    def __init__(self) -> None:
        self.times = 0

    def collect(self) -> Iterable[Metric]:
        self.times += 1
        time.sleep(0.2)
        yield GaugeMetricFamily("collected", "How often.", value=self.times)

    def describe(self) -> Iterable[Metric]:
        return ()


class Scene:
    """An endpoint with a counter of its readiness checks."""

    def __init__(self) -> None:
        self.collected = Counting()
        self.missing: dict[str, str] | None = {}
        self.asked = 0
        self.began = asyncio.Event()
        self.url = ""

    async def readiness(self) -> Mapping[str, str]:
        self.asked += 1
        self.began.set()
        await asyncio.sleep(0.05)
        if self.missing is None:
            raise RuntimeError("a fault")
        return self.missing


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:
        yield session


@asynccontextmanager
async def served() -> AsyncIterator[Scene]:
    scene, registry = Scene(), CollectorRegistry()
    registry.register(scene.collected)
    async with endpoint.serve("127.0.0.1", 0, registry=registry, readiness=scene.readiness) as port:
        scene.url = f"http://127.0.0.1:{port}"
        yield scene


async def test_many_scrapes_share_one_rendering(http: aiohttp.ClientSession) -> None:
    """300 concurrent scrapes are rendered once, and no response is older than a second."""
    async with served() as scene:

        async def scrape() -> str:
            async with http.get(f"{scene.url}/metrics") as answer:
                assert answer.status == 200
                assert answer.content_type == "text/plain"
                return gzip.decompress(await answer.read()).decode()

        began_s = time.monotonic()
        texts = await asyncio.gather(*(scrape() for _ in range(300)))
        assert len(set(texts)) <= scene.collected.times <= 1 + (time.monotonic() - began_s)
        before = scene.collected.times
        await asyncio.sleep(1.1)
        assert f"collected {before + 1}.0" in await scrape()


async def test_formats(http: aiohttp.ClientSession) -> None:
    """Each client gets the format that it asks for, compressed only if it accepts that."""
    async with served() as scene:
        headers = {"Accept": OPEN_METRICS, "Accept-Encoding": "identity"}
        async with http.get(f"{scene.url}/metrics", headers=headers) as answer:
            assert answer.content_type == "application/openmetrics-text"
            assert "Content-Encoding" not in answer.headers
            assert (await answer.text()).endswith("# EOF\n")
        async with http.get(f"{scene.url}/metrics", headers={"Accept-Encoding": "identity"}) as answer:
            assert answer.content_type == "text/plain"
            assert "collected" in await answer.text()


async def test_readiness_is_checked_once_for_all(http: aiohttp.ClientSession) -> None:
    """300 concurrent requests cost one readiness check, also if it fails; missing parts are reported with 503."""
    async with served() as scene:

        async def ask() -> tuple[int, bytes]:
            async with http.get(f"{scene.url}/readyz") as answer:
                return answer.status, await answer.read()

        for missing, status in (({}, 200), ({"Lease": "403"}, 503), (None, 500)):
            scene.missing = missing
            before, began_s = scene.asked, time.monotonic()
            answers = await asyncio.gather(*(ask() for _ in range(300)))
            assert {code for code, _ in answers} == {status}
            assert scene.asked - before <= 1 + (time.monotonic() - began_s) / 2.0
            if missing is not None:
                assert json.loads(answers[0][1]) == {"ready": not missing, "missing": missing}
            await asyncio.sleep(2.1)


async def test_a_client_that_leaves_takes_nothing_from_the_others(http: aiohttp.ClientSession) -> None:
    """A client that waits for a shared response gets it although the first client has gone."""
    async with served() as scene:
        first = asyncio.create_task(http.get(f"{scene.url}/readyz"))
        await scene.began.wait()
        second = asyncio.create_task(http.get(f"{scene.url}/readyz"))
        first.cancel()
        async with await second as answer:
            assert answer.status == 200
        assert scene.asked == 1


async def test_the_other_pages(http: aiohttp.ClientSession) -> None:
    """The root links to the three other pages, and an unknown path is 404."""
    async with served() as scene:
        async with http.get(f"{scene.url}/", headers={"Accept-Encoding": "identity"}) as answer:
            home = await answer.text()
            assert answer.content_type == "text/html"
        for path in ("/metrics", "/readyz", "/healthz"):
            assert f'href="{path}"' in home
            async with http.get(scene.url + path) as answer:
                assert answer.status == 200
                assert "Server" not in answer.headers
        async with http.get(f"{scene.url}/nothing") as answer:
            assert answer.status == 404


async def test_a_port_that_is_taken() -> None:
    """The error for a taken address names the flag to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=f"--listen 127.0.0.1:{port}"):
            async with endpoint.serve("127.0.0.1", port, registry=CollectorRegistry(), readiness=Scene().readiness):
                raise AssertionError("it is taken")


def test_samples_are_read_when_they_are_taken() -> None:
    """A sampled gauge shows the values at the time of take_samples(), which does not run during rendering."""
    metrics = Metrics()
    queued: Sample = {("claims",): 1.0}
    metrics.sample("queue_depth", "Keys.", ("queue",), lambda: dict(queued))

    def shown() -> float | None:
        return metrics.registry.get_sample_value("nfs_provisioner_queue_depth", {"queue": "claims"})

    metrics.take_samples()
    queued[("claims",)] = 2.0
    assert shown() == 1.0
    metrics.take_samples()
    assert shown() == 2.0


async def test_a_cheap_value_is_computed_again_soon() -> None:
    """With a share of a tenth, a value is kept for ten times its computing time, and never beyond its limit."""
    made: list[float] = []

    async def make() -> int:
        made.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        return len(made)

    soon: Shared[int] = Shared(make, fresh_s=30.0, share=0.1)
    assert [await soon.get() for _ in range(3)] == [1, 1, 1]
    while await soon.get() == 1:  # noqa: ASYNC110  # as clients do
        await asyncio.sleep(0.05)
    assert made[1] - made[0] >= 0.05 * 11

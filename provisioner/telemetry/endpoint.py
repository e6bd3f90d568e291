"""The HTTP endpoint: `/metrics`, `/healthz` (the event loop runs) and `/readyz` (everything the work needs responds).

The cost does not grow with the number of clients. Metrics are rendered in a thread, once for all clients that wait for
them, and are kept for one second, or less if rendering again takes at most a tenth of the time. Readiness is checked at
most every two seconds.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from provisioner.core import texts
from provisioner.core.errors import InvalidSettings
from provisioner.telemetry.http import Request, Response, serving
from provisioner.telemetry.shared import Shared

Readiness = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns what is not ready, and why; empty if everything is ready."""

_METRICS_FRESH_S = 1.0
_METRICS_SHARE = 0.1
_READINESS_FRESH_S = 2.0
_SWITCH_S = 0.0005
"""The interpreter's switch interval: how long the event loop waits for the rendering thread; the default is 5 ms."""
_HOME = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>nfs-provisioner</title></head>
<body><h1>nfs-provisioner</h1><ul>
<li><a href="/metrics">/metrics</a>: metrics for Prometheus</li>
<li><a href="/readyz">/readyz</a>: whether this replica is ready, and what is missing</li>
<li><a href="/healthz">/healthz</a>: whether the process runs</li>
</ul></body></html>
"""


class _Pages:
    """The page of each path. `prepare` is called in the event loop before the thread renders the metrics."""

    def __init__(
        self,
        thread: ThreadPoolExecutor,
        *,
        registry: CollectorRegistry,
        prepare: Callable[[], None],
        readiness: Readiness,
    ) -> None:
        self._thread = thread
        self._registry = registry
        self._prepare = prepare
        self._texts: dict[tuple[str, bool], Shared[bytes]] = {}
        self._readiness = Shared(readiness, fresh_s=_READINESS_FRESH_S)
        self._paths = {"/": self._home, "/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}

    async def answer(self, request: Request) -> Response:
        """Return the response to a request."""
        page = self._paths.get(request.path)
        return await page(request) if page is not None else Response(b"Not Found\n", status=404)

    async def _home(self, _: Request) -> Response:
        return Response(_HOME, "text/html; charset=utf-8")

    async def _healthz(self, _: Request) -> Response:
        return Response(b"ok\n")

    async def _readyz(self, _: Request) -> Response:
        missing = await self._readiness.get()
        body = msgspec.json.encode(texts.plain({"ready": not missing, "missing": missing}))
        return Response(body + b"\n", "application/json; charset=utf-8", status=503 if missing else 200)

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        text = self._texts.get((content_type, zipped))
        if text is None or not text.is_fresh:
            self._texts = {key: each for key, each in self._texts.items() if each.is_fresh}
            render = partial(self._render, encode, zipped=zipped)
            text = Shared(render, fresh_s=_METRICS_FRESH_S, share=_METRICS_SHARE)
            self._texts[content_type, zipped] = text
        headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if zipped else {})
        return Response(await text.get(), content_type, headers=headers)

    async def _render(self, encode: Callable[[CollectorRegistry], bytes], *, zipped: bool) -> bytes:
        self._prepare()
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, partial(_encoded, encode, self._registry, zipped=zipped)
        )


def _encoded(encode: Callable[[CollectorRegistry], bytes], registry: CollectorRegistry, *, zipped: bool) -> bytes:
    # Rendering creates many short-lived objects. They could trigger a full garbage collection, which would visit each
    # cached volume and stop all threads during that time.
    collects = gc.isenabled()
    gc.disable()
    try:
        text = encode(registry)
    finally:
        if collects:
            gc.enable()
    return gzip.compress(text, compresslevel=4) if zipped else text


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    *,
    registry: CollectorRegistry,
    readiness: Readiness,
    prepare: Callable[[], None] = lambda: None,
) -> AsyncIterator[int]:
    """Serve the endpoint while the context is open; yield the port. Raises InvalidSettings if it is unavailable."""
    sys.setswitchinterval(_SWITCH_S)
    thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
    pages = _Pages(thread, registry=registry, prepare=prepare, readiness=readiness)
    async with AsyncExitStack() as stack:
        stack.callback(partial(thread.shutdown, wait=False, cancel_futures=True))
        try:
            bound = await stack.enter_async_context(serving(host, port, pages.answer))
        except OSError as exc:
            raise InvalidSettings(f"--listen {host}:{port}: {exc.strerror or exc}; choose another address") from exc
        yield bound

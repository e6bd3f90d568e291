"""The HTTP endpoint: `/metrics`, `/healthz` (the event loop turns), `/readyz` (all that the work needs answers)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from provisioner.core import texts
from provisioner.core.errors import InvalidSettings

Readiness = Callable[[], Awaitable[Mapping[str, str]]]
"""What is not ready, and why; empty when all is."""


@asynccontextmanager
async def serve(host: str, port: int, *, registry: CollectorRegistry, readiness: Readiness) -> AsyncIterator[None]:
    """Serve the endpoint while the context is open. Raises InvalidSettings when the port cannot be had."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        missing = await readiness()
        body = msgspec.json.encode(texts.plain({"ready": not missing, "missing": missing}))
        return web.Response(body=body + b"\n", content_type="application/json", status=503 if missing else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as exc:
        await runner.cleanup()
        raise InvalidSettings(f"--listen {host}:{port}: {exc.strerror or exc}; choose another address") from exc
    try:
        yield
    finally:
        await runner.cleanup()

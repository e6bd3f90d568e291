"""Sends requests to an API server as fast as it answers, with a fixed number in flight, in a separate process.

The measurement and its load must not share an event loop, so `flood` starts this module as a program: it reads requests
from stdin as JSON lines and prints one JSON line with the times.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from testbed.api import MERGE_PATCH

IN_FLIGHT = 64
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `body` is sent as JSON, for a patch with the content type of a merge patch."""

    method: str
    path: str
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flooded:
    """The result of a flood. Times are CLOCK_MONOTONIC, which all processes of a machine share."""

    requests: int
    began_s: float
    ended_s: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / (self.ended_s - self.began_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The API server and the credentials of a flood."""

    url: str
    ca_file: Path
    token: str


class FloodFailed(Exception):
    """A request was refused, or the process exited without a result; the text has the first reason."""


def flood(target: Target, requests: Iterable[Request]) -> Flooded:
    """Send all requests in order, and return when the last one is answered. Raises FloodFailed."""
    lines = "".join(json.dumps(asdict(request)) + "\n" for request in requests)
    command = [sys.executable, "-m", __name__, target.url, str(target.ca_file)]
    # The token is sent on stdin, because command lines are public.
    done = subprocess.run(
        command, input=f"{target.token}\n{lines}", capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise FloodFailed(done.stderr.strip()[-2000:])
    return Flooded(**json.loads(done.stdout))


async def _main(url: str, ca_file: str) -> int:
    token = sys.stdin.readline().strip()
    prepared = [_prepared(url, json.loads(line)) for line in sys.stdin]
    context = ssl.create_default_context(cafile=ca_file)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=context),
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        # Open every connection before the clock starts: a ceiling does not include TLS handshakes.
        await asyncio.gather(*(_send(session, "GET", f"{url}/version", None, "") for _ in range(IN_FLIGHT)))
        rest = iter(prepared)
        began_s = time.monotonic()
        await asyncio.gather(*(_send_all(session, rest) for _ in range(IN_FLIGHT)))
        ended_s = time.monotonic()
    print(json.dumps(asdict(Flooded(requests=len(prepared), began_s=began_s, ended_s=ended_s))))
    return 0


def _prepared(url: str, request: dict[str, Any]) -> tuple[str, str, bytes | None, str]:
    body = request["body"]
    data = None if body is None else json.dumps(body).encode()
    return request["method"], url + request["path"], data, MERGE_PATCH if request["method"] == "PATCH" else ""


async def _send_all(session: aiohttp.ClientSession, requests: Iterator[tuple[str, str, bytes | None, str]]) -> None:
    for method, url, data, content_type in requests:
        await _send(session, method, url, data, content_type)


async def _send(session: aiohttp.ClientSession, method: str, url: str, data: bytes | None, content_type: str) -> None:
    headers = {"Content-Type": content_type or "application/json"} if data is not None else {}
    async with session.request(method, url, data=data, headers=headers) as answer:
        body = await answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {url}: {answer.status} {body[:500].decode(errors='replace')}")


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(*sys.argv[1:])))

"""`quota-agent`: enforces the sizes of volumes on an NFS server, from the records of its exports.

The agent works in one thread, as all of its calls are local system calls. The event loop only waits, serves metrics and
receives signals.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from provisioner import __version__
from provisioner.core import times
from provisioner.core.errors import InvalidSettings
from provisioner.core.paths import LEDGER
from provisioner.ports.aio import wait_for_event
from provisioner.ports.quota import Disk, DiskError
from provisioner.quota import capabilities, metrics
from provisioner.quota.agent import ExportAgent, Options
from provisioner.quota.book import Holders
from provisioner.quota.ids import IdRange
from provisioner.quota.kernel import KernelDisk
from provisioner.quota.rehearsal import Rehearsal
from provisioner.quota.rounds import POLL_S, Rounds
from provisioner.telemetry.http import Limits, Request, Response, serving

log = structlog.get_logger(__name__)

_LIMITS = Limits(connections=32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The settings of the agent."""

    roots: tuple[str, ...]
    ids: IdRange
    all_volumes: bool
    lift_archives: bool
    root_is_held: bool
    once: bool
    dry_run: bool
    listen: tuple[str, int] | None


async def run(settings: AgentSettings, report: Callable[[str], None]) -> int:
    """Run the agent until a signal ends it, or for one pass; return the exit status."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))  # a walk has two descriptors per level
    _become_owner(settings.roots)
    disks = [_disk(root) for root in settings.roots]
    rehearsed = [Rehearsal(disk, report) for disk in disks] if settings.dry_run else disks
    agents = _agents(settings, rehearsed)
    rounds = Rounds(agents, time.monotonic)
    with ThreadPoolExecutor(1, thread_name_prefix="quota") as thread:
        if settings.once or settings.dry_run:
            return await _run_once(rounds, agents, thread, report)
        await _run_on(rounds, agents, thread, settings)
    return 0


def _become_owner(roots: Sequence[str]) -> None:
    """Drop all rights but three, and become the owner of the ledgers."""
    owners = _owners(roots)
    if len(owners) > 1:
        ledgers = ", ".join(f"{root} (uid {uid}, gid {gid})" for (uid, gid), root in owners.items())
        raise InvalidSettings(f"the ledgers have different owners: run one agent for each of {ledgers}")
    uid, gid = next(iter(owners), (os.geteuid(), os.getegid()))
    if not capabilities.become(uid, gid):
        raise InvalidSettings(
            f"the ledger belongs to uid {uid}, and the agent cannot become that user: run it as root (in a container"
            " with CAP_SETUID and CAP_SETGID, which it drops), or as that user"
        )


def _owners(roots: Sequence[str]) -> dict[tuple[int, int], str]:
    """Return the owners of the ledgers that exist, each with a root."""
    owners = {}
    for root in roots:
        with suppress(FileNotFoundError):
            seen = os.lstat(os.path.join(root, LEDGER))
            owners[seen.st_uid, seen.st_gid] = root
    return owners


def _require_owner(roots: Sequence[str]) -> None:
    """Raise DiskError if a ledger that has appeared since the start belongs to another user."""
    for (uid, gid), root in _owners(roots).items():
        if (uid, gid) != (os.geteuid(), os.getegid()):
            raise DiskError(f"the ledger of {root} belongs to uid {uid} and gid {gid}: start the agent again")


def _disk(root: str) -> Disk:
    """Return the driver for the file system of a root. Raises DiskError where there is no such directory."""
    disk = KernelDisk(root)
    if disk.facts().filesystem != "zfs":
        return disk
    from provisioner.quota.zfs import ZfsDisk  # only here: it imports subprocess, which costs memory

    return ZfsDisk(root)


def _agents(settings: AgentSettings, disks: Sequence[Disk]) -> list[ExportAgent]:
    """Return the agents of all exports; those on one file system share their project ids."""
    options = Options(
        version=__version__,
        ids=settings.ids,
        all_volumes=settings.all_volumes,
        lift_archives=settings.lift_archives,
        root_is_held=settings.root_is_held,
    )
    holders: dict[str, Holders] = {}
    return [
        ExportAgent(root, disk, holders.setdefault(disk.facts().device, Holders()), options, now=_now)
        for root, disk in zip(settings.roots, disks, strict=True)
    ]


def _now() -> str:
    return times.text(datetime.now(UTC))


async def _run_once(
    rounds: Rounds, agents: Sequence[ExportAgent], thread: ThreadPoolExecutor, report: Callable[[str], None]
) -> int:
    """Work until everything that can be done is done; return 1 if a limit is not in force."""
    turn = partial(asyncio.get_running_loop().run_in_executor, thread, rounds.turn)
    await turn()
    while rounds.is_at_work:
        await turn()
    for agent in agents:
        report(_summary(agent))
    return int(any(agent.idle_because or agent.counts.limited < agent.counts.volumes for agent in agents))


def _summary(agent: ExportAgent) -> str:
    if agent.idle_because:
        return f"{agent.root}: {agent.idle_because}"
    counts = agent.counts
    lines = [f"{agent.root}: {counts.limited} of {counts.volumes} volumes have their limit", *agent.warnings]
    lines += [f"{agent.root}: {number} {reason}" for reason, number in sorted(counts.reasons.items())]
    return "\n".join(lines)


async def _run_on(
    rounds: Rounds, agents: Sequence[ExportAgent], thread: ThreadPoolExecutor, settings: AgentSettings
) -> None:
    """Work until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping, woken = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        stopping.set()
        woken.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    pages = _serving(settings.listen, agents) if settings.listen else nullcontext()
    log.info("quota_agent_started", roots=list(settings.roots), version=__version__, ids=str(settings.ids))
    async with pages:
        watched: set[int] = set()
        while not stopping.is_set():
            woken.clear()
            wait_s = await loop.run_in_executor(thread, rounds.turn)
            found = set(await loop.run_in_executor(thread, rounds.descriptors))
            for descriptor in found - watched:
                loop.add_reader(descriptor, woken.set)
            for descriptor in watched - found:
                loop.remove_reader(descriptor)
            watched = found
            if any(agent.idle_because for agent in agents):
                _require_owner(settings.roots)
            if len(found) < sum(not agent.idle_because for agent in agents):
                wait_s = min(wait_s, POLL_S)
            if wait_s and not stopping.is_set():
                await wait_for_event(woken, timeout_s=wait_s)
    log.info("quota_agent_stopped")


@asynccontextmanager
async def _serving(listen: tuple[str, int], agents: Sequence[ExportAgent]) -> AsyncIterator[None]:
    """Serve /metrics, /healthz and /readyz."""

    async def answer(request: Request) -> Response:
        if request.path == "/metrics":
            text = metrics.render(agents, version=__version__)
            return Response(text.encode(errors="backslashreplace"), "text/plain; version=0.0.4; charset=utf-8")
        if request.path == "/healthz":
            return Response(b"ok\n")
        if request.path == "/readyz":
            lacking = {agent.root: agent.idle_because for agent in agents if agent.idle_because}
            return Response(json.dumps(lacking).encode(), "application/json", 503 if lacking else 200)
        return Response(b"Not Found\n", status=404)

    host, port = listen
    try:
        async with serving(host, port, answer, limits=_LIMITS):
            yield
    except OSError as exc:
        raise InvalidSettings(f"--listen {host}:{port}: {exc.strerror or exc}; choose another address") from exc

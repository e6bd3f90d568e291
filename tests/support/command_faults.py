"""Faults that interrupt a command at one call, on the export or on the API server."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress

from provisioner.ports.cluster import ApiUnavailable
from provisioner.ports.tree import Cause, ExportError
from tests.support.fakes import cluster as fake
from tests.support.fakes import tree as fake_tree
from tests.support.fakes.cluster import MemoryCluster
from tests.support.fakes.tree import MemoryTree
from tests.support.ledger_faults import Crash, Fault


async def broken_off(
    fault: Fault,
    number: int,
    tree: MemoryTree,
    cluster: MemoryCluster,
    run: Awaitable[object],
    *,
    errors: tuple[type[Exception], ...],
) -> bool:
    """Run with the fault at the n-th call, which can raise one of these errors; return False if there are fewer."""
    calls = 0

    async def hook(error: Exception) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise error if fault.survives else Crash
        if calls > number and not fault.survives:
            raise Crash

    async def on_tree(_call: str, _path: tuple[str, ...]) -> None:
        await hook(ExportError(Cause.UNREACHABLE, "lost"))

    async def on_cluster(_call: str, _about: str) -> None:
        await hook(ApiUnavailable("lost"))

    if fault.effect:
        tree.after, cluster.after = on_tree, on_cluster
    else:
        tree.before, cluster.before = on_tree, on_cluster
    try:
        with suppress(Crash, *errors):
            await run
    finally:
        tree.before = tree.after = fake_tree.no_fault
        cluster.before = cluster.after = fake.no_fault
    return calls >= number

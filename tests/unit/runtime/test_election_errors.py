"""runtime.election, in simulated time: an unexpected error counts as a failed try."""

from __future__ import annotations

import asyncio

from provisioner.core.leases import LeaseTimes
from provisioner.runtime.election import Elector
from tests.support.fakes.clock import LoopClock, simulate
from tests.support.fakes.cluster import MemoryCluster


def test_unexpected_errors() -> None:
    """Unexpected errors delay the lease, and lose it only after the renew deadline; it is acquired again after them."""

    async def scene() -> None:
        odd = asyncio.Event()
        odd.set()

        async def before(call: str, _about: str) -> None:
            if odd.is_set() and call.endswith("lease"):
                raise RuntimeError("odd")

        terms: list[float] = []

        async def lead(stopping: asyncio.Event) -> None:
            terms.append(asyncio.get_running_loop().time())
            await stopping.wait()

        counted: list[str] = []
        elector = Elector(
            MemoryCluster(before=before), LoopClock(), namespace="n", name="l", identity="me", times=LeaseTimes(),
            count=counted.append,
        )  # fmt: skip
        stopping = asyncio.Event()
        running = asyncio.create_task(elector.run(lead, stopping))
        await asyncio.sleep(60.0)
        assert not terms
        odd.clear()
        await asyncio.sleep(5.0)
        assert len(terms) == 1
        odd.set()
        await asyncio.sleep(6.0)
        odd.clear()
        await asyncio.sleep(60.0)
        assert len(terms) == 1, "the deadline was not over"
        odd.set()
        await asyncio.sleep(30.0)
        odd.clear()
        await asyncio.sleep(30.0)
        assert len(terms) == 2
        odd.set()
        stopping.set()
        await running
        assert set(counted) == {"lease"}

    simulate(scene())

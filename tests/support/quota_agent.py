"""A quota agent beside an export in memory: the real agent, over quotas in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from provisioner.core import times
from provisioner.quota.agent import ExportAgent, Options
from provisioner.quota.book import Holders
from provisioner.quota.rounds import Rounds
from tests.support.fakes.disk import MemoryDisk, Quotas
from tests.support.fakes.tree import MemoryTree


class AgentBeside:
    """An agent that looks at everything on request."""

    def __init__(self, tree: MemoryTree, now: Callable[[], datetime]) -> None:
        self.quotas = Quotas(tree)
        self._tree = tree
        self._now = now
        self._now_s = 0.0
        self.start()

    def start(self, *, root_is_held: bool = False) -> None:
        """Start another process instead of the former one."""
        self.quotas.locks.clear()
        options = Options(version="1", root_is_held=root_is_held)
        disk = MemoryDisk(self.quotas, self._tree)
        self._agent = ExportAgent("/srv", disk, Holders(), options, now=lambda: times.text(self._now()))

    def look(self) -> None:
        """Look at everything once, and do all that can be done."""
        self._now_s += 60.0
        rounds = Rounds([self._agent], lambda: self._now_s)
        rounds.turn()
        while rounds.is_at_work:
            rounds.turn()

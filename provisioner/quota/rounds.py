"""The agent's work over time: passes, events, directories that are about to appear, busy files and long walks.

turn() does a small part of the work and says when the next part is due. It never waits, so a test drives it with a
clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import structlog

from provisioner.core.quota import PASS_S
from provisioner.ports.quota import DiskError
from provisioner.quota.agent import ExportAgent

log = structlog.get_logger(__name__)

SLICE_S = 0.05
"""How long one turn works on passes and walks before it looks at events again."""
POLL_S = 1.0
"""How often records are looked at where the kernel reports no events."""
IDLE_S = 5.0
"""How soon a root is looked at again where nothing can be done: an admin, or the first claim, can change that."""
_BUSY_S = 2.0
"""When files that NFS clients held are visited again for the first time; later in each pass."""
_APPEARS_S = 0.01
"""When a directory that was not there is looked for again; each time after twice as long."""
_APPEARS_TRIES = 10
"""After that only passes look for it."""


class Rounds:
    """The work of an agent on all of its exports."""

    def __init__(self, agents: Sequence[ExportAgent], monotonic: Callable[[], float]) -> None:
        self._agents = agents
        self._monotonic = monotonic
        self._work: list[Iterator[None]] = []
        """What is under way, the oldest first."""
        self._next_pass_s = dict.fromkeys(agents, 0.0)
        self._passing: set[ExportAgent] = set()
        self._due: dict[tuple[ExportAgent, str], float] = {}
        """When to look at volumes again."""
        self._walking: set[ExportAgent] = set()

    def turn(self) -> float:
        """Do a part of the work, and return the seconds until the next one is due."""
        now_s = self._monotonic()
        for agent in self._agents:
            self._react(agent)
        for key in [key for key, due_s in self._due.items() if due_s <= now_s]:
            del self._due[key]
            self._look_at(*key)
        for agent in self._agents:
            if now_s >= self._next_pass_s[agent] and agent not in self._passing:
                self._passing.add(agent)
                self._work.append(self._pass(agent))
            if agent.is_walking and agent not in self._walking:
                self._walking.add(agent)
                self._work.append(self._walk(agent))
        self._slice(now_s + SLICE_S)
        return self._wait_s()

    @property
    def is_at_work(self) -> bool:
        """Whether a pass or a walk is under way."""
        return bool(self._work) or any(agent.is_walking for agent in self._agents)

    def descriptors(self) -> list[int]:
        """Return the descriptors that become readable when something changes."""
        found = [agent.disk.events() for agent in self._agents if not agent.idle_because]
        return [each for each in found if each is not None]

    def _react(self, agent: ExportAgent) -> None:
        """Look at the volumes whose records have changed."""
        if agent.idle_because:
            return
        try:
            names = agent.disk.changed()
        except DiskError as exc:
            log.warning("quota_events_lost", root=agent.root, error=str(exc))
            names = None
        if names is None:
            self._next_pass_s[agent] = self._monotonic()
        for name in names or ():
            self._look_at(agent, name)

    def _look_at(self, agent: ExportAgent, name: str) -> None:
        agent.look_at(name)
        self._plan(agent, name)

    def _plan(self, agent: ExportAgent, name: str) -> None:
        """Plan another look at a volume that waits for something."""
        tries = agent.awaited.get(name, 0)
        if 0 < tries <= _APPEARS_TRIES:
            self._due[agent, name] = self._monotonic() + _APPEARS_S * 2**tries

    def _pass(self, agent: ExportAgent) -> Iterator[None]:
        began_s = self._monotonic()
        self._next_pass_s[agent] = began_s + PASS_S
        yield from agent.full_pass()
        agent.pass_took_s = self._monotonic() - began_s
        if agent.idle_because:
            self._next_pass_s[agent] = began_s + IDLE_S
        for name in agent.awaited:
            self._plan(agent, name)
        self._passing.discard(agent)

    def _walk(self, agent: ExportAgent) -> Iterator[None]:
        yield from agent.go_on()
        self._walking.discard(agent)
        for name in agent.busy:
            self._due.setdefault((agent, name), self._monotonic() + _BUSY_S)

    def _slice(self, until_s: float) -> None:
        while self._work:
            # Turn by turn, so that a long walk does not hold up a pass.
            work = self._work.pop(0)
            if next(work, _ENDED) is not _ENDED:
                self._work.append(work)
            if self._monotonic() >= until_s:
                return

    def _wait_s(self) -> float:
        if self.is_at_work:
            return 0.0
        due_s = min([*self._next_pass_s.values(), *self._due.values()])
        return max(0.0, due_s - self._monotonic())


_ENDED = object()

"""The namespaces of claims that wait, each read once for as long as what was read is sure to hold.

A namespace goes only after its claims. So what was read for a claim holds for every further one, until the store learns
that a claim of that namespace has gone: claims of a namespace that is created again come later than that.
"""

from __future__ import annotations

import structlog

from provisioner.core.objects import Namespace
from provisioner.core.tenancy import GRANT
from provisioner.ports.cluster import Cluster, Forbidden, NotFound

log = structlog.get_logger(__name__)


class Namespaces:
    """Reads namespaces for claims that are in the store."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, Namespace] = {}
        self._gone = 0
        """How many claims have gone."""
        self._said = False

    async def of_claim(self, name: str) -> Namespace | None:
        """The namespace of a claim that the store has; None where we may not read it. Raises ClusterError."""
        known = self._known.get(name)
        if known is not None:
            return known
        gone = self._gone
        try:
            found = await self._cluster.get_namespace(name)
        except Forbidden as exc:
            self._say(name, exc)
            return None
        if found is None:
            raise NotFound(f"namespace {name} is not there")
        if gone == self._gone:
            self._known[name] = found
        return found

    def claim_gone(self, name: str) -> None:
        """A claim has gone: its namespace may go, and be created again."""
        self._gone += 1
        self._known.pop(name, None)

    def _say(self, name: str, exc: Forbidden) -> None:
        if not self._said:
            self._said = True
            hint = f"{GRANT}: until then no claim gets what a former one left, or an archive"
            log.warning("namespace_not_read", namespace=name, error=str(exc), hint=hint)

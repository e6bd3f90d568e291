"""Namespaces of pending claims, cached for as long as the answer is certain to hold.

A namespace is deleted only after all of its claims. So the namespace that was read for one claim holds for every
further claim, until the cache sees a claim of that namespace deleted. Claims of a namespace that is deleted and created
again come after that.
"""

from __future__ import annotations

import structlog

from provisioner.core.objects import Namespace
from provisioner.core.tenancy import GRANT
from provisioner.ports.cluster import Cluster, Forbidden, NotFound

log = structlog.get_logger(__name__)


class Namespaces:
    """Reads namespaces for cached claims."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, Namespace] = {}
        self._gone = 0
        """The number of claims that were deleted."""
        self._warned = False

    async def of_claim(self, name: str) -> Namespace | None:
        """The namespace of a cached claim; None if the daemon may not read namespaces.

        Raises ClusterError.
        """
        known = self._known.get(name)
        if known is not None:
            return known
        gone = self._gone
        try:
            found = await self._cluster.get_namespace(name)
        except Forbidden as exc:
            self._warn_once(name, exc)
            return None
        if found is None:
            raise NotFound(f"namespace {name} does not exist")
        if gone == self._gone:  # else a claim was deleted during the call, perhaps one of this namespace
            self._known[name] = found
        return found

    def claim_gone(self, name: str) -> None:
        """Forget a namespace of which a claim was deleted.

        From now on it can be deleted and created again.
        """
        self._gone += 1
        self._known.pop(name, None)

    def _warn_once(self, name: str, exc: Forbidden) -> None:
        if not self._warned:
            self._warned = True
            hint = f"{GRANT}: until then no claim gets the directory of an earlier claim, or an archive"
            log.warning("namespace_not_read", namespace=name, error=str(exc), hint=hint)

"""Pods, as far as commands show which of them use a volume."""

from __future__ import annotations

from msgspec import Struct


class Pod(Struct, frozen=True):
    """A pod and the claims that it uses."""

    namespace: str
    name: str
    phase: str = ""
    node: str = ""
    claims: tuple[str, ...] = ()
    """The names of its claims, in its own namespace."""

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def runs(self) -> bool:
        """Whether it can have files of its volumes open: it has not ended."""
        return self.phase not in ("Succeeded", "Failed")

    def uses(self, namespace: str, claim: str) -> bool:
        """Return True if the pod uses this claim."""
        return self.namespace == namespace and claim in self.claims

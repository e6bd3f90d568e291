"""The work of `claims`: reads Pending claims of the provisioner's classes, and why they are Pending."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msgspec import structs

from provisioner.commands.session import connect, list_all, list_at
from provisioner.commands.warning_events import read_warnings
from provisioner.commands.watching import changes
from provisioner.core import waiting
from provisioner.core.objects import Claim, StorageClass
from provisioner.core.selectors import Choice
from provisioner.core.waiting import ClaimRow
from provisioner.kube.cluster import KubeCluster
from provisioner.settings import Settings

_EXPLAINED = 200
"""Claims whose events are read, oldest first: a cluster with thousands of Pending claims has one cause for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimList:
    """The Pending claims, and what to say if there is none."""

    claims: Sequence[ClaimRow]
    served: int
    """The number of all claims of the provisioner."""
    classes: Sequence[str]
    """The StorageClasses of the provisioner."""


class ClaimLister:
    """Lists Pending claims, and follows their changes; `open_claims` creates it."""

    def __init__(self, cluster: KubeCluster, settings: Settings, choice: Choice) -> None:
        self._cluster = cluster
        self._settings = settings
        self._choice = choice
        self._classes: Mapping[str, StorageClass] = {}
        self._version = ""
        self._shown: dict[str, ClaimRow] = {}

    async def read(self) -> ClaimList:
        """Return the Pending claims. Raises ClusterError."""
        provisioner = self._settings.provisioner
        self._classes = {each.name: each for each in await list_all(self._cluster, StorageClass)}
        claims, self._version = await list_at(self._cluster, Claim)
        served = [claim for claim in claims if waiting.is_served(claim, self._classes, provisioner)]
        rows = await self._explained([claim for claim in served if self._is_wanted(claim)])
        self._shown = {row.claim_uid: row for row in rows}
        return ClaimList(
            claims=waiting.in_order(rows),
            served=len(served),
            classes=sorted(each.name for each in self._classes.values() if each.provisioner == provisioner),
        )

    async def changes(self) -> AsyncIterator[ClaimRow]:
        """Yield each claim that becomes Pending, changes, or ceases to be Pending, after `read`."""
        async for claim, is_deleted in changes(self._cluster, Claim, self._version):
            known = self._shown.get(claim.uid)
            if known is None and not (self._is_wanted(claim) and await self._is_served(claim)):
                continue
            if is_deleted:
                row = structs.replace(waiting.listed(claim, ""), phase="Deleted", why="")
            else:
                (row,) = await self._explained([claim])
            if row != known:
                yield row
            if row.phase == "Pending":
                self._shown[claim.uid] = row
            else:
                self._shown.pop(claim.uid, None)

    def _is_wanted(self, claim: Claim) -> bool:
        return claim.status.phase == "Pending" and self._choice.has(claim.metadata.namespace, claim.metadata.labels)

    async def _is_served(self, claim: Claim) -> bool:
        if claim.class_name not in self._classes:
            self._classes = {each.name: each for each in await list_all(self._cluster, StorageClass)}
        return waiting.is_served(claim, self._classes, self._settings.provisioner)

    async def _explained(self, claims: Sequence[Claim]) -> list[ClaimRow]:
        """Return the rows of claims, with the reasons."""
        oldest = sorted(claims, key=lambda claim: claim.metadata.creation_timestamp)[:_EXPLAINED]
        warnings = await read_warnings(self._cluster, {claim.uid: claim.metadata.namespace for claim in oldest})
        return [
            waiting.listed(
                claim,
                waiting.why(
                    claim,
                    self._classes.get(claim.class_name),
                    self._settings.provisioner,
                    self._settings.default_export,
                    warning=warnings.of.get(claim.uid, ""),
                ),
            )
            for claim in claims
        ]


@asynccontextmanager
async def open_claims(settings: Settings, choice: Choice) -> AsyncIterator[ClaimLister]:
    """Connect to the API server. Raises InvalidSettings."""
    async with connect(settings) as cluster:
        yield ClaimLister(cluster, settings, choice)

"""The work of `recover --ledger`: compares ledgers with the volumes, and rewrites missing records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from provisioner.commands.session import Session, list_all, map_concurrently, open_session, unseen
from provisioner.core import ledgers, times
from provisioner.core.ledgers import Found, Ledger, Sheet
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, StorageClass, Volume
from provisioner.core.scope import Scope
from provisioner.ledger.export import Export
from provisioner.ledger.registry import ExportRegistry, ledger_of
from provisioner.ports.cluster import Cluster, ClusterError
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The cluster as it is now."""

    own: ledgers.Installation
    volumes: Sequence[Volume]
    claims: Mapping[str, Claim]
    """By `namespace/name`."""
    classes: Mapping[str, StorageClass]
    """By name."""


class Rewriting:
    """Compares the ledgers with the volumes on their exports once, and writes what is missing."""

    def __init__(
        self,
        exports: Iterable[Export],
        bare: Iterable[Export],
        registry: ExportRegistry,
        cluster: Cluster,
        present: Present,
    ) -> None:
        """`bare` are the exports whose ledgers have no id; the rest of those ledgers has not been read."""
        self._bare = list(bare)
        self._exports = [*exports, *self._bare]
        self._registry = registry
        self._cluster = cluster
        self._present = present
        self._sheets: dict[Export, Sheet] = {}
        self._missed: list[tuple[Export, ExportError]] = []

    async def look(self) -> Sequence[Sheet]:
        """Return what to do for each export; nothing is changed."""
        on = self._by_export()
        for export in self._exports:
            try:
                if export in self._bare:
                    await export.read_remains()
                ledger = ledger_of(export, self._registry.places)
                found = await self._found(export, ledger, on[export])
            except ExportError as exc:
                self._missed.append((export, exc))
                continue
            now = times.text(datetime.now(UTC))
            self._sheets[export] = ledgers.plan(ledger, found, self._present.volumes, self._present.own, now=now)
        return list(self._sheets.values())

    def but(self, scope: Scope) -> Scope:
        """Return the scope without the exports that failed during look()."""
        return scope.but(unseen(export, error) for export, error in self._missed)

    async def apply(self) -> Mapping[str, str]:
        """Write what look() found missing; return the reason per volume or export that failed. It can be repeated."""
        failed: dict[str, str] = {}
        for export, sheet in self._sheets.items():
            if not sheet.has_work:
                continue
            changed = await self._changed(sheet)
            failed |= changed
            records = {name: record for name, record in sheet.records.items() if name not in changed}
            try:
                failed |= await export.restore_ledger(sheet.id, records)
            except ExportError as exc:
                failed |= dict.fromkeys(records, str(exc)) or {export.name: str(exc)}
        return failed

    # ------------------------------------------------------------------------------------------- looking

    def _by_export(self) -> Mapping[Export, list[tuple[Volume, RelPath]]]:
        """Return the NFS volumes on each export that was opened."""
        on: defaultdict[Export, list[tuple[Volume, RelPath]]] = defaultdict(list)
        for volume in self._present.volumes:
            located = self._registry.locate(volume) if volume.spec.nfs is not None else None
            if located is not None and located[1]:
                on[located[0]].append((volume, located[1]))
        return on

    async def _found(self, export: Export, ledger: Ledger, on: Iterable[tuple[Volume, RelPath]]) -> list[Found]:
        """Return this provisioner's volumes on an export, with the state of their directories."""
        present = self._present
        own = [each for each in on if ledgers.is_own(each[0], ledger, present.own)]

        async def look(each: tuple[Volume, RelPath]) -> Found:
            volume, path = each
            reference = volume.spec.claim_ref
            found = Found(
                volume=volume,
                path=path,
                claim=present.claims.get(f"{reference.namespace}/{reference.name}") if reference else None,
                storage_class=present.classes.get(volume.spec.storage_class_name),
            )
            return await _examined(export, found) if ledgers.is_in_doubt(found, ledger) else found

        return sorted(await map_concurrently(look, own), key=lambda found: found.volume.name)

    # ------------------------------------------------------------------------------------------- writing

    async def _changed(self, sheet: Sheet) -> dict[str, str]:
        """Return the reason per volume that has changed since look()."""
        seen = [step.found.volume for step in sheet.steps if step.found.volume.name in sheet.records]

        async def compare(volume: Volume) -> str:
            try:
                now = await self._cluster.get_volume(volume.name)
            except ClusterError as exc:
                return str(exc)
            same = now is not None and (now.metadata.uid, now.spec, now.status) == (
                volume.metadata.uid,
                volume.spec,
                volume.status,
            )
            return "" if same else "the volume has changed during the command: run it again to see the new state"

        changed = zip(seen, await map_concurrently(compare, seen), strict=True)
        return {volume.name: why for volume, why in changed if why}


async def _examined(export: Export, found: Found) -> Found:
    """Add the state of its directory."""
    there, trouble = True, ""
    try:
        there = await export.contents(found.path) != "gone"
    except ExportError as exc:
        trouble = f"its directory cannot be read: {exc}"
    return replace(found, there=there, trouble=trouble)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What ledgers lack, and what could not be written."""

    sheets: Sequence[Sheet]
    failed: Mapping[str, str]
    """The reason by volume or export; empty for a dry run."""
    scope: Scope


async def rewrite_ledgers(settings: Settings, *, dry_run: bool) -> Outcome:
    """Find what the ledgers lack, and write it unless `dry_run`. Raises ClusterError, InvalidSettings."""
    async with open_session(settings) as session:
        rewriter = await _rewriting(session, settings.provisioner)
        sheets = await rewriter.look()
        failed = {} if dry_run else await rewriter.apply()
        return Outcome(sheets=sheets, failed=failed, scope=rewriter.but(session.scope))


async def _rewriting(session: Session, provisioner: str) -> Rewriting:
    """Read the cluster, after the ledgers: a volume created during the command has its record. Raises ClusterError."""
    cluster = session.cluster
    volumes, claims = await list_all(cluster, Volume), await list_all(cluster, Claim)
    classes = await list_all(cluster, StorageClass)
    present = Present(
        own=ledgers.Installation(provisioner=provisioner, cluster=session.cluster_id),
        volumes=volumes,
        claims={claim.key: claim for claim in claims},
        classes={each.name: each for each in classes},
    )
    return Rewriting(session.exports, session.bare, session.registry, cluster, present)

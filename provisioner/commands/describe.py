"""The work of `describe`: finds a claim, a volume or a directory, and reads all that belongs to it."""

from __future__ import annotations

from dataclasses import replace

from provisioner.commands.session import Session, connect, list_all, open_session_on, unseen
from provisioner.core import archives, description
from provisioner.core.description import Description, EventPart, Facts, Meaning, OfClaim, OfDirectory, OfVolume
from provisioner.core.errors import ProvisionerError
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim, Volume
from provisioner.core.scope import Scope
from provisioner.kube.cluster import KubeCluster
from provisioner.ledger.export import Export
from provisioner.ports.cluster import ClusterError
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings


class NotDescribed(ProvisionerError):
    """The argument names nothing, or more than one thing; the text says what to write instead."""


async def describe(settings: Settings, text: str, namespace: str | None) -> tuple[Description, Scope]:
    """Return the page about a claim, a volume or a directory, and which exports were read.

    Raises NotDescribed, ClusterError, InvalidSettings.
    """
    wanted = description.meanings(text, namespace)
    async with connect(settings) as cluster, open_session_on(cluster, settings) as session:
        reader = _Reader(cluster, session)
        for meaning in wanted:
            facts = await reader.find(meaning)
            if facts is not None:
                return description.describe(await reader.complete(facts)), session.scope
        skipped = "; ".join(map(str, session.scope.unseen))
        raise NotDescribed(
            f"there is no claim, PersistentVolume or directory {text}: name a claim as NAMESPACE/NAME, and a directory"
            f" as its path below the export, or as SERVER:/PATH" + (f" (skipped {skipped})" if skipped else "")
        )


class _Reader:
    """Reads from one cluster and its exports."""

    def __init__(self, cluster: KubeCluster, session: Session) -> None:
        self._cluster = cluster
        self._session = session

    async def find(self, meaning: Meaning) -> Facts | None:
        """Return the first facts of what an argument means; None if there is no such thing."""
        match meaning:
            case OfClaim(namespace, name):
                claim = await self._cluster.get_claim(namespace, name)
                return None if claim is None else Facts(claim=claim)
            case OfVolume(name):
                volume = await self._cluster.get_volume(name)
                return Facts(volume=volume) if volume is not None else self._of_record(name)
            case OfDirectory():
                return await self._of_directory(meaning)

    async def complete(self, facts: Facts) -> Facts:
        """Add what belongs to a claim, a volume or a directory, as far as it can be read."""
        facts = await self._with_objects(facts)
        facts = await self._with_directory(facts)
        facts = replace(facts, archives=self._archives(facts))
        return await self._with_pods_and_events(facts)

    def _of_record(self, volume: str) -> Facts | None:
        """Return the facts of a volume that only has a record."""
        for export in self._session.exports:
            record = export.records.get(volume)
            if record is not None:
                return _on(export, record.path, volume)
        return None

    async def _of_directory(self, meaning: OfDirectory) -> Facts | None:
        """Return the facts of a directory. Raises NotDescribed if several exports have it."""
        found: list[Facts] = []
        for export in self._session.exports:
            path = meaning.on(self._session.registry.places.same(export.location))
            if path and await self._is_known(export, path):
                holder = next((name for name, record in export.records.items() if record.path == path), "")
                found.append(_on(export, path, holder))
        if len(found) > 1:
            places = ", ".join(facts.export for facts in found)
            raise NotDescribed(
                f"directory {'/'.join(meaning.path)} is on several exports, write SERVER:/PATH: {places}"
            )
        return found[0] if found else None

    async def _is_known(self, export: Export, path: RelPath) -> bool:
        if any(record.path == path for record in export.records.values()) or path[0] in export.archived:
            return True
        try:
            return await export.contents(path) != "gone"
        except ExportError:
            return False

    async def _with_objects(self, facts: Facts) -> Facts:
        """Add the volume of a claim, the claim of a volume, and both of a directory."""
        volume = facts.volume
        if volume is None and facts.claim is not None and facts.claim.spec.volume_name:
            volume = await self._cluster.get_volume(facts.claim.spec.volume_name)
        if volume is None and facts.path:
            volume = await self._volume_at(facts)
        facts = replace(facts, volume=volume)
        if facts.claim is None and facts.claim_key[1]:
            claim: Claim | None = await self._cluster.get_claim(*facts.claim_key)
            facts = replace(facts, claim=claim)
        return facts

    async def _volume_at(self, facts: Facts) -> Volume | None:
        for volume in await list_all(self._cluster, Volume):
            located = self._session.registry.locate(volume)
            if located is not None and (located[0].name, located[1]) == (facts.export, facts.path):
                return volume
        return None

    async def _with_directory(self, facts: Facts) -> Facts:
        """Add the record, the state of the directory and the agent's answer."""
        volume = facts.volume
        export = next((each for each in self._session.exports if each.name == facts.export), None)
        if volume is not None and not facts.path:
            located = self._session.registry.locate(volume)
            if located is None:
                return facts
            export, path = located
            facts = replace(_on(export, path, volume.name), claim=facts.claim, volume=volume)
        if export is None or export not in self._session.exports:
            why = "its ledger was not read"
            return replace(facts, unread={**facts.unread, f"export {facts.export}": why}) if facts.path else facts
        try:
            contents = await export.contents(facts.path)
            answer = await export.answers.read(facts.record_of or (volume.name if volume is not None else ""))
            return replace(facts, contents=contents, answer=answer)
        except ExportError as exc:
            missed = unseen(export, exc)
            return replace(facts, unread={**facts.unread, missed.what: missed.why})

    def _archives(self, facts: Facts) -> list[archives.ArchiveRow]:
        """Return the archives of the claim, and the one that the argument names."""
        cluster = self._session.cluster_id
        return archives.in_order(
            archives.listed(name, record, export=export.name, cluster=cluster)
            for export in self._session.exports
            for name, record in export.archived.items()
            if (record.was.namespace, record.was.claim) == facts.claim_key
            or (export.name, (name,)) == (facts.export, facts.path)
        )

    async def _with_pods_and_events(self, facts: Facts) -> Facts:
        namespace, unread = facts.claim_key[0], dict(facts.unread)
        events: list[EventPart] = []
        try:
            if facts.claim is not None:
                events += await self._events(f"claim {facts.claim.key}", namespace, facts.claim.uid)
            if facts.volume is not None:
                events += await self._events(f"volume {facts.volume.name}", "default", facts.volume.metadata.uid)
        except ClusterError as exc:
            unread["events"] = str(exc)
        try:
            pods = await self._cluster.list_pods(namespace) if namespace else []
        except ClusterError as exc:
            pods, unread["pods"] = [], str(exc)
        return replace(facts, pods=pods, events=events, unread=unread)

    async def _events(self, about: str, namespace: str, uid: str) -> list[EventPart]:
        found = await self._cluster.list_events(namespace, uid)
        return [EventPart(each.at, each.type, each.reason, about, each.message) for each in found]


def _on(export: Export, path: RelPath, volume: str) -> Facts:
    """Return the facts that the ledger in memory has about a directory."""
    return Facts(
        export=export.name,
        path=path,
        record_of=volume if volume in export.records else "",
        record=export.records.get(volume),
        pending=volume in export.pending,
    )

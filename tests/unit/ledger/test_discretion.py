"""Refusals of the ledger as a claim's event has them: nothing of other namespaces is in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from msgspec import structs

from provisioner.core.errors import ProvisionerError
from provisioner.core.records import Record
from provisioner.ledger.errors import ArchiveUnusable, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support import samples
from tests.support.fakes.tree import MemoryTree
from tests.support.ledger_faults import opened
from tests.unit.ledger.test_nesting import inside

SECRETS = ("bank", "vault", "pv-secret", "another", "is being", "no record")
AT = datetime(2026, 1, 1, tzinfo=UTC)
ARCHIVE = "archived-vault-20260101T000000.000000Z"
PLAIN = Ownership()


def record(directory: str, *, namespace: str = "shop", cluster: str = "one", archive: str = "") -> Record:
    """Return a record of a claim, in namespace shop by default."""
    made = samples.record(directory, namespace=namespace)
    return structs.replace(made, cluster=cluster, archive=archive)


async def keep(export: Export, held: Record) -> None:
    """Returns an export on which a directory is taken."""
    await export.provision("pv-secret", held, PLAIN)
    await export.settle("pv-secret")


async def by_a_record(namespace: str, cluster: str) -> Export:
    export = await opened(MemoryTree())
    await keep(export, record("team/vault", namespace=namespace, cluster=cluster))
    return export


async def by_an_archive(namespace: str, cluster: str) -> Export:
    export = await opened(MemoryTree())
    await keep(export, record("vault", namespace=namespace, cluster=cluster))
    assert await export.archive("pv-secret", AT) == ARCHIVE
    await export.forget("pv-secret")
    return export


async def by_an_export_above(namespace: str, cluster: str) -> Export:
    outer = MemoryTree()
    await keep(await opened(outer), record("root/team/vault", namespace=namespace, cluster=cluster))
    return await opened(inside(outer, "root"))


Holder = Callable[[str, str], Awaitable[Export]]


@pytest.mark.parametrize(
    ("holder", "wanted"),
    [(by_a_record, "team"), (by_a_record, "team/vault/x"), (by_an_archive, ARCHIVE), (by_an_export_above, "team")],
)
@pytest.mark.parametrize(("namespace", "cluster"), [("bank", "one"), ("shop", "another")])
async def test_a_directory_that_is_taken(holder: Holder, wanted: str, namespace: str, cluster: str) -> None:
    """Who has the directory, in another namespace or cluster, is in the log only."""
    export = await holder(namespace, cluster)
    with pytest.raises(PathTaken) as caught:
        await export.provision("pvc-1", record(wanted), PLAIN)
    text = caught.value.event_text.replace(repr(wanted), "")
    assert "overlaps with a volume outside this namespace" in text
    assert not any(secret in text for secret in SECRETS)
    assert str(caught.value) != caught.value.event_text


@pytest.mark.parametrize(("holder", "wanted"), [(by_a_record, "team"), (by_an_archive, ARCHIVE)])
async def test_a_directory_of_one_s_own(holder: Holder, wanted: str) -> None:
    """A directory of the claim's own namespace is named in the event."""
    export = await holder("shop", "one")
    with pytest.raises(PathTaken) as caught:
        await export.provision("pvc-1", record(wanted), PLAIN)
    assert caught.value.event_text == str(caught.value)


async def refused(export: Export, archive: str) -> ProvisionerError:
    """Return the error for a claim of namespace shop that asks for an archive."""
    with pytest.raises(ArchiveUnusable) as caught:
        await export.provision("pvc-1", record("b", archive=archive), PLAIN)
    return caught.value


async def test_an_archive_that_the_namespace_does_not_have() -> None:
    """The event is the same for an archive of another namespace or cluster, unrecorded, unfinished or missing."""
    heard: dict[str, str] = {}
    for namespace, cluster in (("bank", "one"), ("shop", "another")):
        error = await refused(await by_an_archive(namespace, cluster), ARCHIVE)
        heard[error.event_text] = str(error)
    export = await opened(MemoryTree())
    heard[(await refused(export, ARCHIVE)).event_text] = "none"
    await export._tree.make_directory((ARCHIVE,), Ownership())
    error = await refused(export, ARCHIVE)
    heard[error.event_text] = str(error)
    assert "has no record" in str(error)
    half = await opened(MemoryTree())
    await keep(half, record("vault", namespace="bank"))
    assert await half.archive("pv-secret", AT) == ARCHIVE
    heard[(await refused(half, ARCHIVE)).event_text] = "in the making"
    (text,) = heard
    assert text.startswith(f"there is no archive {ARCHIVE!r} of namespace shop on the class's export")


async def test_an_export_that_lies_in_a_volume() -> None:
    """Every claim on such an export is refused, without the volume's name or directory."""
    outer = MemoryTree()
    await keep(await opened(outer), record("vault", namespace="bank"))
    with pytest.raises(ExportError) as caught:
        await opened(inside(outer, "vault", "share"))
    assert caught.value.cause is Cause.INSIDE
    assert "pv-secret has 'vault'" in str(caught.value)
    assert not any(secret in caught.value.event_message("nas:/exports") for secret in SECRETS[:3])

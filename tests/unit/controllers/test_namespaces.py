"""controllers.namespaces."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from provisioner.controllers.namespaces import Namespaces
from provisioner.ports.cluster import ApiUnavailable, Forbidden, NotFound
from tests.support.fakes.cluster import MemoryCluster


class Site:
    """A cluster with the namespace `shop`, and the number of reads of namespaces."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.cluster.namespaces.add("shop")
        self.cluster.before = self._before
        self.reads = 0
        self.error: Exception | None = None
        self.namespaces = Namespaces(self.cluster)

    async def _before(self, _call: str, _about: str) -> None:
        self.reads += 1
        if self.error is not None:
            raise self.error

    async def uid(self) -> str:
        found = await self.namespaces.of_claim("shop")
        return found.metadata.uid if found is not None else ""

    def create_again(self) -> None:
        self.cluster.namespaces.discard("shop")
        self.cluster.namespaces.add("shop")


@pytest.fixture
def site() -> Site:
    return Site()


async def test_read_once(site: Site) -> None:
    """A namespace is read once for all of its claims."""
    assert await site.uid() == await site.uid() != ""
    assert site.reads == 1


async def test_read_again_when_a_claim_has_gone(site: Site) -> None:
    """After the deletion of a claim its namespace is read again: it may be another one."""
    first = await site.uid()
    site.create_again()
    site.namespaces.claim_gone("shop")
    assert await site.uid() not in ("", first)


async def test_a_claim_that_goes_while_the_namespace_is_read(site: Site) -> None:
    """The answer to a read that began before a claim was deleted is not cached."""

    async def goes(_call: str, _about: str) -> None:
        site.namespaces.claim_gone("shop")

    site.cluster.after = goes
    first = await site.uid()
    site.create_again()
    assert await site.uid() != first


async def test_an_error_is_not_an_answer(site: Site) -> None:
    """An API server that does not answer, or has no such namespace, is asked again."""
    site.error = ApiUnavailable("away")
    with pytest.raises(ApiUnavailable):
        await site.uid()
    site.error = None
    site.cluster.namespaces.discard("shop")
    with pytest.raises(NotFound):
        await site.uid()
    site.cluster.namespaces.add("shop")
    assert await site.uid()


async def test_without_the_right(site: Site) -> None:
    """Without the right to read namespaces none is known, and the log says once what to grant."""
    site.error = Forbidden("namespaces is forbidden")
    with capture_logs() as logged:
        assert [await site.uid(), await site.uid()] == ["", ""]
    (line,) = logged
    assert line["event"] == "namespace_not_read"
    assert "grant get on namespaces" in line["hint"]

"""commands.watching: changes are followed over the end of a watch, and over a gap."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast

import pytest

from provisioner.commands import watching
from provisioner.core.objects import Metadata, Volume
from provisioner.ports.cluster import AnyItem, ApiUnavailable, Cluster, Expired, Kind, Page, WatchEvent


def volume(name: str) -> Volume:
    return Volume(Metadata(name=name))


class Scripted:
    """A cluster whose watches end as a script says."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def watch(self, kind: Kind, version: str) -> AsyncGenerator[WatchEvent[AnyItem], None]:
        self.asked.append(version)
        match len(self.asked):
            case 1:
                yield WatchEvent("ADDED", "2", volume("a"))
                yield WatchEvent("BOOKMARK", "3")
            case 2:
                raise Expired("too old")
            case 3:
                yield WatchEvent("DELETED", "8", volume("a"))
                raise ApiUnavailable("the connection broke")

    async def list(self, kind: Kind, *, continue_token: str = "") -> Page[AnyItem]:
        if len(self.asked) > 2:
            raise ApiUnavailable("no answer")
        if continue_token:
            return Page([volume("c")], "7")
        return Page([volume("b")], "7", "more")


async def test_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that ends continues, a gap is filled by a list, and an API server that stays away is an error."""
    monkeypatch.setattr(watching, "_PAUSE_S", 0.0)
    cluster = Scripted()
    seen: list[tuple[str, bool]] = []

    async def follow() -> None:
        async for item, is_deleted in watching.changes(cast(Cluster, cluster), Volume, "1"):
            seen.append((item.name, is_deleted))

    with pytest.raises(ApiUnavailable, match="no answer"):
        await follow()
    assert seen == [("a", False), ("b", False), ("c", False), ("a", True)]
    assert cluster.asked == ["1", "3", "7"]

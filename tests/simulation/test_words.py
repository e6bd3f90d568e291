"""An error with a message for users becomes an event, wherever in the work it occurs."""

from __future__ import annotations

from typing import Any

import pytest

from provisioner.core.errors import InvalidRecord
from provisioner.core.records import Record
from provisioner.ledger.export import Export
from tests.simulation import scripts
from tests.simulation.bugs import Mutant
from tests.simulation.world import NAMED, World, play

WORDS = "the record of the directory takes too many bytes"


class _NoRoom(Export):
    """The ledger has no room for a record, which only the export can know when an archive is restored."""

    async def provision(self, *_: Any, **__: Any) -> Record:
        raise InvalidRecord(WORDS)


class _NoRoomForTheArchive(Export):
    async def archive(self, *_: Any) -> str | None:
        raise InvalidRecord(WORDS)


async def _one_claim(world: World) -> None:
    world.add_class("nfs", onDelete="archive", pathPattern=NAMED)
    world.claim(scripts.KEY, "nfs")
    if await world.until(lambda: bool(world.judge.homes), limit_s=30.0):
        world.delete_claim(scripts.KEY)
        await world.until(lambda: False, limit_s=60.0)


@pytest.mark.parametrize(
    ("export", "kind", "reason"),
    [
        (_NoRoom, "PersistentVolumeClaim", "ProvisioningFailed"),
        (_NoRoomForTheArchive, "PersistentVolume", "VolumeFailedDelete"),
    ],
)
def test_no_room_for_a_record(export: type[Export], kind: str, reason: str) -> None:
    """A record that does not fit is a warning with its message on the claim or volume, and no unexpected error."""
    world = play(lambda chance: World(chance, parts=Mutant(export=export)), _one_claim, 0)
    assert not world.judge.violations
    warnings = [each.event for each in world.site.cluster.events.values() if each.event.type == "Warning"]
    assert [(each.about.kind, each.reason, WORDS in each.message) for each in warnings] == [(kind, reason, True)]

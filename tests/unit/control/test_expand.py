"""control.expand: what the ledger is told of a volume that has grown."""

from __future__ import annotations

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from provisioner.control.expand import note_sizes
from provisioner.control.exports import ExportWatch
from provisioner.control.recorder import EventRecorder
from provisioner.control.store import Store
from provisioner.control.surroundings import Surroundings
from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import Location
from provisioner.core.records import require_room
from provisioner.nfs.export import LedgeredExport
from provisioner.nfs.exports import ServedExports
from provisioner.ports import Access
from provisioner.telemetry.metrics import Metrics
from tests.fakes.clock import ManualClock
from tests.fakes.cluster import MemoryCluster
from tests.fakes.tree import MemoryTree
from tests.unit.core import samples

NAS = Location("nas", "/exports")


async def test_a_record_that_has_no_room_for_a_larger_size() -> None:
    """It stays as it is, with a warning: it must still have room to become an archive's and to come back from there."""
    record = structs.replace(samples.record("a"), cluster="memory")
    for length in range(1023):
        try:
            require_room(samples.VOLUME, longer := structs.replace(record, mount_options="x" * length))
        except InvalidRecord:
            break
        fits = longer
    export, clock, cluster, metrics = LedgeredExport(NAS, MemoryTree()), ManualClock(), MemoryCluster(), Metrics()
    exports, store = ServedExports({NAS: export}, NAS, lambda *_: pytest.fail("no other")), Store(samples.US)
    around = Surroundings(
        provisioner=samples.US,
        cluster=cluster,
        store=store,
        exports=exports,
        watch=ExportWatch(exports, clock, metrics),
        recorder=EventRecorder(cluster, clock),
        metrics=metrics,
        clock=clock,
        cluster_id="memory",
    )
    await export.open()
    await export.provision(samples.VOLUME, fits, Access())
    await export.settle(samples.VOLUME)
    store.apply("volumes", samples.volume(phase="Bound", capacity="1000000Gi"), deleted=False)
    with capture_logs() as logs:
        await note_sizes(export, around)
    assert export.records[samples.VOLUME].capacity == fits.capacity
    assert [line["event"] for line in logs] == ["size_not_recorded"]
    store.apply("volumes", samples.volume(phase="Bound", capacity="9Gi"), deleted=False)
    await note_sizes(export, around)
    assert export.records[samples.VOLUME].capacity == "9Gi"
    assert await export.archive(samples.VOLUME, clock.now()) is not None

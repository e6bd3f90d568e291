"""Exports that are missing, not mounted, or replaced by another one: the daemon writes nothing to the wrong place."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import fuse
from testbed.fuse import HangingMount
from tests.support.daemon import Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(120)


@pytest.mark.skipif(bool(fuse.missing()), reason=f"this machine cannot mount FUSE: {fuse.missing()}")
def test_nothing_is_written_below_a_missing_mount(storage: Storage, daemon: Daemons, tmp_path: Path) -> None:
    """With --require-mount a directory gets volumes only while a mount is on it (harm 8)."""
    source, place = tmp_path / "source", tmp_path / "place"
    source.mkdir()
    place.mkdir()
    export = Exported.new(place)
    running = daemon("--no-leader-election", "--require-mount", export.flag, wait_ready=False)
    storage_class = storage.storage_class(running.provisioner_name)
    storage.claim(storage_class)
    message = storage.event("ProvisioningFailed")["message"]
    assert export.location in message
    assert "is not mounted" in message
    assert list(place.iterdir()) == []
    with HangingMount(source, place):
        storage.bound(timeout_s=30.0)
    storage.claim(storage_class, "later")
    assert export.location in storage.event("ProvisioningFailed", "later")["message"]
    assert list(place.iterdir()) == []


def test_another_export_with_a_ledger_of_its_own(storage: Storage, daemon: Daemons, tmp_path: Path) -> None:
    """When another export takes the place of ours, the daemon creates and deletes nothing on it (harm 8)."""
    export = Exported.new(tmp_path / "export")
    export.root.mkdir()
    running = daemon("--no-leader-election", export.flag)
    storage_class = storage.storage_class(running.provisioner_name, {"onDelete": "delete"})
    storage.claim(storage_class)
    volume = storage.bound()
    aside = tmp_path / "aside"
    export.root.rename(aside)
    export.root.mkdir()
    (export.root / LEDGER / "volumes").mkdir(parents=True)
    (export.root / LEDGER / "export").symlink_to("another's id")
    export.directory(volume).mkdir()
    (export.directory(volume) / "precious").write_text("kept")
    storage.delete_claim()
    storage.claim(storage_class, "later")
    assert "was replaced by another export" in storage.event("ProvisioningFailed", "later")["message"]
    assert "was replaced by another export" in storage.volume_event(volume["metadata"]["name"])["message"]
    assert (export.directory(volume) / "precious").read_text() == "kept"
    assert export.names() == {export.directory(volume).name}
    export.root.rename(tmp_path / "wrong")
    aside.rename(export.root)
    storage.bound("later", timeout_s=30.0)
    storage.volume_gone(volume["metadata"]["name"])
    assert not export.directory(volume).exists()

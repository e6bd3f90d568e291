"""Clones end to end on a directory: conditions, data, protection of the source, cancellation and crashes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from testbed.api import Object
from tests.integration.conftest import Service
from tests.support.daemon import Daemons
from tests.support.planting import found_in, plant
from tests.support.storage import VOLUMES, ServedStorage, Storage

GID = "pv.beta.kubernetes.io/gid"

pytestmark = pytest.mark.timeout(180)


def source_of(name: str = "data", **more: Any) -> dict[str, Any]:
    return {"dataSource": {"kind": "PersistentVolumeClaim", "name": name} | more}


def planted(served: ServedStorage, name: str = "data", **fields: Any) -> Object:
    """Create a volume with data."""
    served.claim(served.own_class(fields.pop("parameters", None)), name, **fields)
    volume = served.bound(name)
    plant(served.directory(volume))
    return volume


def copies(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".provisioner" / "copies").iterdir())


@pytest.mark.parametrize("field", ["dataSource", "dataSourceRef"])
def test_a_clone(served: ServedStorage, field: str) -> None:
    """A clone has all of its source's data and is a volume of its own; the events name the source."""
    source = planted(served)
    before = found_in(served.directory(source), symlink_times=True)
    served.claim(served.own_class(), "clone", **{field: source_of()["dataSource"]})
    clone = served.bound("clone")
    assert found_in(served.directory(clone), symlink_times=True) == before
    (served.directory(clone) / "large").write_text("changed")
    assert found_in(served.directory(source), symlink_times=True) == before
    assert f"clone of claim {served.namespace}/data" in served.event("ProvisioningSucceeded", "clone")["message"]
    progress = f"copying the data of claim {served.namespace}/data"
    served.eventually(
        lambda: any(progress in event["message"] for event in served.events("clone")), "an event tells it"
    )
    assert copies(served.export.root) == []
    served.released(clone)
    served.released(source)


def test_to_another_export(served: ServedStorage, service: Service) -> None:
    """A claim can be cloned into a class of another export."""
    source = planted(served)
    served.claim(served.own_class(service.second.parameters), "clone", **source_of())
    clone = served.bound("clone")
    assert found_in(service.second.directory(clone)) == found_in(served.directory(source))


def test_a_group_of_its_own(served: ServedStorage) -> None:
    """The clone of a volume with a group gets another group, and so does all that had the source's."""
    if os.geteuid() != 0:
        pytest.skip("this machine cannot chown: the tests do not run as root")
    class_name = served.own_class({"gid": "auto", "gidRange": "61000-61999"})
    served.claim(class_name)
    source = served.bound()
    plant(served.directory(source))
    gid = int(source["metadata"]["annotations"][GID])
    os.chown(served.directory(source) / "zero", 5, gid)
    served.claim(class_name, "clone", **source_of())
    clone = served.bound("clone")
    other = int(clone["metadata"]["annotations"][GID])
    here, there = served.directory(source), served.directory(clone)
    assert other != gid
    assert (there.stat().st_gid, (there / "zero").stat().st_gid, (there / "large").stat().st_gid) == (
        other,
        other,
        1001,
    )
    assert (here.stat().st_gid, (here / "zero").stat().st_gid) == (gid, gid)


def test_a_chain(served: ServedStorage) -> None:
    """A clone can be cloned, and its source can be gone by then."""
    source, class_name = planted(served), served.own_class()
    before = found_in(served.directory(source))
    served.claim(class_name, "one", **source_of())
    served.bound("one")
    served.released(source)
    served.claim(class_name, "two", **source_of("one"))
    assert found_in(served.directory(served.bound("two"))) == before


def test_what_is_refused(served: ServedStorage) -> None:
    """A source that does not fit is refused with what to change, and no volume is created."""
    planted(served, size="3Mi")
    class_name = served.own_class()
    served.claim(class_name, "small", size="2Mi", **source_of())
    assert "request at least as much" in served.refusal("small")
    served.claim(class_name, "none", **source_of("nothing"))
    assert f"source claim {served.namespace}/nothing does not exist" in served.refusal("none")
    served.make_volume(
        {
            "metadata": {"name": f"static-{served.namespace}"},
            "spec": {
                "capacity": {"storage": "1Mi"},
                "accessModes": ["ReadWriteMany"],
                "nfs": {"server": "elsewhere", "path": "/data"},
                "storageClassName": "",
                "claimRef": {"namespace": served.namespace, "name": "static"},
            },
        }
    )
    served.claim("", "static", volumeName=f"static-{served.namespace}")
    served.eventually(lambda: not served.unbound(["static"]), "the static claim is bound")
    served.claim(class_name, "foreign", **source_of("static"))
    assert "another provisioner" in served.refusal("foreign")
    assert not served.has_volume(f"pvc-{served.get_claim('none')['metadata']['uid']}")


def test_a_source_that_comes_later(served: ServedStorage) -> None:
    """A clone waits for a source that does not exist yet, or is not bound yet."""
    class_name = served.own_class()
    served.claim(class_name, "clone", **source_of())
    served.event("ProvisioningFailed", "clone")
    served.claim(class_name)
    assert served.bound()
    assert served.bound("clone", timeout_s=30)


def test_what_no_copy_can_have(served: ServedStorage) -> None:
    """Sockets are left out, and an event names them."""
    source = planted(served)
    with socket.socket(socket.AF_UNIX) as unix:
        here = served.directory(source) / "s"
        link = Path("/tmp") / f"{served.namespace}.d"
        link.symlink_to(here.parent)
        unix.bind(f"{link}/s")
        link.unlink()
    served.claim(served.own_class(), "clone", **source_of())
    clone = served.bound("clone")
    assert not (served.directory(clone) / "s").exists()
    assert "'s'" in served.event("VolumeCopyIncomplete", "clone")["message"]


def large(directory: Path, *, files: int) -> None:
    """Plant so many files that a copy of them takes a while."""
    for number in range(files):
        (directory / f"{number % 100}").mkdir(exist_ok=True)
        (directory / f"{number % 100}" / f"{number}").write_bytes(b"x" * 100)


@pytest.fixture
def slow(daemon: Daemons, storage: Storage, export_directory: Path) -> tuple[Storage, str, Path]:
    """A volume with many files, its class, and its directory."""
    started = daemon(f"--export=nas.example:/x={export_directory}", "--no-leader-election")
    class_name = storage.storage_class(started.provisioner_name, {"server": "nas.example", "share": "/x"})
    storage.claim(class_name)
    volume = storage.bound()
    directory = export_directory / volume["spec"]["nfs"]["path"].removeprefix("/x/")
    large(directory, files=8_000)
    return storage, class_name, directory


def begun(storage: Storage, root: Path) -> Path:
    """Wait until a copy has some files, and return where it is."""

    def some() -> Path | None:
        found = list((root / ".provisioner" / "copies").glob("*/tree"))
        return found[0] if found and any(found[0].iterdir()) else None

    return storage.eventually(some, "a copy has begun")


def test_the_source_is_protected(slow: tuple[Storage, str, Path], export_directory: Path) -> None:
    """A source that is deleted during the copy is reclaimed only after it, also with its volume; the clone is whole."""
    storage, class_name, directory = slow
    volume = storage.get_claim()["spec"]["volumeName"]
    storage.claim(class_name, "clone", **source_of())
    begun(storage, export_directory)
    storage.delete_claim()
    storage.api.delete(f"{VOLUMES}/{volume}")
    assert "being cloned" in storage.volume_event(volume, "VolumeBeingCloned", type="Normal")["message"]
    assert directory.is_dir()
    clone = storage.bound("clone", timeout_s=120)
    copy = export_directory / clone["spec"]["nfs"]["path"].removeprefix("/x/")
    assert sum(1 for path in copy.rglob("*") if path.is_file()) == 8_000
    storage.volume_gone(volume)
    assert not directory.exists()


def test_a_deleted_claim(slow: tuple[Storage, str, Path], export_directory: Path) -> None:
    """A claim that is deleted during its copy leaves nothing, soon; other claims are served during the copy."""
    storage, class_name, directory = slow
    claim = storage.claim(class_name, "clone", **source_of())
    begun(storage, export_directory)
    storage.claim(class_name, "other")
    storage.bound("other", timeout_s=15)
    storage.delete_claim("clone")
    storage.eventually(lambda: not copies(export_directory), "the copy is discarded", timeout_s=10)
    pending = export_directory / ".provisioner" / "pending" / f"pvc-{claim['metadata']['uid']}"
    storage.eventually(lambda: not pending.is_symlink(), "the record is removed")
    trash = export_directory / ".provisioner" / "trash"
    storage.eventually(lambda: not list(trash.glob("copy-*/tree")), "it is purged", timeout_s=60)
    assert not storage.has_volume(f"pvc-{claim['metadata']['uid']}")
    assert sum(1 for path in directory.rglob("*") if path.is_file()) == 8_000


def test_a_crash(slow: tuple[Storage, str, Path], daemon: Daemons, export_directory: Path) -> None:
    """A daemon that is killed during a copy leaves no volume; the next one copies again, and leaves nothing of it."""
    storage, class_name, _ = slow
    claim = storage.claim(class_name, "clone", **source_of())
    first = begun(storage, export_directory)
    daemon.started[-1].kill()
    assert not storage.has_volume(f"pvc-{claim['metadata']['uid']}")
    time.sleep(1)
    daemon(
        f"--export=nas.example:/x={export_directory}",
        "--no-leader-election",
        provisioner_name=daemon.started[-1].provisioner_name,
    )
    clone = storage.bound("clone", timeout_s=120)
    copy = export_directory / clone["spec"]["nfs"]["path"].removeprefix("/x/")
    assert sum(1 for path in copy.rglob("*") if path.is_file()) == 8_000
    assert not first.exists()
    assert copies(export_directory) == []


@pytest.mark.parametrize("end", ["frozen", "stopped"])
def test_another_leader(daemon: Daemons, storage: Storage, export_directory: Path, end: str) -> None:
    """A replica that becomes the leader during a copy finishes it; what the former one still does reaches no volume."""
    short = ("--lease-duration=4s", "--renew-deadline=3s", "--retry-period=500ms")
    export = f"--export=nas.example:/x={export_directory}"
    first = daemon(export, *short)
    storage.eventually(lambda: "nfs_provisioner_leader 1.0" in first.http("/metrics"), "the first leads")
    second = daemon(export, *short, provisioner_name=first.provisioner_name)
    class_name = storage.storage_class(first.provisioner_name, {"server": "nas.example", "share": "/x"})
    storage.claim(class_name)
    directory = export_directory / storage.bound()["spec"]["nfs"]["path"].removeprefix("/x/")
    large(directory, files=8000)
    storage.claim(class_name, "clone", **source_of())
    begun(storage, export_directory)
    if end == "frozen":
        first.pause()
    else:
        first.terminate()
        assert first.wait() == 0
    clone = storage.bound("clone", timeout_s=90)
    assert "nfs_provisioner_leader 1.0" in second.http("/metrics")
    copied = export_directory / clone["spec"]["nfs"]["path"].removeprefix("/x/")
    files = [path for path in copied.rglob("*") if path.is_file()]
    assert len(files) == 8000
    for path in files[::10]:
        path.write_text("changed")
    if end == "frozen":
        first.resume()
        time.sleep(8)
    assert all(path.read_text() == "changed" for path in files[::10])
    assert sum(1 for path in copied.rglob("*") if path.is_file()) == 8000
    storage.eventually(lambda: copies(export_directory) == [], "no copy is left", timeout_s=90)

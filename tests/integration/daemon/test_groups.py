"""A group for every volume on a real control plane: parameters, unique ids, archives, recovery, and both drivers."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.api import Object
from testbed.cluster import ControlPlane
from tests.support.archiving import RESTORE, archive, command, records
from tests.support.daemon import Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.storage import VOLUMES, ServedStorage, Storage

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="this machine cannot chown: the tests do not run as root"),
]

GID = "pv.beta.kubernetes.io/gid"


def group_of(volume: Object) -> int:
    """Return the group that a PersistentVolume names."""
    return int(volume["metadata"]["annotations"][GID])


def seen(path: Path) -> tuple[int, int]:
    """Return mode and group of a directory."""
    found = path.stat()
    return found.st_mode & 0o7777, found.st_gid


def entries(export: Exported) -> dict[int, str]:
    """Return the volumes that hold group ids, by the ledger."""
    directory = export.root / LEDGER / "groups"
    return {int(name): os.readlink(directory / name).split()[0] for name in os.listdir(directory)}


def test_every_volume_has_a_group_of_its_own(served: ServedStorage) -> None:
    """Claims at the same moment each get an id of the range: on the volume, its directory and its record."""
    class_name = served.own_class({"GID": "Auto", "gidrange": "61000 - 61019", "onDelete": "delete"})
    names = [f"data-{number}" for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: served.claim(class_name, name), names))
    volumes = [served.bound(name) for name in names]
    assert sorted(map(group_of, volumes)) == list(range(61000, 61012))
    served.eventually(lambda: served.export.lists(*volumes), "all records are settled")
    held = entries(served.export)
    for volume in volumes:
        gid, name = group_of(volume), volume["metadata"]["name"]
        assert seen(served.directory(volume)) == (0o2770, gid)
        assert (served.export.records[name]["gid"], held[gid]) == (gid, name)


def test_the_class_can_choose_mode_and_owner(served: ServedStorage) -> None:
    """Mode and uid of the class apply to a volume with a group of its own; a fixed gid is no annotation."""
    volume = served.volume({"gid": "auto", "gidRange": "61100-61109", "mode": "0750", "uid": "1234"}, "chosen")
    found = served.directory(volume).stat()
    assert (found.st_uid, *seen(served.directory(volume))) == (1234, 0o750, 61100)
    fixed = served.volume({"gid": "61500"}, "fixed")
    assert served.directory(fixed).stat().st_gid == 61500
    assert GID not in fixed["metadata"]["annotations"]


def test_an_id_is_used_again(served: ServedStorage) -> None:
    """A claim without a free id waits and says what to change; it is provisioned after the purge of another volume."""
    class_name = served.own_class({"gid": "auto", "gidRange": "61200-61200", "onDelete": "delete"})
    served.claim(class_name, "first")
    first = served.bound("first")
    served.claim(class_name, "second")
    message = served.refusal("second")
    assert "no group id of gidRange 61200-61200 is free on export" in message
    assert "use a StorageClass with a wider gidRange" in message
    served.released(first)
    assert group_of(served.bound("second")) == 61200


def test_values_that_are_refused(served: ServedStorage) -> None:
    """A range without gid: auto, and one that cannot be used, refuse the claim with what is allowed."""
    served.claim(served.own_class({"gidRange": "5-9"}), "fixed")
    assert "parameter gidRange needs gid: auto: add that, or remove gidRange" in served.refusal("fixed")
    served.claim(served.own_class({"gid": "auto", "gidRange": "9-5"}), "reversed")
    assert "'9-5' contains no id: write the lower id first" in served.refusal("reversed")


def test_archives_keep_the_group(served: ServedStorage) -> None:
    """An archive keeps its id, and the claim that restores it gets volume, record and directory with it."""
    class_name = served.own_class({"gid": "auto", "gidRange": "61300-61309", "onDelete": "archive"})
    name = archive(served, served.export.root, class_name, "old")
    assert records(served.export.root)[name]["was"]["gid"] == 61300
    served.claim(class_name, "other")
    assert group_of(served.bound("other")) == 61301
    served.claim(class_name, "new", metadata={"annotations": {RESTORE: name}})
    volume = served.bound("new")
    assert (group_of(volume), seen(served.directory(volume))) == (61300, (0o2770, 61300))
    served.eventually(lambda: entries(served.export)[61300] == volume["metadata"]["name"], "the entry names the volume")


def test_retained_directories_keep_the_group(served: ServedStorage) -> None:
    """A claim that adopts a retained directory gets its group, also with a class that asks for none."""
    stable = {"pathPattern": "${.PVC.namespace}/stable", "onDelete": "retain"}
    first = served.volume(stable | {"gid": "auto", "gidRange": "61400-61409"}, "first")
    served.released(first)
    second = served.volume(stable, "second")
    assert (group_of(second), served.directory(second)) == (group_of(first), served.directory(first))


def test_recovery(control_plane: ControlPlane, storage: Storage, daemon: Daemons, export_directory: Path) -> None:
    """`recover` writes the annotation again, and `recover --ledger` the record and the entry of the id."""
    export = Exported.new(export_directory)
    running = daemon("--no-leader-election", export.flag)
    provisioner = running.provisioner_name
    class_name = storage.storage_class(provisioner, export.parameters | {"gid": "auto", "gidRange": "62000-62009"})
    storage.claim(class_name)
    volume = storage.bound()
    name = volume["metadata"]["name"]
    storage.eventually(lambda: export.lists(volume), "the record is settled")
    running.stop()
    # The record and the entry are lost.
    (export.root / LEDGER / "volumes" / name).unlink()
    (export.root / LEDGER / "groups" / "62000").unlink()
    done = command(control_plane, "recover", provisioner, export.flag, "--ledger", "--apply")
    assert done.returncode == 0, done.stderr
    assert (export.records[name]["gid"], entries(export)) == (62000, {62000: name})
    # The PersistentVolume is lost.
    storage.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": []}})
    storage.api.delete(f"{VOLUMES}/{name}")
    storage.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": []}})
    storage.volume_gone(name)
    shown = command(control_plane, "recover", provisioner, export.flag, f"--volume={name}", "-o", "json")
    assert GID in json.dumps(json.loads(shown.stdout))
    done = command(control_plane, "recover", provisioner, export.flag, f"--volume={name}", "--apply")
    assert done.returncode == 0, done.stderr
    assert group_of(storage.get_volume(name)) == 62000

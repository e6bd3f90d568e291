"""Classes with a quota on a real control plane, with the real quota agent beside the export; its limits are faked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.api import Object
from tests.integration.daemon.test_expansion import request, wait_size
from tests.support.archiving import RESTORE, archive
from tests.support.daemon import Daemons
from tests.support.exported import LEDGER, Exported
from tests.support.loopback_agent import LoopbackAgent, LoopbackDisk
from tests.support.storage import CLASSES, ServedStorage, Storage

pytestmark = pytest.mark.timeout(180)

REQUIRED, PREFERRED = {"quota": "required"}, {"quota": "preferred"}
MI = 1 << 20
QUOTA = "nfs-provisioner/quota"


@pytest.fixture
def export(export_directory: Path) -> Exported:
    """An export of the test's own."""
    return Exported.new(export_directory)


@pytest.fixture
def own(
    storage: Storage, daemon: Daemons, export: Exported, cluster_api: object, namespace: str
) -> Iterator[ServedStorage]:
    """Classes and claims on that export, with a daemon of the test's own."""
    running = daemon(
        "--no-leader-election", export.flag, environment={"NFS_SERVER": export.server, "NFS_PATH": export.path}
    )
    served = ServedStorage(storage.api, namespace, daemon=running, export=export)
    served.eventually(lambda: (export.root / LEDGER / "export").is_symlink(), "the ledger is there")
    yield served
    served.remove_volumes()
    served.remove_classes()


def waiting(served: ServedStorage, export: Exported, name: str = "data") -> str:
    """Wait until the claim's directory is there and its volume is not; return the volume's name."""
    volume = f"pvc-{served.get_claim(name)['metadata']['uid']}"
    served.eventually(lambda: export.is_pending(volume) and export.names(), "the claim waits")
    assert not served.has_volume(volume)
    return volume


def test_a_claim_waits_for_its_agent(own: ServedStorage, export: Exported) -> None:
    """Without an agent the claim waits and says what is missing; with one it is bound, and its size in force."""
    own.claim(own.own_class(REQUIRED))
    assert "no quota agent has reported on export" in own.refusal()
    waiting(own, export)
    time.sleep(3.0)
    assert len(own.events(reason="ProvisioningFailed")) == 1
    with LoopbackAgent(export.root) as agent:
        volume = own.bound()
        assert agent.limit_of(own.directory(volume)) == MI
        assert volume["metadata"]["annotations"][QUOTA] == "required"
        assert export.records[volume["metadata"]["name"]]["quota"] == "required"
        own.delete_claim()
        own.volume_gone(volume["metadata"]["name"])


def test_an_agent_that_answers_costs_little(own: ServedStorage, export: Exported) -> None:
    """Claims with a quota are bound immediately where an agent runs, without a warning."""
    with LoopbackAgent(export.root) as agent:
        own.eventually(lambda: (export.root / LEDGER / "agent").is_symlink(), "the agent is there", timeout_s=60)
        class_name = own.own_class(REQUIRED)
        names = [f"data-{number}" for number in range(10)]
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda name: own.claim(class_name, name), names))
        volumes = [own.bound(name) for name in names]
        assert [agent.limit_of(own.directory(volume)) for volume in volumes] == [MI] * 10
        projects = {os.stat(own.directory(volume)).st_ino for volume in volumes}
        assert len(projects) == 10
        for name in names:
            assert own.events(name, reason="ProvisioningFailed") == []


def test_preferred(own: ServedStorage, export: Exported) -> None:
    """With `preferred` the volume is there without an agent, and its size is in force once there is one."""
    volume = own.volume({"quota": "preferred"})
    with LoopbackAgent(export.root) as agent:
        own.eventually(lambda: agent.limit_of(own.directory(volume)) == MI, "the limit is in force", timeout_s=60)


def test_a_claim_that_is_deleted_while_it_waits(own: ServedStorage, export: Exported) -> None:
    """Its directory and its record go."""
    own.claim(own.own_class(REQUIRED))
    name = waiting(own, export)
    own.delete_claim()
    own.eventually(lambda: not export.is_pending(name) and not export.names(), "nothing is left")


def test_a_daemon_that_is_killed_while_a_claim_waits(own: ServedStorage, export: Exported) -> None:
    """The next daemon continues with the same directory."""
    own.claim(own.own_class(REQUIRED))
    waiting(own, export)
    before = export.names()
    own.daemon.kill()
    own.daemon.start()
    with LoopbackAgent(export.root):
        volume = own.bound()
    assert export.names() == before == {own.directory(volume).name}


def test_a_class_that_is_replaced_while_a_claim_waits(own: ServedStorage, export: Exported) -> None:
    """A claim need not wait any longer once its class, created again, does not require the agent."""
    class_name = own.own_class(REQUIRED)
    own.claim(class_name)
    name = waiting(own, export)
    own.api.delete(f"{CLASSES}/{class_name}")
    own.api.post(CLASSES, {"metadata": {"name": class_name}, "provisioner": own.provisioner, "parameters": PREFERRED})
    volume = own.bound()
    assert (volume["metadata"]["name"], volume["metadata"]["annotations"][QUOTA]) == (name, "preferred")
    assert export.records[name]["quota"] == "preferred"


def test_ext4(own: ServedStorage, export: Exported) -> None:
    """On ext4, where root can write beyond a limit, the class is refused until an admin says otherwise."""
    own.claim(own.own_class(REQUIRED))
    with LoopbackAgent(export.root, LoopbackDisk(export.root, filesystem="ext4")):
        own.eventually(
            lambda: [each for each in own.events(reason="ProvisioningFailed") if "--root-is-held" in each["message"]],
            "an event says what to change",
            timeout_s=60,
        )
        waiting(own, export)


def test_an_expansion_is_in_force_before_it_is_reported(own: ServedStorage, export: Exported) -> None:
    """A larger size is in force within two seconds, and the claim has it only then."""
    with LoopbackAgent(export.root) as agent:
        volume = own.volume(REQUIRED, allowVolumeExpansion=True)
        seen: list[tuple[int, int]] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                said = own.get_claim()["status"]["capacity"]["storage"]
                seen.append((int(said.removesuffix("Mi")) * MI, agent.limit_of(own.directory(volume))))

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        began_s = time.monotonic()
        request(own, "3Mi")
        own.eventually(lambda: agent.limit_of(own.directory(volume)) == 3 * MI, "the limit is in force")
        took_s = time.monotonic() - began_s
        wait_size(own, "3Mi")
        ended.set()
        watching.join()
    assert took_s < 2.0
    assert all(said <= limit for said, limit in seen), seen
    assert own.get_volume(volume["metadata"]["name"])["spec"]["capacity"] == {"storage": "3Mi"}
    assert own.events(reason="VolumeResizeFailed") == []


def test_an_expansion_that_cannot_be(own: ServedStorage, export: Exported) -> None:
    """The claim says that its expansion is infeasible, can be lowered again, and grows once an agent can limit it."""
    with LoopbackAgent(export.root) as agent:
        volume = own.volume(REQUIRED, allowVolumeExpansion=True)
        name = volume["metadata"]["name"]
    agent.disk.lacks = ("it is mounted without prjquota",)
    with LoopbackAgent(export.root, agent.disk):
        own.eventually(lambda: "prjquota" in os.readlink(export.root / LEDGER / "agent"), "the agent lacks something")
        request(own, "5Mi")

        def infeasible() -> Object | None:
            states: Object = own.get_claim()["status"].get("allocatedResourceStatuses") or {}
            return states if states.get("storage") == "ControllerResizeInfeasible" else None

        own.eventually(infeasible, "the claim says so")
        assert "mounted without prjquota" in own.event("VolumeResizeFailed")["message"]
        assert own.get_volume(name)["spec"]["capacity"] == {"storage": "1Mi"}
        assert export.records[name]["size"] == "5Mi"
        request(own, "2Mi")  # the API server wants more than the claim has
        own.eventually(lambda: export.records[name]["size"] == "2Mi", "the record is lowered too")
        own.eventually(infeasible, "the claim still says so")
    agent.disk.lacks = ()
    with LoopbackAgent(export.root, agent.disk) as agent:
        wait_size(own, "2Mi")
        assert agent.limit_of(own.directory(volume)) == 2 * MI


def test_a_restored_archive(own: ServedStorage, export: Exported) -> None:
    """An archive keeps its limit, and the claim that restores it waits until all of its data counts."""
    with LoopbackAgent(export.root) as agent:
        class_name = own.own_class({**REQUIRED, "onDelete": "archive"})
        name = archive(own, export.root, class_name)
        assert agent.limit_of(export.root / name) == MI
        own.claim(class_name, "again", size="2Mi", metadata={"annotations": {RESTORE: name}})
        volume = own.bound("again")
        assert own.directory(volume).joinpath("file").read_text() == "precious"
        assert agent.limit_of(own.directory(volume)) == 2 * MI

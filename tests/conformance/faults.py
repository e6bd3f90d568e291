"""Faults beside the suite: the leader is killed every two minutes, or a second NFS server is killed and started again.

A fault is a context. It goes on until the context ends, and then fails if it did not do what it is for.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from testbed.api import ApiError
from testbed.ganesha import Export, Ganesha
from testbed.processes import ServerFailed
from tests.e2e.installed import NAMESPACE, Installed
from tests.e2e.nodes.machine import ScriptFailed
from tests.e2e.stories import PATIENCE_S
from tests.support.storage import Storage

PERIOD_S = 120.0
"""The time between two faults."""

DOWN_S = 20.0
"""How long the second NFS server is down."""

_KILL = "kill -KILL $(pgrep --full nfs-provisioner.run | head -n 1)"


@contextmanager
def leader(installed: Installed) -> Iterator[list[str]]:
    """Kill the leader's process again and again; yields the names of the killed pods."""
    killed: list[str] = []

    def kill() -> None:
        pod = installed.leader()
        (machine,) = [each for each in installed.cluster.nodes if each.name == pod["spec"]["nodeName"]]
        machine.run(_KILL)
        # A new pod starts without the back-off of a container that ended often.
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
        installed.cluster.api.delete(path, {"gracePeriodSeconds": 0})
        killed.append(pod["metadata"]["name"])

    with _repeated(kill):
        yield killed
    if not killed:
        raise AssertionError("no leader was killed: the suite ended too early")


@contextmanager
def server(installed: Installed) -> Iterator[list[str]]:
    """Restart a second NFS server again and again, each time with a claim that waits for it; yields the claims.

    All claims must be Bound at the end.
    """
    cluster = installed.cluster
    directory = cluster.export.parent / "second"
    directory.mkdir()
    claims: list[str] = []
    with Ganesha([Export(directory, "/second")], directory=cluster.export.parent / "second-nfs") as second:
        namespace = f"second-{secrets.token_hex(4)}"
        cluster.api.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        storage = Storage(cluster.api, namespace, daemon_logs=installed.logs)
        options = ["nfsvers=4.1", f"port={second.port}"]
        parameters = {"server": cluster.nfs_server, "share": "/second", "onDelete": "delete"}
        name = storage.storage_class(installed.provisioner, parameters, mountOptions=options)
        numbers = itertools.count(1)

        def restart() -> None:
            second.kill()
            claim = f"claim-{next(numbers)}"
            storage.claim(name, claim)
            claims.append(claim)
            threading.Event().wait(DOWN_S)
            second.start()

        with _repeated(restart):
            yield claims
        if not claims:
            raise AssertionError("the second NFS server was not restarted: the suite ended too early")
        # A server ends with the thread that started it.
        second.kill()
        second.start()
        for claim in claims:
            volume = storage.bound(claim, timeout_s=PATIENCE_S)
            storage.delete_claim(claim)
            storage.volume_gone(volume["metadata"]["name"], timeout_s=PATIENCE_S)
        storage.remove_classes()
        cluster.api.delete(f"/api/v1/namespaces/{namespace}")


FAULTS = {"leader": leader, "server": server}
"""The faults by their names in FAULTS of `make conformance`."""


@contextmanager
def _repeated(fault: Callable[[], None]) -> Iterator[None]:
    """Call `fault` in a thread every PERIOD_S until the context ends; the context ends with its first failure."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        while not ended.wait(PERIOD_S):
            try:
                fault()
            except (ApiError, AssertionError, OSError, ScriptFailed, ServerFailed) as exc:
                failures.append(exc)
                return

    thread = threading.Thread(target=repeat, name="faults")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise AssertionError(f"the faults stopped early: {failures[0]}") from failures[0]

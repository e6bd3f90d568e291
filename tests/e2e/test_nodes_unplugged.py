"""A node with the leader and a workload's pod loses its power: both move to the other node, and the node returns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.installed import Installed
from tests.e2e.nodes.machine import Machine
from tests.e2e.stories import NGINX, PATIENCE_S, Story, pod_spec, workload

pytestmark = pytest.mark.timeout(3600)

SYNCED = """
trap exit TERM
cat /data/ticks 2>/dev/null || true
while :; do
    date +%s | dd of=/data/ticks oflag=append conv=notrunc,fsync status=none && tail -n 1 /data/ticks
    sleep 1 & wait $!
done
"""
"""Prints what it has synced to the server, so that its log names only data that must survive."""


@dataclass(frozen=True)
class Unplugged:
    """The lost node, the leader's pod, the workload's pod with its output, and the time."""

    story: Story
    machine: Machine
    leader: str
    pod: str
    output: list[str]
    since_s: float


def near(node: str) -> dict[str, object]:
    """Return a preference for a node."""
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    preference = {"weight": 100, "preference": {"matchExpressions": [expression]}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}


@pytest.fixture(scope="module")
def unplugged(installed: Installed) -> Iterator[Unplugged]:
    """The leader's node, just powered off, and a workload's pod that ran on it."""
    installed.ready()
    leader = installed.leader()
    node = leader["spec"]["nodeName"]
    (machine,) = [each for each in installed.cluster.nodes if each.name == node]
    story = Story(installed.cluster, daemon_logs=installed.logs)
    story.claim("nfs-client")
    spec = pod_spec(NGINX, "bash", "-c", SYNCED, claims={"/data": "data"}, affinity=near(node))
    story.apply(workload("Deployment", "writer", spec))
    (pod,) = story.ready("writer")
    name = pod["metadata"]["name"]
    assert pod["spec"]["nodeName"] == node

    def output() -> list[str]:
        return installed.cluster.logs(story.namespace, name).split()

    story.eventually(lambda: len(output()) >= 5, "the pod has written", timeout_s=120)
    last = output()
    machine.kill()
    yield Unplugged(story, machine, leader["metadata"]["name"], name, last, time.monotonic())
    machine.start()
    installed.cluster.ready(PATIENCE_S)
    story.end()


@pytest.mark.thorough
def test_the_other_replica_provisions(installed: Installed, unplugged: Unplugged) -> None:
    """The other replica becomes leader and provisions."""
    story = unplugged.story
    story.claim("nfs-client", "later")
    story.bound("later", timeout_s=PATIENCE_S)
    story.cluster.report.note("the leader's node lost: to a new claim's volume", time.monotonic() - unplugged.since_s)
    assert installed.leader()["metadata"]["name"] != unplugged.leader


@pytest.mark.thorough
def test_the_pod_moves_with_its_data(unplugged: Unplugged) -> None:
    """The workload's pod starts on the other node and finds all data that it had synced."""
    story = unplugged.story

    def elsewhere() -> str | None:
        found = [each for each in story.ready("writer") if each["spec"]["nodeName"] != unplugged.machine.name]
        return found[0]["metadata"]["name"] if found else None

    name = story.eventually(elsewhere, "the pod is ready elsewhere", timeout_s=PATIENCE_S)
    story.cluster.report.note("a pod's node lost: to its successor's readiness", time.monotonic() - unplugged.since_s)
    assert name != unplugged.pod
    found = story.shell(name, "cat /data/ticks").split()
    assert found[: len(unplugged.output)] == unplugged.output


@pytest.mark.thorough
def test_the_node_returns(installed: Installed, unplugged: Unplugged) -> None:
    """After power-on the node is Ready, its old pods are gone, and two replicas run."""
    story = unplugged.story
    with story.timed("the lost node: from its power to Ready"):
        unplugged.machine.start()
        story.cluster.ready(PATIENCE_S)
    installed.ready()
    story.eventually(lambda: len(story.pods("writer")) == 1, "the lost pod has ended", timeout_s=PATIENCE_S)

"""The release on real nodes: how its pods run, upgrades, uninstallation and reinstallation."""

from __future__ import annotations

import pytest

from testbed.api import ApiError, Object
from tests.e2e.installed import NAME, NAMESPACE, Installed
from tests.e2e.stories import NGINX, Story, pod, pod_spec
from tests.support.archiving import directory

pytestmark = pytest.mark.timeout(3600)

TICKS = ("sh", "-c", "trap exit TERM; while :; do date +%s >> /data/ticks; sleep 1 & wait $!; done")


def variables(pod: Object) -> dict[str, str]:
    """Return a replica's variables that have literal values."""
    return {each["name"]: each["value"] for each in pod["spec"]["containers"][0]["env"] if "value" in each}


def ticks(story: Story) -> int:
    """Return how often the pod `writer` has written."""
    return len(story.shell("writer", "cat /data/ticks").split())


def test_how_the_replicas_run(installed: Installed) -> None:
    """Two replicas run on two nodes, with the release's account and uid 65534, in a namespace for restricted pods."""
    replicas = installed.ready()
    assert len({each["spec"]["nodeName"] for each in replicas}) == 2
    for each in replicas:
        assert each["spec"]["serviceAccountName"] == NAME
        assert each["spec"]["securityContext"]["runAsUser"] == 65534
        output = installed.cluster.execute(NAMESPACE, each["metadata"]["name"], "cat", "/proc/1/status")
        status = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["65534"] * 4
        assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    loose = pod("loose", {"containers": [{"name": "main", "image": NGINX}]})
    with pytest.raises(ApiError, match='violates PodSecurity "restricted'):
        installed.cluster.api.post(f"/api/v1/namespaces/{NAMESPACE}/pods", loose)


def test_helm_test(installed: Installed, story: Story) -> None:
    """The chart's own tests pass: `check` finds no problem, and a pod writes to a claim."""
    with story.timed("helm test"):
        output = installed.test()
    assert output.count("Phase:          Succeeded") >= 2
    assert "Failed" not in output


def test_upgrade(installed: Installed, story: Story) -> None:
    """`helm upgrade` gives both replicas the new values, while a pod keeps writing and a new claim binds."""
    story.claim("nfs-client")
    story.start("writer", pod_spec(NGINX, *TICKS, claims={"/data": "data"}))
    before = {each["metadata"]["uid"] for each in installed.ready()}
    written = ticks(story)
    with story.timed("helm upgrade: from the command to both new replicas ready"):
        installed.upgrade("log.level=debug")
        story.claim("nfs-client", "during")
        after = installed.ready()
    story.bound("during", timeout_s=300)
    assert {each["metadata"]["uid"] for each in after}.isdisjoint(before)
    assert {variables(each)["LOG_LEVEL"] for each in after} == {"debug"}
    story.eventually(lambda: ticks(story) > written, "the pod keeps writing")


@pytest.mark.thorough
def test_uninstall_and_install(installed: Installed, story: Story) -> None:
    """`helm uninstall` leaves claims, volumes, data and pods alone, and a new installation manages them again."""
    story.claim("nfs-client")
    story.start("writer", pod_spec(NGINX, *TICKS, claims={"/data": "data"}))
    volume = story.bound()
    installed.uninstall()
    story.claim("nfs-client", "early")
    written = ticks(story)
    story.eventually(lambda: ticks(story) > written, "the pod keeps writing")
    story.delete_pod("writer")
    story.start("writer", pod_spec(NGINX, *TICKS, claims={"/data": "data"}))
    assert ticks(story) > written
    assert story.get_claim("early")["status"]["phase"] == "Pending"
    with story.timed("helm install: from the command to both replicas ready"):
        installed.install()
    story.bound("early", timeout_s=300)
    assert story.get_volume(volume["metadata"]["name"])["status"]["phase"] == "Bound"
    assert ticks(story) > written
    story.delete_pod("writer")
    story.delete_claim()
    story.volume_gone(volume["metadata"]["name"], timeout_s=300)
    assert not directory(story.cluster.export, volume).exists()

"""Sizes on real nodes: what a restricted pod and the kubelet see of a volume with `quota: required`."""

from __future__ import annotations

import json
import ssl
import urllib.request
from collections.abc import Iterator

import pytest

from provisioner.core.quantities import parse_bytes
from testbed.api import Object
from testbed.vm import KernelServer
from tests.e2e.installed import Installed
from tests.e2e.stories import IDLE, NGINX, Story, pod_spec
from tests.support.sized import class_fields, sized_server

pytestmark = [pytest.mark.timeout(3600), pytest.mark.thorough]

SIZE, RAISED = "64Mi", "96Mi"
KUBELET_S = 240.0
"""The kubelet measures volumes once per minute."""


@pytest.fixture(scope="module")
def sized() -> Iterator[KernelServer]:
    """A server with the quota agent, which the nodes reach too."""
    with sized_server() as running:
        yield running


def kubelet_capacity(story: Story, pod: Object) -> int | None:
    """Return the capacity of the pod's claim in the kubelet's statistics, in bytes; None if it has none yet.

    The API server refuses to proxy to a node on its own loopback, and the kubelets of the nodes accept everyone there.
    """
    node = story.api.get(f"/api/v1/nodes/{pod['spec']['nodeName']}")
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    url, unverified = f"https://127.0.0.1:{port}/stats/summary", ssl._create_unverified_context()
    with urllib.request.urlopen(url, timeout=30.0, context=unverified) as answer:
        summary = json.load(answer)
    found = [each for each in summary["pods"] if each["podRef"]["uid"] == pod["metadata"]["uid"]]
    volumes = [volume for each in found for volume in each.get("volume", []) if volume.get("pvcRef")]
    return volumes[0].get("capacityBytes") if volumes else None


def test_a_pod_gets_the_size_of_its_claim(story: Story, installed: Installed, sized: KernelServer) -> None:
    """`df` in the pod and the kubelet show the claim's size, the pod cannot write more, and a raise lets it go on."""
    parameters, options = class_fields(sized, story.cluster.nfs_server, "4.2")
    made = story.storage_class(installed.provisioner, parameters, mountOptions=options, allowVolumeExpansion=True)
    story.claim(made, size=SIZE)
    story.bound(timeout_s=300.0)
    pod = story.start("writer", pod_spec(NGINX, *IDLE, uid=1234, claims={"/data": "data"}))
    assert story.shell("writer", "df -Pk /data | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2") == "65536"
    failed = story.shell("writer", "dd if=/dev/zero of=/data/file bs=1M count=80 conv=fsync 2>&1 || true")
    assert "No space left on device" in failed
    story.eventually(
        lambda: kubelet_capacity(story, pod) == parse_bytes(SIZE), "the kubelet's statistics", timeout_s=KUBELET_S
    )
    path = f"{story.claims}/data"
    story.api.patch(path, {"spec": {"resources": {"requests": {"storage": RAISED}}}})
    story.eventually(
        lambda: story.get_claim("data")["status"]["capacity"]["storage"] == RAISED, "the raise", timeout_s=120.0
    )
    story.shell("writer", "dd if=/dev/zero of=/data/file bs=1M count=80 conv=fsync")
    story.delete_pod("writer")

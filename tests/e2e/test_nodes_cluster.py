"""The cluster of real nodes has what stories need: Services, service accounts and kubelets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from testbed.api import Object
from testbed.waiting import eventually
from tests.e2e.containers import PROVISIONER
from tests.e2e.nodes.cluster import NodeCluster

pytestmark = pytest.mark.timeout(1800)

NAMESPACE = "plain-pods"
PATIENCE_S = 600.0
SERVE = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["NODE"].encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""
VISIT = """
import json, sys, urllib.request
print(json.dumps([urllib.request.urlopen(sys.argv[1], timeout=20).read().decode() for _ in range(int(sys.argv[2]))]))
"""
WHO_AM_I = """
import json, os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
token = open(account + "token").read()
address = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
question = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
request = urllib.request.Request(
    address + "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    data=json.dumps(question).encode(),
    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
)
trusted = ssl.create_default_context(cafile=account + "ca.crt")
answer = json.load(urllib.request.urlopen(request, context=trusted, timeout=20))
print(json.dumps([address, answer["status"]["userInfo"]["username"]]))
"""


def server(node: str) -> Object:
    """Return a pod for a node that answers with the node's name."""
    container = {
        "name": "main",
        "image": PROVISIONER,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", SERVE],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 2, "timeoutSeconds": 20},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    metadata = {"name": node, "namespace": NAMESPACE, "labels": {"app": "plain"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture(scope="module")
def cluster(node_cluster: NodeCluster) -> Iterator[NodeCluster]:
    """The cluster with a pod on each node and a Service for both, in a namespace for restricted pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node_cluster.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
    service = {"selector": {"app": "plain"}, "ports": [{"port": 80, "targetPort": 8080}]}
    place = {"name": "plain", "namespace": NAMESPACE}
    node_cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": place, "spec": service},
        *(server(node.name) for node in node_cluster.nodes),
    )
    eventually(
        lambda: len(serving(node_cluster)) == len(node_cluster.nodes),
        "the Service has an endpoint on each node",
        timeout_s=PATIENCE_S,
        explain=lambda: json.dumps([pod["status"] for pod in pods(node_cluster)]),
    )
    yield node_cluster
    node_cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}")


def pods(cluster: NodeCluster) -> list[Object]:
    """Return the pods of the namespace."""
    return cluster.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods")


def serving(cluster: NodeCluster) -> list[Object]:
    """Return the Service's ready endpoints."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    slices = cluster.api.list(path, labelSelector="kubernetes.io/service-name=plain")
    return [each for found in slices for each in found["endpoints"] or [] if each["conditions"]["ready"]]


def test_two_separate_nodes(node_cluster: NodeCluster) -> None:
    """Two nodes are Ready with their own names and addresses, and a shell on each runs on that node."""
    found = node_cluster.api.list("/api/v1/nodes")
    names = {node["metadata"]["name"] for node in found}
    addresses = {
        each["address"] for node in found for each in node["status"]["addresses"] if each["type"] == "InternalIP"
    }
    assert names == {"node-1", "node-2"} == {node["metadata"]["labels"]["kubernetes.io/hostname"] for node in found}
    assert len(addresses) == 2
    assert {node.name: node.run("hostname").strip() for node in node_cluster.nodes} == {name: name for name in names}


def test_a_service_reaches_both_nodes(cluster: NodeCluster) -> None:
    """A pod on either node reaches the pods on both through a Service's cluster address."""
    address = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/plain")["spec"]["clusterIP"]
    for node in cluster.nodes:

        def visited(name: str = node.name) -> set[str]:
            words = ("python3", "-c", VISIT, f"http://{address}", "20")
            return set(json.loads(cluster.execute(NAMESPACE, name, *words)))

        # kube-proxy learns of an endpoint a moment later.
        eventually(lambda: visited() == {"node-1", "node-2"}, f"{node.name} reaches both", timeout_s=PATIENCE_S)


@pytest.mark.thorough
def test_service_account_tokens(cluster: NodeCluster) -> None:
    """The API server, at its cluster address, accepts a pod's token and names its service account."""
    for node in cluster.nodes:
        address, who = json.loads(cluster.execute(NAMESPACE, node.name, "python3", "-c", WHO_AM_I))
        assert (address, who) == ("https://10.0.0.1:443", f"system:serviceaccount:{NAMESPACE}:default")


@pytest.mark.thorough
def test_input_and_logs(cluster: NodeCluster) -> None:
    """A command in a pod reads its stdin, and the pod's log has its output."""
    script = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"
    assert cluster.execute(NAMESPACE, "node-1", "python3", "-c", script, input=b"abc") == "cba"
    assert "GET /" in cluster.logs(NAMESPACE, "node-2")


@pytest.mark.thorough
def test_every_version_of_nfs(node_cluster: NodeCluster) -> None:
    """A node's kernel mounts the export with NFS 3 and 4.0 to 4.2, and its files are on the host."""
    (node_cluster.export / "versions").mkdir()
    server, path, port = node_cluster.nfs_server, node_cluster.nfs_path, node_cluster.nfs_port
    more = {"3": f",nolock,mountport={node_cluster.nfs_mount_port}"}
    for version in ("3", "4.0", "4.1", "4.2"):
        options = f"vers={version},port={port},proto=tcp{more.get(version, '')}"
        node_cluster.nodes[0].run(
            f"mount -t nfs -o {options} {server}:{path} /mnt && echo {version} >/mnt/versions/{version}; "
            "status=$?; umount /mnt; exit $status"
        )
        assert (node_cluster.export / "versions" / version).read_text().strip() == version

"""A real Kubernetes cluster: a control plane and an NFS server on the host, and nodes in virtual machines.

    with NodeCluster(tmp_path) as cluster:
        cluster.ready()
        cluster.apply(pod)
        cluster.nodes[0].kill()

Pods have service accounts, reach each other on both nodes and Services by their cluster addresses, and everything on
the host's loopback as 10.0.2.2. There is no DNS in the cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from testbed import binaries, ganesha, vm
from testbed.api import Object
from testbed.cluster import ControlPlane, RealNodes, TokenUser
from testbed.ganesha import Export, Ganesha
from testbed.lifecycle import Startable
from testbed.processes import free_port
from testbed.waiting import eventually
from tests.e2e.nodes import image
from tests.e2e.nodes.image import Image
from tests.e2e.nodes.machine import Machine, Wiring
from tests.e2e.nodes.report import Report

ALL_PODS = "10.244.0.0/16"
NODE_LOST_S, POD_LEAVES_S = 30, 10
"""The time until a silent node counts as lost, and until its pods are then evicted.

Kubernetes' defaults are 50 s and 5 minutes, too long for stories.
"""

CONTROLLERS = ("*", "-kube-apiserver-serving-clustertrustbundle-publisher-controller")
"""All default controllers except one that needs a file with only the CA: ours also has the signed certificate."""

EXPORTED_AS = "/nfs"


class KubectlFailed(subprocess.SubprocessError):
    """A kubectl command failed; the text has both its streams."""


class NodeCluster(Startable):
    """The servers and one or two nodes, started on entry and stopped on exit.

    `api` and `kubeconfig` have the administrator's rights. The NFS server exports the directory `export` with NFS 3 and
    4.0 to 4.2; nodes and pods reach it as `nfs_path` of `nfs_server` at `nfs_port` (and `nfs_mount_port` for v3).
    """

    def __init__(self, directory: Path, *, nodes: int = 2) -> None:
        """`directory` keeps all logs. The image is built if it is missing (tests.e2e.nodes.image)."""
        self.report = Report()
        self._directory = directory
        self._names = tuple(f"node-{number}" for number in range(1, nodes + 1))
        if len(self._names) not in (1, 2):
            raise ValueError("one cable joins two nodes at most")
        self._image = image.locate()
        self._kubectl = binaries.locate(("kubectl",), binaries.NODE) / "kubectl"
        self._users = {name: TokenUser.new(f"system:node:{name}", "system:nodes") for name in self._names}
        self._proxy = TokenUser.new("system:kube-proxy")
        self.export = directory / "export"
        self.export.mkdir(parents=True)
        self.export.chmod(0o755)
        self.nfs = Ganesha([Export(self.export, EXPORTED_AS)], versions=(3, 4), directory=directory / "nfs")
        self.nfs_server, self.nfs_path = vm.HOST, EXPORTED_AS
        self.nfs_port, self.nfs_mount_port = self.nfs.port, self.nfs.mount_port
        self.control_plane = self._new_control_plane()
        self.api, self.kubeconfig = self.control_plane.api, self.control_plane.kubeconfig
        self.nodes: list[Machine] = []

    def start(self) -> None:
        """Start the servers and boot the nodes; `ready` waits for them. Raises ServerFailed."""
        began = time.monotonic()
        self.nfs.start()
        self.control_plane.start()
        self.report.note("the control plane and the NFS server were started", time.monotonic() - began)
        if not self.nodes:
            self.nodes = self._new_machines(self._image)
        for node in self.nodes:
            node.power_on()

    def stop(self) -> None:
        """Kill the nodes, then stop the servers."""
        for node in self.nodes:
            node.kill()
        self.control_plane.stop()
        self.nfs.stop()

    def ready(self, timeout_s: float = 600.0) -> None:
        """Wait until each running node is Ready since its last boot and accepts pods. Raises NotInTime."""
        began = time.monotonic()
        running = [node for node in self.nodes if node.running]
        for node in running:
            node.wait_started()
        booted = {node.name: node.run("cat /proc/sys/kernel/random/boot_id").strip() for node in running}
        eventually(
            lambda: booted.keys() <= set(_ready(self.api.list("/api/v1/nodes"), booted)),
            f"{', '.join(booted)} are Ready",
            timeout_s=timeout_s,
            explain=lambda: "\n".join(node.run("tail -n 20 /var/log/kubelet.log") for node in running),
        )
        self.report.note(f"{len(running)} nodes were Ready", time.monotonic() - began)

    def apply(self, *objects: Object) -> None:
        """Create or update objects by server-side apply. Raises KubectlFailed."""
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        words = ("apply", "--server-side", "--force-conflicts", "--field-manager=stories", "--filename=-")
        self.kubectl(*words, input=json.dumps(everything).encode())

    def execute(
        self, namespace: str, pod: str, *words: str, container: str = "", input: bytes = b"", timeout_s: float = 120.0
    ) -> str:
        """Run a command in a pod's container and return its stdout. Raises KubectlFailed, TimeoutExpired."""
        chosen = [f"--container={container}"] if container else []
        stdin = ["--stdin"] if input else []
        return self.kubectl(
            "exec", f"--namespace={namespace}", pod, *chosen, *stdin, "--", *words, input=input, timeout_s=timeout_s
        )

    def logs(self, namespace: str, pod: str, container: str = "") -> str:
        """Return the log of a pod's container since its start. Raises KubectlFailed, TimeoutExpired."""
        chosen = [f"--container={container}"] if container else []
        return self.kubectl("logs", f"--namespace={namespace}", pod, *chosen)

    @contextmanager
    def opened(self, namespace: str, pod: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in a pod with pipes: stdin, and stdout with stderr. The exit kills kubectl only."""
        command: list[str | Path] = [self._kubectl, "exec", "--stdin", f"--namespace={namespace}", pod, "--", *words]
        with subprocess.Popen(
            command,
            env=self._environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as running:
            try:
                yield running
            finally:
                running.kill()

    def kubectl(self, *words: str, input: bytes = b"", timeout_s: float = 120.0) -> str:
        """Run a kubectl command and return its stdout. Raises KubectlFailed, TimeoutExpired."""
        done = subprocess.run(
            [self._kubectl, *words], input=input, env=self._environment(), capture_output=True, timeout=timeout_s
        )
        stdout = done.stdout.decode(errors="replace")
        if done.returncode:
            stderr = done.stderr.decode(errors="replace")
            raise KubectlFailed(f"kubectl {' '.join(words)}: status {done.returncode}\n{stdout}\n{stderr}")
        return stdout

    def _environment(self) -> dict[str, str]:
        # HOME: kubectl caches there what the API server serves.
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self._directory)}

    def _new_control_plane(self) -> ControlPlane:
        soon = [f"--default-{what}-toleration-seconds={POD_LEAVES_S}" for what in ("not-ready", "unreachable")]
        return ControlPlane(
            self._directory / "control-plane",
            users=[*self._users.values(), self._proxy],
            scheduler=True,
            controllers=CONTROLLERS,
            api_server_flags=soon,
            controller_manager_flags=[f"--node-monitor-grace-period={NODE_LOST_S}s"],
            nodes=RealNodes(names=self._names, host=vm.HOST),
        )

    def _new_machines(self, disk: Image) -> list[Machine]:
        # The cable has two ends even if there is only one node.
        ports = (free_port(), free_port())
        machines = []
        for index, name in enumerate(self._names):
            kubelet_port = free_port()
            wiring = Wiring(
                own_port=ports[index],
                other_port=ports[1 - index],
                forwarded_port=kubelet_port,
                mac=f"52:54:00:00:01:{index + 1:02x}",
            )
            files = self._files(name, index, kubelet_port)
            machines.append(Machine(name, disk, self._directory / name, wiring=wiring, files=files))
        return machines

    def _files(self, name: str, index: int, kubelet_port: int) -> dict[str, str]:
        """Return the files that configure a machine as this node (see rootfs/usr/local/sbin/node-init)."""
        environment = {
            "NAME": name,
            "ADDRESS": _address(index),
            "PODS": _pods(index),
            "OTHER_ADDRESS": _address(1 - index),
            "OTHER_PODS": _pods(1 - index),
            "ALL_PODS": ALL_PODS,
        }
        credentials = self.control_plane.kubeconfig_elsewhere
        return {
            "/etc/node/environment": "".join(f"{key}={value}\n" for key, value in environment.items()),
            "/etc/node/kubelet.json": json.dumps(_kubelet(kubelet_port)),
            "/etc/node/kubelet.kubeconfig": credentials(self._users[name], vm.HOST),
            "/etc/node/kube-proxy.json": json.dumps(_kube_proxy()),
            "/etc/node/kube-proxy.kubeconfig": credentials(self._proxy, vm.HOST),
            "/etc/cni/net.d/10-node.conflist": json.dumps(_pod_network(_pods(index))),
        }


def missing() -> str:
    """Return why this machine cannot run real nodes, even after a build, or ""."""
    return image.missing() or ganesha.missing(versions=(3, 4))


def _ready(nodes: Iterable[Object], booted: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of nodes that accept pods since their last boot; `booted` has the boot ids."""
    for node in nodes:
        name, status = node["metadata"]["name"], node["status"]
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
        # The boot id counts: a node that was just killed still has the condition Ready.
        same = status["nodeInfo"]["bootID"] == booted.get(name)
        if same and conditions.get("Ready") == "True" and not node["spec"].get("taints"):
            yield name


def _address(index: int) -> str:
    return f"192.168.100.{index + 1}"


def _pods(index: int) -> str:
    return f"10.244.{index + 1}.0/24"


def _kubelet(port: int) -> Mapping[str, object]:
    """Return the kubelet's configuration (Kubernetes, kubelet.config.k8s.io/v1beta1)."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "port": port,
        # Its port is on the host's loopback, like the API server's.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        # Only kube-proxy writes rules for pods.
        "makeIPTablesUtilChains": False,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        "runtimeRequestTimeout": "5m",
        "serializeImagePulls": False,
    }


def _kube_proxy() -> Mapping[str, object]:
    """Return kube-proxy's configuration (Kubernetes, kubeproxy.config.k8s.io/v1alpha1)."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/etc/node/kube-proxy.kubeconfig"},
        "mode": "nftables",
        "clusterCIDR": ALL_PODS,
        # The kernel's defaults suffice for a few pods.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def _pod_network(pods: str) -> Mapping[str, object]:
    """Return a network configuration list (CNI Specification 1.0.0): a link from each pod to its node, which routes."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": addresses}]}

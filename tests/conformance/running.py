"""Runs of the suite: on real nodes with the chart's release, and beside a daemon at the speed of this machine."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testcontainers.core.docker_client import DockerClient

from provisioner import __version__
from testbed import binaries
from testbed.binaries import Progress, silent
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from tests.conformance import specs
from tests.conformance.specs import Result
from tests.conformance.suite import WITHOUT_NODES, Suite, SuiteFailed
from tests.e2e.containers import PROVISIONER
from tests.e2e.installed import Installed
from tests.support.daemon import Daemons
from tests.support.storage import CLASSES

WORKERS = 3
"""Specs that run beside each other: they mostly wait for pods."""

_CLASS = "nfs-client"
_DEFAULT_PORT = """
nft -f - <<RULES
table ip nfs {{
  chain output {{
    type nat hook output priority dstnat
    ip daddr {server} tcp dport 2049 dnat to {server}:{port}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    ip daddr {server} tcp dport 2049 dnat to {server}:{port}
  }}
}}
RULES
"""
"""Leads connections of a node and its pods from NFS's own port to the server's."""

_FEWER = {"ProvisioningOptions": {"Count": 20}}
"""Deleting 200 claims beside 200 pods would take emulated nodes an hour."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run used, and what became of each spec for the driver, also of those that do not apply."""

    about: dict[str, str]
    results: list[Result]

    def json(self) -> str:
        """Return the run as JSON."""
        return json.dumps({"about": self.about, "results": [asdict(each) for each in self.results]}, indent=1) + "\n"

    @classmethod
    def load(cls, text: str) -> Run:
        """Return a run from its JSON."""
        read = json.loads(text)
        return cls(read["about"], [Result(**each) for each in read["results"]])


def about(installed: Installed, fault: str) -> dict[str, str]:
    """Return the versions of a run on nodes."""
    node: dict[str, Any] = installed.cluster.api.list("/api/v1/nodes")[0]["status"]["nodeInfo"]
    labels = DockerClient().client.images.get(PROVISIONER).labels
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "nfs-provisioner": f"{__version__} ({labels['org.opencontainers.image.revision'][:7]})",
        "Kubernetes": binaries.kubernetes_version(),
        "nodes": f"{len(installed.cluster.nodes)} × {node['osImage']}, Linux {node['kernelVersion']}, emulated",
        "container runtime": node["containerRuntimeVersion"],
        "NFS": "NFS-Ganesha, NFS 4.1",
        "host": f"Linux {platform.release()}",
        "faults": fault or "none",
    }


def on_nodes(installed: Installed, directory: Path, *, progress: Progress = silent) -> Suite:
    """Return the suite for the release's cluster. Raises BinariesMissing, ScriptFailed, ServerFailed."""
    cluster = installed.cluster
    # Specs write volumes and mount options of their own, and these name no port.
    rules = _DEFAULT_PORT.format(server=cluster.nfs_server, port=cluster.nfs_port)
    for node in cluster.nodes:
        node.run(rules)
    driver = {"DriverInfo": {"PerformanceTestOptions": _FEWER}}
    return Suite(cluster.kubeconfig, directory, driver=driver, progress=progress)


def left_out(names: Iterable[str]) -> list[Result]:
    """Return the specs that do not apply, as skipped ones."""
    reasons = ((name, specs.reason(name)) for name in names)
    return [Result(name, "skipped", 0.0, why) for name, why in reasons if why]


def run(suite: Suite, names: Sequence[str], *, workers: int = WORKERS, progress: Progress = silent) -> list[Result]:
    """Run specs, the serial ones after the others, and return their results sorted by name."""
    done: list[Result] = []

    def one(name: str) -> None:
        try:
            result = suite.run(name)
        except SuiteFailed as exc:
            result = Result(name, "failed", 0.0, str(exc))
        done.append(result)
        count = f"{len(done)} of {len(names)}"
        progress(f"{count} {result.status} after {result.seconds:.0f} s: {specs.short(name)}")

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(one, [name for name in names if not specs.serial(name)]))
        except BaseException:
            # On Ctrl-C too: the pool waits for its threads.
            pool.shutdown(wait=False, cancel_futures=True)
            suite.interrupt()
            raise
    for name in filter(specs.serial, names):
        one(name)
    return sorted(done, key=lambda result: result.name)


def at_full_speed(directory: Path, *, progress: Progress = silent) -> list[Result]:
    """Run the specs whose result is a speed, beside a daemon, an NFS server and a control plane on this machine.

    They run a second time if one fails: other load of the machine, or one slow disk flush, must not fail a change.
    Raises BinariesMissing, ServerFailed, SuiteFailed.
    """
    directory.mkdir(parents=True)
    export = directory / "export"
    export.mkdir()
    with (
        Ganesha([Export(export, "/nfs")], directory=directory / "nfs") as nfs,
        ControlPlane(directory / "control-plane", progress=progress) as plane,
    ):
        daemons = Daemons(plane, directory)
        try:
            daemon = daemons("--no-leader-election")
            body = {
                "metadata": {"name": _CLASS},
                "provisioner": daemon.provisioner_name,
                "parameters": {"server": "127.0.0.1", "share": "/nfs", "onDelete": "delete"},
                "mountOptions": ["nfsvers=4.1", f"port={nfs.port}"],
            }
            plane.api.post(CLASSES, body)
            suite = Suite(plane.kubeconfig, directory / "specs", flags=WITHOUT_NODES, progress=progress)
            names = list(filter(specs.at_full_speed, suite.names()))
            results = run(suite, names, workers=1, progress=progress)
            if any(result.status == "failed" for result in results):
                results = run(suite, names, workers=1, progress=progress)
            return results
        finally:
            daemons.kill()

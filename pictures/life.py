"""A few minutes of a small cluster, for the dashboard.

Claims come and go, and a server hangs for a while. Everything is real: a control plane, two NFS servers, two replicas
of the daemon, and a Prometheus that scrapes them.
"""

from __future__ import annotations

import math
import random
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pictures.dashboard import Span
from testbed.api import Api, Object
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from testbed.prometheus import Prometheus
from tests.support.daemon import Daemon

_PROVISIONER = "example.com/nfs"
_CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
_TICK_S = 0.5
_SEED = 7
_SAMPLES = 120
"""The number of samples per line in a picture."""
_FILE_BYTES = 8 * 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of volumes on a server of its own, with a filesystem in memory."""

    name: str
    on_delete: str
    disk_mib: int
    share: float
    """The share of all claims that use this class."""
    sizes: tuple[str, ...]
    files: tuple[int, ...]
    """The number of files of a volume: one of these."""


KINDS = (
    Kind("bulk", "delete", 384, 0.6, ("5Gi", "10Gi", "20Gi"), (10, 20, 40, 80, 2500)),
    Kind("fast", "archive", 128, 0.4, ("1Gi", "2Gi", "8Gi"), (1, 10, 100)),
)


@dataclass(slots=True)
class Cluster:
    """The running servers, see `cluster`."""

    api: Api
    servers: dict[str, Ganesha]
    """NFS servers by class."""
    replicas: list[Daemon]
    """The daemons; the first one leads at the start."""
    prometheus: Prometheus


@dataclass(slots=True)
class _Claim:
    kind: Kind
    ends_s: float
    written: bool = False


@dataclass(slots=True)
class _Load:
    """Tenants who create and delete claims at a varying rate."""

    cluster: Cluster
    minutes: float
    began_s: float = field(default_factory=time.monotonic)
    chance: random.Random = field(default_factory=lambda: random.Random(_SEED))
    claims: dict[str, _Claim] = field(default_factory=dict)
    made: int = 0

    def tick(self) -> None:
        """Create, use and delete the claims that are due now."""
        now_s = time.monotonic() - self.began_s
        due = self.chance.random() < self._rate(now_s) * _TICK_S % 1
        for _ in range(int(self._rate(now_s) * _TICK_S) + due):
            self._make(self.chance.choices(KINDS, [kind.share for kind in KINDS])[0], now_s)
        for claim in self.cluster.api.list(_CLAIMS):
            known = self.claims[claim["metadata"]["name"]]
            if claim["status"]["phase"] == "Bound" and not known.written:
                self._write(claim, known)
            if now_s > known.ends_s and "deletionTimestamp" not in claim["metadata"]:
                self.cluster.api.delete(f"{_CLAIMS}/{claim['metadata']['name']}")

    def leave(self) -> None:
        """Let every second claim end now."""
        for claim in list(self.claims.values())[::2]:
            claim.ends_s = 0.0

    def _rate(self, now_s: float) -> float:
        """Return claims per second: two waves in the whole time, and a rush in its first third."""
        part = now_s / (60 * self.minutes)
        rush = 1.6 if 0.26 < part < 0.31 else 0.0
        return 0.45 + 0.3 * math.sin(4 * math.pi * part) + rush

    def _make(self, kind: Kind, now_s: float) -> None:
        self.made += 1
        name = f"{kind.name}-{self.made}"
        stays = self.chance.random() < 0.2
        kept_s = math.inf if stays else self.chance.expovariate(1 / 70)
        # Some claims request a block volume, which NFS cannot provide; their tenants give up.
        mistaken = self.made % 40 == 5
        self.claims[name] = _Claim(kind, now_s + (25.0 if mistaken else kept_s))
        spec = {
            "storageClassName": kind.name,
            "accessModes": ["ReadWriteMany"],
            "volumeMode": "Block" if mistaken else "Filesystem",
            "resources": {"requests": {"storage": self.chance.choice(kind.sizes)}},
        }
        self.cluster.api.post(_CLAIMS, {"metadata": {"name": name}, "spec": spec})

    def _write(self, claim: Object, known: _Claim) -> None:
        volume = self.cluster.api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
        (export,) = self.cluster.servers[known.kind.name].exports
        directory = export.directory / volume["spec"]["nfs"]["path"].removeprefix(f"{export.path}/")
        for number in range(self.chance.choice(known.kind.files)):
            (directory / f"file-{number}").write_bytes(bytes(_FILE_BYTES))
        known.written = True


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """Run a control plane, the classes with their servers, two replicas and Prometheus.

    Raises ServerFailed, GaneshaMissing, and CalledProcessError if a filesystem cannot be mounted, which needs root.
    """
    with ExitStack() as ending:
        servers = {kind.name: ending.enter_context(_served(kind, directory)) for kind in KINDS}
        plane = ending.enter_context(ControlPlane(directory / "control-plane"))
        for kind in KINDS:
            plane.api.post("/apis/storage.k8s.io/v1/storageclasses", _storage_class(kind, servers[kind.name]))
        logs = [directory / f"nfs-provisioner-{number}.log" for number in range(2)]
        replicas = [ending.enter_context(_replica(plane, log)) for log in logs]
        targets = {
            f"127.0.0.1:{replica.port}": {"job": "nfs-provisioner", "namespace": "nfs", "pod": replica.log.stem}
            for replica in replicas
        }
        yield Cluster(plane.api, servers, replicas, ending.enter_context(Prometheus(targets, directory)))


def live(cluster: Cluster, minutes: float, say: Say) -> Span:
    """Let tenants work while servers fail and recover, and return the time range."""
    load, began, total_s = _Load(cluster, minutes), time.time(), 60 * minutes
    say(f"tenants are at work for {minutes:g} minutes")
    ahead = deque(_events(cluster, load))
    while (now_s := time.time() - began) < total_s:
        if ahead and now_s > ahead[0].part * total_s:
            event = ahead.popleft()
            say(f"{now_s:.0f} s: {event.what}")
            event.act()
        load.tick()
        time.sleep(_TICK_S)
    return Span(float(int(began)), float(int(time.time())), max(1.0, total_s // _SAMPLES))


@dataclass(frozen=True, slots=True)
class _Event:
    """An event after a part of the time."""

    part: float
    what: str
    act: Callable[[], None]


def _events(cluster: Cluster, load: _Load) -> list[_Event]:
    server, leader = cluster.servers["bulk"], cluster.replicas[0]
    return [
        _Event(0.48, "a server hangs", server.pause),
        _Event(0.58, "the server resumes", server.resume),
        _Event(0.75, "a team deletes half of all claims", load.leave),
        _Event(0.87, "the leader is killed", leader.kill),
        _Event(0.92, "the killed replica restarts", leader.start),
    ]


@contextmanager
def _replica(plane: ControlPlane, log: Path) -> Iterator[Daemon]:
    daemon = Daemon(provisioner_name=_PROVISIONER, kubeconfig=plane.kubeconfig, flags=(), log=log, environment={})
    with daemon:
        yield daemon


@contextmanager
def _served(kind: Kind, home: Path) -> Iterator[Ganesha]:
    directory = home / kind.name
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kind.disk_mib}m", "tmpfs", directory], check=True)
    (directory / "from-before").mkdir()
    (directory / "from-before" / "letters").write_bytes(bytes(_FILE_BYTES))
    try:
        with Ganesha([Export(directory, f"/{kind.name}")]) as server:
            yield server
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def _storage_class(kind: Kind, server: Ganesha) -> Object:
    return {
        "metadata": {"name": kind.name},
        "provisioner": _PROVISIONER,
        "parameters": {"server": "127.0.0.1", "share": f"/{kind.name}", "onDelete": kind.on_delete},
        "mountOptions": ["nfsvers=4.1", f"port={server.port}"],
    }

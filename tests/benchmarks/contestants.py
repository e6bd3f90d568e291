"""The programs that a measurement compares: the daemon, and a peer on the Go library of external provisioners.

The peer is built from `peer/` into the cache of the testbed. Both take a Lease before any work.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import binaries
from testbed.api import Api, ApiError, Object
from testbed.binaries import Progress, Source
from testbed.processes import Server
from testbed.waiting import eventually
from tests.benchmarks import objects, usage
from tests.benchmarks.bench import Bench
from tests.support.daemon import Daemon

PEER = Source(
    name="peer",
    module=Path(__file__).parent / "peer",
    packages={"peer": "github.com/nfs-provisioner/nfs-provisioner/tests/benchmarks/peer"},
    release="sigs.k8s.io/sig-storage-lib-external-provisioner/v13",
    stamp=lambda _: {},
    takes="1 to 10 minutes",
)
"""Where the peer is built from; its version is that of the library."""

DAEMON_WORKERS = 64
PEER_WORKERS = 100

_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{objects.PROVISIONER.replace('/', '-')}"
"""The Lease of the peer; the library chooses the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A program under measurement, with the classes of the claims that it serves."""

    name: str
    server: Server
    leads: Callable[[], bool]
    classes: Sequence[Object]
    exports: Sequence[Path]
    """The directories that the daemon has a ledger in; empty for the peer."""

    @property
    def is_daemon(self) -> bool:
        """Whether this is the daemon."""
        return bool(self.exports)

    def start(self) -> int:
        """Start the program, wait until it leads and is quiet, and return its process id."""
        self.server.start()
        eventually(self.leads, f"{self.name} leads", timeout_s=300.0)
        pid = self.pid
        usage.wait_quiet(pid)
        return pid

    def stop(self) -> None:
        """Wait until the program is quiet, and stop it."""
        usage.wait_quiet(self.pid)
        self.server.stop()

    def empty_trash(self) -> None:
        """Remove what the daemon, which must not run, keeps of deleted volumes for ten minutes.

        A start of the daemon reads a volume per entry.
        """
        for entry in (entry for export in self.exports for entry in (export / ".provisioner" / "trash").glob("*")):
            if entry.is_symlink() or not entry.is_dir():
                entry.unlink()
            else:
                shutil.rmtree(entry)

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        assert self.server.pid is not None
        return self.server.pid


class Peer(Server):
    """One peer over a local directory; see Server for start and kill."""

    def __init__(
        self, api: Api, *, kubeconfig: Path, root: Path, finalizer: bool, log: Path, progress: Progress
    ) -> None:
        """The first use on a machine builds the peer, and can raise BinariesMissing."""
        self._api = api
        command: list[str | Path] = [
            binaries.locate(tuple(PEER.packages), PEER, progress=progress) / "peer",
            f"--kubeconfig={kubeconfig}",
            f"--provisioner-name={objects.PROVISIONER}",
            f"--root={root}",
            f"--server={objects.SERVER}",
            f"--path={objects.share(0)}",
            f"--workers={PEER_WORKERS}",
            f"--finalizer={str(finalizer).lower()}",
        ]
        super().__init__("peer", command, log=log, ready=self.leads)

    def leads(self) -> bool:
        """Return True if it holds its Lease."""
        try:
            return bool(self._api.get(_LEASE)["spec"].get("holderIdentity"))
        except (OSError, ApiError):
            return False

    def stop(self, grace_s: float = 15.0) -> None:
        """Stop it and delete its Lease.

        The library does not release the Lease: the next start would wait until it expires.
        """
        super().stop(grace_s)
        try:
            self._api.delete(_LEASE)
        except ApiError as exc:
            if exc.status != 404:
                raise


def daemon(
    bench: Bench, *, name: str = "nfs-provisioner", workers: int = DAEMON_WORKERS, exports: int = 1
) -> Contestant:
    """Return the daemon over local directories, with a class for each."""
    roots = [bench.directory / f"export-{number}" for number in range(exports)]
    for root in roots:
        root.mkdir()
    flags = [f"--export={objects.SERVER}:{objects.share(number)}={root}" for number, root in enumerate(roots)]
    classes = [objects.storage_class(number) for number in range(exports)]
    return _daemon(bench, name, flags, workers=workers, classes=classes, exports=roots)


def direct_daemon(bench: Bench, name: str, *, workers: int, storage_class: Object, export: Path) -> Contestant:
    """Return a daemon that reaches the export of a class itself."""
    return _daemon(bench, name, [], workers=workers, classes=[storage_class], exports=[export])


def _daemon(
    bench: Bench, name: str, flags: Sequence[str], *, workers: int, classes: Sequence[Object], exports: Sequence[Path]
) -> Contestant:
    server = Daemon(
        provisioner_name=objects.PROVISIONER,
        kubeconfig=bench.kubeconfig,
        flags=(*flags, f"--workers={workers}"),
        log=bench.directory / f"{name.replace(' ', '-')}.log",
        # Byte code as in the image, where this environment forbids to write it too; the first start compiles.
        environment={
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(bench.directory / "bytecode"),
        },
    )
    bench.kill_at_end(server)
    return Contestant(
        name=name,
        server=server,
        leads=lambda: "nfs_provisioner_leader 1.0" in server.http("/metrics"),
        classes=classes,
        exports=exports,
    )


def peer(bench: Bench, progress: Progress, *, finalizer: bool = True) -> Contestant:
    """Return the peer over a local directory, with the finalizer on volumes that the daemon sets too.

    The first use on a machine builds it; can raise BinariesMissing.
    """
    (root := bench.directory / "peer").mkdir()
    log = bench.directory / "peer.log"
    server = Peer(bench.api, kubeconfig=bench.kubeconfig, root=root, finalizer=finalizer, log=log, progress=progress)
    bench.kill_at_end(server)
    return Contestant(name="peer", server=server, leads=server.leads, classes=[objects.storage_class()], exports=[])

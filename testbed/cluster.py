"""A Kubernetes control plane on loopback.

It consists of etcd, kube-apiserver, the storage controllers and optionally the scheduler.
It has no nodes: it binds claims and releases volumes like any cluster, but pods stay Pending. RealNodes prepares it
for nodes that join.
"""

from __future__ import annotations

import base64
import itertools
import json
import secrets
import shutil
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from testbed import binaries
from testbed.api import Api, Object
from testbed.lifecycle import Startable
from testbed.processes import Server, free_port

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "persistentvolume-binder-controller",
    "persistentvolume-expander-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
    "statefulset-controller",
)
"""The controllers that act on a volume during its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUser:
    """A user with a static bearer token; RBAC decides what the user may do."""

    name: str
    groups: tuple[str, ...] = ()
    token: str

    @classmethod
    def new(cls, name: str, *groups: str) -> Self:
        """Return a user with a new token."""
        return cls(name=name, groups=groups, token=secrets.token_hex(16))

    def csv(self) -> str:
        """Return the user's line of a static token file: token,user,uid,"groups".

        Source: Kubernetes, Authenticating.
        """
        return f'{self.token},{self.name},{self.name},"{",".join(self.groups)}"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class RealNodes:
    """Nodes that will join the control plane.

    Pods get service accounts, and the Node authorizer restricts each kubelet.
    Each kubelet listens on this machine's loopback, on a port of its own. Only the API server resolves the names of the
    nodes to it.
    """

    names: tuple[str, ...]
    host: str
    """The address of this machine's loopback as seen by the nodes and their pods."""

    def api_server_flags(self) -> tuple[str, ...]:
        """Return the flags for these nodes, and for pods that use the service `kubernetes`."""
        return (
            f"--advertise-address={self.host}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--kubelet-preferred-address-types=Hostname",
        )

    def finding_them(self, hosts: Path) -> tuple[str | Path, ...]:
        """Return a command prefix that resolves the nodes' names.

        It writes `hosts` and uses it as /etc/hosts of the command.
        """
        hosts.write_text(f"127.0.0.1 localhost {' '.join(self.names)}\n")
        return ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts)


_OPERATIONS = 100
"""The operations of one transaction: etcd refuses more than 128."""

WITHOUT_NODES = (
    "--advertise-address=127.0.0.1",
    # No endpoints of the `kubernetes` service: they may not be on loopback, and nothing uses them here.
    "--endpoint-reconciler-type=none",
    "--authorization-mode=RBAC",
    # The plugin would reject every pod of a namespace until a controller creates its service account.
    "--disable-admission-plugins=ServiceAccount",
)
"""Flags of an API server without nodes."""


class ControlPlane(Startable):
    """The servers of a control plane, as a context or by `start` and `stop`.

    `api` is a client with all rights, `kubeconfig` a file for other clients. `etcd`, `api_server`,
    `controller_manager` and `scheduler` can each be stopped, killed, paused and restarted on the same ports and data.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        users: Sequence[TokenUser] = (),
        scheduler: bool = False,
        controllers: Sequence[str] = CONTROLLERS,
        api_server_flags: Sequence[str] = (),
        controller_manager_flags: Sequence[str] = (),
        nodes: RealNodes | None = None,
        progress: binaries.Progress = binaries.silent,
    ) -> None:
        """Keep and reuse the data in `directory`; without one, use a temporary directory.

        The first use on a machine builds the binaries (see testbed.binaries) and can raise BinariesMissing.
        """
        self._wiped = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="controlplane-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._certificates = self.directory / "certificates"
        self._admin = TokenUser.new("admin", "system:masters")
        self._etcd_url = f"http://127.0.0.1:{free_port()}"
        self._port = free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.ca_file = self._certificates / "apiserver.crt"
        self.api = self.api_as(self._admin)
        self._write_credentials(users)
        self.kubeconfig = self.kubeconfig_for(self._admin)
        names = [name for name in binaries.PACKAGES if scheduler or name != "kube-scheduler"]
        self._binaries = binaries.locate(names, progress=progress)
        self.etcd = self._etcd()
        self.api_server = self._api_server(api_server_flags, nodes)
        self.controller_manager = self._controller(
            "kube-controller-manager",
            f"--controllers={','.join(controllers)}",
            f"--service-account-private-key-file={self.directory / 'service-account.key'}",
            f"--root-ca-file={self.ca_file}",
            "--pvclaimbinder-sync-period=1s",
            *controller_manager_flags,
        )
        self.scheduler = self._controller("kube-scheduler") if scheduler else None

    def start(self) -> None:
        """Start the servers that do not run, and return when all are ready.

        Raises ServerFailed with the log's tail.
        """
        for server in self._servers():
            server.start()
            server.wait_ready()

    def stop(self) -> None:
        """Stop all servers, etcd last, and delete a temporary directory.

        An API server without etcd ignores SIGTERM.
        """
        for server in reversed(self._servers()):
            # A short grace: an API server waits for clients to close their watches, and some clients never do.
            server.stop(grace_s=5.0)
        if self._wiped:
            shutil.rmtree(self.directory, ignore_errors=True)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once each server is ready again. Raises ServerFailed."""
        for server in self._servers():
            server.wait_ready(timeout_s)

    def api_as(self, user: TokenUser) -> Api:
        """Return a client that acts as `user`."""
        return Api(self.url, ca_file=self.ca_file, token=user.token)

    def kubeconfig_for(self, user: TokenUser) -> Path:
        """Write a kubeconfig for `user`, readable only by its owner, and return its path."""
        path = self.directory / f"{user.name.replace(':', '-').replace('/', '-')}.kubeconfig"
        _write_private(path, _kubeconfig(user, {"server": self.url, "certificate-authority": str(self.ca_file)}))
        return path

    def kubeconfig_elsewhere(self, user: TokenUser, host: str) -> str:
        """Return a kubeconfig for `user` on a machine that sees this loopback as `host`.

        Works only after the first start of the API server.
        """
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        server = f"https://{host}:{self._port}"
        return _kubeconfig(user, {"server": server, "certificate-authority-data": authority})

    def compact(self) -> int:
        """Compact the history of etcd, and return the revision.

        A running API server still has recent history in its watch cache: see `expire`.
        """
        everything = _base64("\0")
        now = self._ask_etcd("/v3/kv/range", {"key": everything, "range_end": everything, "count_only": True})
        revision = int(now["header"]["revision"])
        self._ask_etcd("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def write(self, objects: Iterable[tuple[str, Object]]) -> None:
        """Write objects under their keys in etcd, such as `/registry/persistentvolumes/NAME`.

        This is many times faster than the API server, which reads JSON in etcd like its own format. It validates and
        admits nothing: write copies of objects that it has accepted. A hundred objects get one resourceVersion, so that
        a client that lists before the API server has seen them all can miss some.
        """
        self._transactions(
            {"request_put": {"key": _base64(key), "value": _base64(json.dumps(body, separators=(",", ":")))}}
            for key, body in objects
        )

    def erase(self, keys: Iterable[str]) -> None:
        """Remove objects from etcd by their keys; see `write`."""
        self._transactions({"request_delete_range": {"key": _base64(key)}} for key in keys)

    def _transactions(self, operations: Iterator[dict[str, Any]]) -> None:
        while transaction := list(itertools.islice(operations, _OPERATIONS)):
            self._ask_etcd("/v3/kv/txn", {"success": transaction})

    def expire(self) -> None:
        """Expire every resourceVersion so far.

        Watches and next pages of lists from it get 410 Gone. This drops the history in etcd, and restarts the API
        server to drop its watch cache.
        """
        # Kill it: an orderly stop would wait for the watches that this is to break.
        self.api_server.kill()
        self.compact()
        self.api_server.start()
        self.api_server.wait_ready()

    def backup(self) -> Path:
        """Copy the data of etcd for `restore`; the API server is down during the copy."""
        self.api_server.kill()
        self.etcd.stop()
        copy = Path(tempfile.mkdtemp(prefix="backup-", dir=self.directory)) / "etcd"
        shutil.copytree(self.directory / "etcd", copy)
        self.start()
        return copy

    def restore(self, backup: Path) -> None:
        """Restore the data of etcd as admins do, and restart the controllers.

        resourceVersions go back too.
        """
        self.api_server.kill()
        self.etcd.stop()
        shutil.rmtree(self.directory / "etcd")
        shutil.copytree(backup, self.directory / "etcd")
        self.controller_manager.stop()
        self.start()

    def _servers(self) -> list[Server]:
        """Return the servers in start order: each depends on those before it."""
        servers = [self.etcd, self.api_server, self.controller_manager]
        return [*servers, self.scheduler] if self.scheduler else servers

    def _write_credentials(self, users: Sequence[TokenUser]) -> None:
        _write_private(self.directory / "tokens.csv", "".join(user.csv() for user in (self._admin, *users)))
        key = self.directory / "service-account.key"
        if not key.exists():
            _write_private(key, _new_ec_key())

    def _etcd(self) -> Server:
        peer_url = f"http://127.0.0.1:{free_port()}"
        return self._server(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            # The data need not survive a crash of the machine.
            "--unsafe-no-fsync",
            # A load of 100,000 volumes outgrows the default of 2 GiB.
            f"--quota-backend-bytes={8 << 30}",
            ready=lambda: answers(f"{self._etcd_url}/health"),
        )

    def _api_server(self, flags: Sequence[str], nodes: RealNodes | None) -> Server:
        key = self.directory / "service-account.key"
        return self._server(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self._certificates}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://localhost",
            "--service-cluster-ip-range=10.0.0.0/24",
            *(nodes.api_server_flags() if nodes else WITHOUT_NODES),
            *flags,
            ready=self.api.ready,
            prefix=nodes.finding_them(self.directory / "hosts") if nodes else (),
        )

    def _controller(self, name: str, *flags: str) -> Server:
        port = free_port()
        certificate = self._certificates / f"{name}.crt"
        return self._server(
            name,
            f"--kubeconfig={self.kubeconfig}",
            f"--cert-dir={self._certificates}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--authentication-skip-lookup=true",
            "--kube-api-qps=1000",
            "--kube-api-burst=2000",
            *flags,
            ready=lambda: answers(f"https://127.0.0.1:{port}/healthz", certificate),
        )

    def _server(self, name: str, *flags: str, ready: Callable[[], bool], prefix: Sequence[str | Path] = ()) -> Server:
        command = [*prefix, self._binaries / name, *flags]
        return Server(name, command, log=self.directory / f"{name}.log", ready=ready)

    def _ask_etcd(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self._etcd_url + path, data=json.dumps(question).encode(), method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120.0) as answer:
            decoded: dict[str, Any] = json.load(answer)
            return decoded


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def answers(url: str, certificate: Path | None = None) -> bool:
    """Return True if an HTTP server answers with 2xx.

    `certificate` is the self-signed certificate of an HTTPS server.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    try:
        if certificate is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(certificate))))
        with urllib.request.build_opener(*handlers).open(url, timeout=2.0):
            return True
    except OSError:
        return False


def _kubeconfig(user: TokenUser, cluster: Mapping[str, str]) -> str:
    """Return a kubeconfig with one context."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "testbed", "cluster": cluster}],
            "users": [{"name": user.name, "user": {"token": user.token}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user.name}}],
            "current-context": "testbed",
        }
    )


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _new_ec_key() -> str:
    """Return a new P-256 private key in PEM, to sign service account tokens.

    It is the ECPrivateKey of RFC 5915 without the optional public key, which the reader computes: 49 bytes, so that no
    library is needed.
    """
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    scalar = (1 + secrets.randbelow(order - 1)).to_bytes(32, "big")
    prime256v1 = bytes.fromhex("a00a06082a8648ce3d030107")
    der = b"\x30\x31\x02\x01\x01\x04\x20" + scalar + prime256v1
    return f"-----BEGIN EC PRIVATE KEY-----\n{base64.b64encode(der).decode()}\n-----END EC PRIVATE KEY-----\n"

"""A Kubernetes control plane on loopback: etcd, kube-apiserver, the storage controllers and, if wanted, the scheduler.

By itself it has no nodes: claims are bound and volumes released as in any cluster, and pods stay Pending. Nodes can
join one that was told of them (RealNodes).
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import ssl
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from testbed import binaries
from testbed.api import Api
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
"""What kube-controller-manager runs: all that a volume meets in its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUser:
    """Someone whom the API server knows by a bearer token from the start; RBAC says what they may do."""

    name: str
    groups: tuple[str, ...] = ()
    token: str

    @classmethod
    def new(cls, name: str, *groups: str) -> Self:
        """A user with a fresh token."""
        return cls(name=name, groups=groups, token=secrets.token_hex(16))

    def csv(self) -> str:
        """The user's line of a static token file (Kubernetes, Authenticating: token,user,uid,"groups")."""
        return f'{self.token},{self.name},{self.name},"{",".join(self.groups)}"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class RealNodes:
    """Nodes that are to join: then pods have service accounts, and a kubelet may do what the Node authorizer lets it.

    Each kubelet listens on our loopback, on a port of its own, where the API server alone finds it by its node's name.
    """

    names: tuple[str, ...]
    host: str
    """Our loopback's address as the nodes and their pods see it."""

    def api_server_flags(self) -> tuple[str, ...]:
        """What the API server takes from them, and from the pods behind the service `kubernetes`."""
        return (
            f"--advertise-address={self.host}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--kubelet-preferred-address-types=Hostname",
        )

    def finding_them(self, hosts: Path) -> tuple[str | Path, ...]:
        """The beginning of a command that knows their names: with an /etc/hosts of its own, written to `hosts`."""
        hosts.write_text(f"127.0.0.1 localhost {' '.join(self.names)}\n")
        return ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts)


WITHOUT_NODES = (
    "--advertise-address=127.0.0.1",
    # No endpoints of the `kubernetes` service: it may not be on loopback, and nothing of ours uses it.
    "--endpoint-reconciler-type=none",
    "--authorization-mode=RBAC",
    # It would hold back every pod of a namespace until a controller has made its service account.
    "--disable-admission-plugins=ServiceAccount",
)
"""The API server's flags where no pod ever runs."""


class ControlPlane(Startable):
    """The servers, started on entry and ended on exit, or by `start` and `stop`.

    `api` is the administrator's client, `kubeconfig` the file for everybody else's. `etcd`, `api_server`,
    `controller_manager` and `scheduler` can each be stopped, killed, paused and started again: same ports, same data.
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
        """A `directory` that is given is kept, and its data found again; without one all is wiped at the end.

        The first use ever may build the binaries (see testbed.binaries) and raise BinariesMissing.
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
        """Start what does not run, and return when all of it is ready. Raises ServerFailed with the log's tail."""
        for server in self._servers():
            server.start()
            server.wait_ready()

    def stop(self) -> None:
        """End everything, etcd last (an API server without etcd outlives SIGTERM), and wipe a directory of our own."""
        for server in reversed(self._servers()):
            # Not for long: an API server waits for its clients to end their watches, and some clients never do.
            server.stop(grace_s=5.0)
        if self._wiped:
            shutil.rmtree(self.directory, ignore_errors=True)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once each server that should be there answers again. Raises ServerFailed."""
        for server in self._servers():
            server.wait_ready(timeout_s)

    def api_as(self, user: TokenUser) -> Api:
        """A client that acts as `user`."""
        return Api(self.url, ca_file=self.ca_file, token=user.token)

    def kubeconfig_for(self, user: TokenUser) -> Path:
        """The path of a kubeconfig for `user`, readable by its owner alone."""
        path = self.directory / f"{user.name.replace(':', '-').replace('/', '-')}.kubeconfig"
        _write_private(path, _kubeconfig(user, {"server": self.url, "certificate-authority": str(self.ca_file)}))
        return path

    def kubeconfig_elsewhere(self, user: TokenUser, host: str) -> str:
        """A kubeconfig for `user` on a machine that knows our loopback as `host`; only after the API server's start."""
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        server = f"https://{host}:{self._port}"
        return _kubeconfig(user, {"server": server, "certificate-authority-data": authority})

    def compact(self) -> int:
        """Forget all history in etcd up to now, as its operator or the API server's own timer would; the revision.

        An API server that runs still knows recent history from its watch cache: see `expire`.
        """
        everything = base64.b64encode(b"\0").decode()
        now = self._ask_etcd("/v3/kv/range", {"key": everything, "range_end": everything, "count_only": True})
        revision = int(now["header"]["revision"])
        self._ask_etcd("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def expire(self) -> None:
        """Make every resourceVersion up to now too old: a watch from one, or a list's next page, is answered 410 Gone.

        History goes from etcd and from the API server's watch cache, and the latter takes a restart.
        """
        # Killed, as an orderly end would wait for the very watches that are to be cut off.
        self.api_server.kill()
        self.compact()
        self.api_server.start()
        self.api_server.wait_ready()

    def backup(self) -> Path:
        """A copy of etcd's data, for `restore`; the API server is away while it is made."""
        self.api_server.kill()
        self.etcd.stop()
        copy = Path(tempfile.mkdtemp(prefix="backup-", dir=self.directory)) / "etcd"
        shutil.copytree(self.directory / "etcd", copy)
        self.start()
        return copy

    def restore(self, backup: Path) -> None:
        """Put etcd's data back, as admins do: resourceVersions go back too, and the controllers are restarted."""
        self.api_server.kill()
        self.etcd.stop()
        shutil.rmtree(self.directory / "etcd")
        shutil.copytree(backup, self.directory / "etcd")
        self.controller_manager.stop()
        self.start()

    def _servers(self) -> list[Server]:
        """In the order in which each needs the ones before it."""
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
            # The data need not outlive the machine, only our processes.
            "--unsafe-no-fsync",
            ready=lambda: _answers(f"{self._etcd_url}/health"),
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
            ready=lambda: _answers(f"https://127.0.0.1:{port}/healthz", certificate),
        )

    def _server(self, name: str, *flags: str, ready: Callable[[], bool], prefix: Sequence[str | Path] = ()) -> Server:
        command = [*prefix, self._binaries / name, *flags]
        return Server(name, command, log=self.directory / f"{name}.log", ready=ready)

    def _ask_etcd(self, path: str, question: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(self._etcd_url + path, data=json.dumps(question).encode(), method="POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10.0) as answer:
            decoded: dict[str, Any] = json.load(answer)
            return decoded


def _answers(url: str, certificate: Path | None = None) -> bool:
    """Whether an HTTP server answers with 2xx, verified by its own self-signed certificate when there is one."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    try:
        if certificate is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(certificate))))
        with urllib.request.build_opener(*handlers).open(url, timeout=2.0):
            return True
    except OSError:
        return False


def _kubeconfig(user: TokenUser, cluster: Mapping[str, str]) -> str:
    """A kubeconfig with one context: this user at this cluster."""
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
    """A new P-256 private key in PEM, to sign service account tokens with.

    RFC 5915's ECPrivateKey without the optional public key, which its reader computes: 49 bytes that need no library.
    """
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    scalar = (1 + secrets.randbelow(order - 1)).to_bytes(32, "big")
    prime256v1 = bytes.fromhex("a00a06082a8648ce3d030107")
    der = b"\x30\x31\x02\x01\x01\x04\x20" + scalar + prime256v1
    return f"-----BEGIN EC PRIVATE KEY-----\n{base64.b64encode(der).decode()}\n-----END EC PRIVATE KEY-----\n"

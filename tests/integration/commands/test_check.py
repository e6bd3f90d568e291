"""`nfs-provisioner check` against a real API server and real NFS servers: its findings, and what it leaves behind."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner import __version__
from provisioner.core.checks import permissions
from provisioner.core.names import DEFAULT_CLASS_ANNOTATIONS
from testbed import ganesha
from testbed.api import Api
from testbed.cluster import ControlPlane, TokenUser
from testbed.ganesha import Export, Ganesha
from testbed.processes import free_port
from tests.support.daemon import Daemons
from tests.support.storage import CLASSES, Storage

pytestmark = pytest.mark.timeout(120)

Finding = dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """The result of one run of the command."""

    status: int
    findings: list[Finding]

    def of(self, kind: str, name: str = "") -> Finding:
        """Return the only finding of a kind whose name begins with this."""
        (found,) = [each for each in self.findings if each["kind"] == kind and each["name"].startswith(name)]
        return found

    def reached(self, name: str, manner: str) -> Finding:
        """Return the only finding of an export whose name begins with this, with these mount options."""
        (found,) = [
            each
            for each in self.findings
            if each["kind"] == "export" and each["name"].startswith(name) and each["result"].startswith(manner)
        ]
        return found


def run(kubeconfig: Path, *flags: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process, without the environment of the tests."""
    command = [*prefix, sys.executable, "-m", "provisioner", "check", f"--kubeconfig={kubeconfig}", *flags]
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def check(kubeconfig: Path, *flags: str, prefix: tuple[str, ...] = ()) -> Checked:
    """Run the command with `-o json`."""
    done = run(kubeconfig, "--lease-namespace=default", "-o", "json", *flags, prefix=prefix)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is (done.returncode == 0)
    return Checked(done.returncode, report["findings"])


def contents(directory: Path) -> list[str]:
    """List everything below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def name() -> str:
    """A provisioner's name that no other test uses."""
    return f"test.example/{secrets.token_hex(4)}"


@pytest.fixture
def classes(cluster_api: Api) -> Iterator[Storage]:
    """Creates StorageClasses, and deletes them at the end."""
    storage = Storage(cluster_api, "default", daemon_logs=lambda: "")
    yield storage
    storage.remove_classes()


# ------------------------------------------------------------------------------------------------ all is well


def test_all_is_well(control_plane: ControlPlane, classes: Storage, name: str, export_directory: Path) -> None:
    """Without any problem, the status is 0, and the export is unchanged, without a ledger."""
    class_name = classes.storage_class(name)
    flags = (f"--provisioner-name={name}", f"--export=nas:/x={export_directory}", "--no-leader-election")
    done = check(control_plane.kubeconfig, *flags)
    assert done.status == 0
    # Without leader election nothing tells whether the daemon runs, which is a warning.
    assert [finding["kind"] for finding in done.findings if finding["advice"]] == ["leader"]
    assert done.of("StorageClass", class_name)["result"] == "on nas:/x; archive when a claim is deleted"
    export = done.of("export")
    assert export["name"] == "nas:/x"
    assert "writable" in export["result"]
    assert "the first start of the daemon creates it" in export["result"]
    assert contents(export_directory) == []


def test_an_export_in_use(
    control_plane: ControlPlane, storage: Storage, daemon: Daemons, export_directory: Path
) -> None:
    """While a daemon runs, `check` changes nothing in the ledger or in the volumes."""
    export = f"--export=nas:/x={export_directory}"
    running = daemon(export)
    storage.claim(storage.storage_class(running.provisioner_name))
    storage.bound()
    before = contents(export_directory)
    done = check(control_plane.kubeconfig, f"--provisioner-name={running.provisioner_name}", export)
    assert done.status == 0
    assert not any(finding["advice"] for finding in done.findings)
    assert "ledger" not in done.of("export")["result"]
    assert contents(export_directory) == before


def test_the_table(control_plane: ControlPlane, classes: Storage, name: str, export_directory: Path) -> None:
    """What passes is one line, a failure is a paragraph with the advice; with `-o wide` each finding is one line."""
    classes.storage_class(name)
    flags = (f"--provisioner-name={name}", f"--export=nas:/x={export_directory}/missing", "--no-leader-election")
    done = run(control_plane.kubeconfig, *flags)
    assert done.stderr == f"provisioner {name}: looked at 1 StorageClass, 1 export, 0 volumes\n"
    assert done.returncode == 1
    assert "\n✓ API server: responding and ready\n" in f"\n{done.stdout}"
    failure = done.stdout.splitlines().index("✗ export nas:/x")
    assert "    fix: mount the export there" in done.stdout.splitlines()[failure + 2]
    heading, *lines = run(control_plane.kubeconfig, *flags, "-o", "wide").stdout.splitlines()
    assert heading.endswith("  WHAT TO DO")
    failures = [line for line in lines if line.startswith("✗")]
    assert len(failures) == 1
    assert failures[0].split()[:3] == ["✗", "export", "nas:/x"]
    assert "mount the export there" in failures[0]


# ------------------------------------------------------------------------------------------------ the API server


def test_a_user_without_permissions(
    control_plane: ControlPlane, restricted_user: TokenUser, name: str, export_directory: Path
) -> None:
    """A missing right is reported with verb and resource, and the exports are checked nevertheless."""
    kubeconfig = control_plane.kubeconfig_for(restricted_user)
    done = check(kubeconfig, f"--provisioner-name={name}", f"--export=nas:/x={export_directory}")
    assert done.status == 1
    volumes = done.of("permission", "persistentvolumes")
    assert not volumes["ok"]
    assert volumes["result"] == "denied: get, list, watch, create, patch, delete"
    assert "ClusterRole" in volumes["advice"]
    leases = done.of("permission", "leases.coordination.k8s.io")
    assert "a Role that allows get, create, update" in leases["advice"]
    assert "namespace default" in leases["advice"]
    assert not done.of("StorageClass")["ok"]
    assert done.of("export")["ok"]


@pytest.fixture
def wanted_role(cluster_api: Api, restricted_user: TokenUser) -> Iterator[str]:
    """Grants the restricted user, for one test, exactly the rights that `check` asks for, without a Lease."""
    role = f"test-{secrets.token_hex(4)}"
    base = "/apis/rbac.authorization.k8s.io/v1"
    rules = [
        {"apiGroups": [each.group], "resources": [each.target.removesuffix(f".{each.group}")], "verbs": [each.verb]}
        | ({"resourceNames": [each.name]} if each.name else {})
        for each in permissions(lease=None)
    ]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": restricted_user.name}
    cluster_api.post(f"{base}/clusterroles", {"metadata": {"name": role}, "rules": rules})
    binding = {"metadata": {"name": role}, "roleRef": reference, "subjects": [subject]}
    cluster_api.post(f"{base}/clusterrolebindings", binding)
    yield role
    cluster_api.delete(f"{base}/clusterrolebindings/{role}")
    cluster_api.delete(f"{base}/clusterroles/{role}")


@pytest.mark.usefixtures("wanted_role")
def test_the_permissions_are_those_that_the_daemon_needs(
    control_plane: ControlPlane,
    restricted_user: TokenUser,
    storage: Storage,
    daemon: Daemons,
    export_directory: Path,
) -> None:
    """With exactly the rights that `check` asks for, `check` passes, and a daemon provisions, expands and reclaims."""
    running = daemon("--no-leader-election", f"--export=nas:/x={export_directory}", user=restricted_user)
    flags = (f"--provisioner-name={running.provisioner_name}", f"--export=nas:/x={export_directory}")
    storage.claim(storage.storage_class(running.provisioner_name, {"onDelete": "delete"}, allowVolumeExpansion=True))
    storage.eventually(
        lambda: check(control_plane.kubeconfig_for(restricted_user), *flags, "--no-leader-election").status == 0,
        "the check is content",
    )
    volume = storage.bound()
    storage.api.patch(f"{storage.claims}/data", {"spec": {"resources": {"requests": {"storage": "2Mi"}}}})
    storage.eventually(lambda: storage.get_claim()["status"]["capacity"]["storage"] == "2Mi", "the claim has grown")
    storage.event("ProvisioningSucceeded")
    storage.claim(storage.storage_class(running.provisioner_name, {"minFree": "100%"}), "refused")
    storage.event("ProvisioningFailed", "refused")
    waits = check(control_plane.kubeconfig_for(restricted_user), *flags, "--no-leader-election").of("claim")
    assert "no right to list events" in waits["result"]
    storage.claim(storage.storage_class(running.provisioner_name, {"onDelet": "x"}), "unusable")
    storage.event("ProvisioningFailed", "unusable")
    waits = check(control_plane.kubeconfig_for(restricted_user), *flags, "--no-leader-election").of(
        "claim", f"{storage.namespace}/unusable"
    )
    assert "parameter onDelet is unknown" in waits["result"]
    storage.delete_claim()
    storage.volume_gone(volume["metadata"]["name"])
    assert "forbidden" not in running.log.read_text()


def test_no_api_server(tmp_path: Path, export_directory: Path) -> None:
    """An API server that is not there is reported with advice, and the exports are checked nevertheless."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    done = check(kubeconfig, f"--export=nas:/x={export_directory}")
    assert done.status == 1
    assert done.of("API server")["result"].startswith("cannot reach the API server http://127.0.0.1:")
    assert done.of("API server")["result"].endswith(": connection refused")
    assert "--kubeconfig" in done.of("API server")["advice"]
    assert done.of("export")["ok"]


def test_unusable_settings(tmp_path: Path) -> None:
    """Unusable settings end with status 2 and one line."""
    for flags in (["--export=nas"], ["--output=yaml"], []):
        done = run(tmp_path / "no-such-file", *flags)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------ the daemon

SHORT = ("--lease-duration=3s", "--renew-deadline=2s", "--retry-period=500ms")


def test_the_running_daemon(
    control_plane: ControlPlane, storage: Storage, daemon: Daemons, export_directory: Path
) -> None:
    """The leader and its version are reported; a killed daemon is a failure that names the classes it served."""
    export = f"--export=nas:/x={export_directory}"
    running = daemon(export, *SHORT)
    class_name = storage.storage_class(running.provisioner_name)
    flags = (f"--provisioner-name={running.provisioner_name}", export, *SHORT)
    done = check(control_plane.kubeconfig, *flags)
    assert done.status == 0
    leading = done.of("leader")
    assert leading["name"] == f"default/{running.provisioner_name.replace('/', '-')}"
    assert socket.gethostname() in leading["result"]
    assert done.of("version")["result"] == f"command {__version__}, daemon {__version__}"
    running.kill()
    done = storage.eventually(
        lambda: found if (found := check(control_plane.kubeconfig, *flags)).status else None, "the Lease is stale"
    )
    assert [each["kind"] for each in done.findings if not each["ok"]] == ["leader"]
    assert f"no daemon serves StorageClass {class_name}" in done.of("leader")["result"]
    assert "kubectl get pods -n default" in done.of("leader")["advice"]


def test_a_lease_of_an_older_daemon(control_plane: ControlPlane, classes: Storage, name: str) -> None:
    """A daemon that leaves no version in its Lease has an unknown version, which is not a failure."""
    classes.storage_class(name, {"server": "nas.example", "share": "/x"})
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "old", "leaseDurationSeconds": 3600, "renewTime": renewed}
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    control_plane.api.post(leases, {"metadata": {"name": name.replace("/", "-")}, "spec": spec})
    done = check(control_plane.kubeconfig, f"--provisioner-name={name}")
    assert done.of("leader")["ok"]
    assert done.of("version")["result"] == f"command {__version__}, daemon unknown"
    control_plane.api.delete(f"{leases}/{name.replace('/', '-')}")


def test_what_waits(control_plane: ControlPlane, storage: Storage, daemon: Daemons, export_directory: Path) -> None:
    """A refused claim and a volume that is not reclaimed are warnings, each with its last event."""
    export = f"--export=nas:/x={export_directory}"
    running = daemon(export, *SHORT)
    storage.claim(storage.storage_class(running.provisioner_name, {"onDelete": "delete"}), "gone")
    volume = storage.bound("gone")
    storage.claim(storage.storage_class(running.provisioner_name, {"minFree": "100%"}), "refused")
    storage.event("ProvisioningFailed", "refused")
    name = volume["metadata"]["name"]
    (export_directory / ".provisioner" / "volumes" / name).unlink()
    storage.delete_claim("gone")
    storage.volume_event(name)
    flags = (f"--provisioner-name={running.provisioner_name}", export, *SHORT)
    done = check(control_plane.kubeconfig, *flags)
    assert done.status == 0
    refused, stays = done.of("claim", f"{storage.namespace}/refused"), done.of("volume", name)
    assert refused["warning"]
    assert refused["ok"]
    assert "ProvisioningFailed: export nas:/x" in refused["result"]
    assert refused["advice"] == f"kubectl describe pvc -n {storage.namespace} refused"
    assert stays["warning"]
    assert "VolumeFailedDelete: " in stays["result"]


# ------------------------------------------------------------------------------------------------ classes


def test_two_default_classes(control_plane: ControlPlane, classes: Storage, name: str, export_directory: Path) -> None:
    """Two default classes, and a server name that only the cluster can resolve, are warnings."""
    default = {"metadata": {"annotations": {DEFAULT_CLASS_ANNOTATIONS[0]: "true"}}}
    first, second = (classes.storage_class(name, {"server": "nas", "share": "/x"}) for _ in range(2))
    for each in (first, second):
        classes.api.patch(f"{CLASSES}/{each}", default)
    service = classes.storage_class(name, {"server": "nfs.storage.svc.cluster.local", "share": "/x"})
    exports = [f"--export={server}:/x={export_directory}" for server in ("nas", "nfs.storage.svc.cluster.local")]
    done = check(control_plane.kubeconfig, f"--provisioner-name={name}", "--no-leader-election", *exports)
    assert done.status == 0
    warned = done.of("StorageClass", "(default)")
    assert all(each in warned["result"] for each in (first, second))
    assert done.of("StorageClass", service)["warning"]


def test_volumes_on_an_export_that_nothing_names(
    control_plane: ControlPlane, storage: Storage, daemon: Daemons, export_directory: Path
) -> None:
    """Volumes on a server that no class and no flag names are listed."""
    running = daemon(f"--export=nas.old:/x={export_directory}", *SHORT)
    class_name = storage.storage_class(running.provisioner_name)
    storage.claim(class_name)
    volume = storage.bound()
    flags = (f"--provisioner-name={running.provisioner_name}", f"--export=nas.new:/x={export_directory}", *SHORT)
    done = check(control_plane.kubeconfig, *flags)
    found = done.of("export", "nas.old:/x")
    assert found["warning"]
    assert volume["metadata"]["name"] in found["result"]


def test_no_class_names_us(control_plane: ControlPlane, classes: Storage, name: str) -> None:
    """Without a class of this provisioner, the names that classes have are reported, and the missing daemon too."""
    classes.storage_class("test.example/other")
    done = check(control_plane.kubeconfig, f"--provisioner-name={name}")
    assert done.status == 1
    assert name in done.of("StorageClass")["result"]
    assert "StorageClasses have" in done.of("StorageClass")["result"]
    assert "there is no such Lease" in done.of("leader")["result"]


@pytest.mark.parametrize(
    ("parameters", "options", "result", "advice"),
    [
        ({"onDelte": "delete"}, [], "parameter onDelte is unknown", "create it again"),
        ({"archiveRetention": "soon"}, [], "archiveRetention", "create it again"),
        ({}, [], "names no export", "NFS_SERVER"),
        ({"server": "nas", "share": "/x"}, ["nfsvers=5"], "nfsvers=5", "mountOptions"),
    ],
    ids=["unknown", "value", "no export", "mount option"],
)
def test_a_class_that_cannot_be_used(
    control_plane: ControlPlane,
    classes: Storage,
    name: str,
    parameters: Mapping[str, str],
    options: list[str],
    result: str,
    advice: str,
) -> None:
    """A class whose claims would be refused is reported with reason and advice, and its export is not tried."""
    class_name = classes.storage_class(name, parameters, mountOptions=options)
    done = check(control_plane.kubeconfig, f"--provisioner-name={name}")
    assert done.status == 1
    found = done.of("StorageClass", class_name)
    assert result in found["result"]
    assert advice in found["advice"]
    assert not [each for each in done.findings if each["kind"] == "export"]


# ------------------------------------------------------------------------------------------------ exports


@dataclass(frozen=True)
class Site:
    """NFS servers with every kind of trouble, and a class for each."""

    server: Ganesha
    hung: Ganesha
    free_port: int
    provisioner: str
    plain: Path


def new_class(api: Api, provisioner: str, share: str, *options: str, server: str = "127.0.0.1") -> str:
    """Create a class for an export that is used directly."""
    name = f"class-{secrets.token_hex(4)}"
    body = {
        "metadata": {"name": name},
        "provisioner": provisioner,
        "parameters": {"server": server, "share": share},
        "mountOptions": list(options),
    }
    api.post(CLASSES, body)
    return name


@pytest.fixture(scope="module")
def site(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two servers, of which one hangs, and classes on them; skipped where no server can run."""
    home = tmp_path_factory.mktemp("site")
    reason = ganesha.missing() or ganesha.vfs_problem(home)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    directories = {name: home / name for name in ("plain", "squashed", "readonly", "secure", "hung")}
    for directory in directories.values():
        directory.mkdir()
    exports = [
        Export(directories["plain"], "/plain"),
        Export(directories["squashed"], "/squashed", squash="Root_Squash"),
        Export(directories["readonly"], "/readonly", access="RO"),
        Export(directories["secure"], "/secure", privileged_port=True),
    ]
    api, provisioner, unused = control_plane.api, f"test.example/{secrets.token_hex(4)}", free_port()
    with Ganesha(exports) as server, Ganesha([Export(directories["hung"], "/hung")]) as hung:
        hung.pause()
        port = f"port={server.port}"
        made = [
            *(new_class(api, provisioner, f"/{name}", port) for name in ("plain", "squashed", "readonly", "secure")),
            new_class(api, provisioner, "/plain", port, "nfsvers=3"),
            new_class(api, provisioner, "/plain", port, "nfsvers=4.1"),
            new_class(api, provisioner, "/plain", port, "sec=krb5p"),
            new_class(api, provisioner, "/nowhere", port),
            new_class(api, provisioner, "/refused", f"port={unused}"),
            new_class(api, provisioner, "/unnamed", server="no-such-server.invalid"),
            new_class(api, provisioner, "/hung", f"port={hung.port}"),
        ]
        yield Site(server, hung, unused, provisioner, directories["plain"])
        hung.resume()
    for name in made:
        api.delete(f"{CLASSES}/{name}")


@pytest.fixture(scope="module")
def troubles(control_plane: ControlPlane, site: Site) -> Checked:
    """The result of one check of all servers."""
    return check(control_plane.kubeconfig, f"--provisioner-name={site.provisioner}")


def test_all_troubles_together(troubles: Checked) -> None:
    """One run reports every export, good and bad, and ends with status 1."""
    assert troubles.status == 1
    assert all(finding["ok"] for finding in troubles.findings if finding["kind"] not in ("export", "leader"))
    exports = [finding for finding in troubles.findings if finding["kind"] == "export"]
    assert len(exports) == 11
    assert all(bool(finding["advice"]) is not finding["ok"] for finding in exports)


def test_nothing_is_left_on_a_server(troubles: Checked, site: Site) -> None:
    """An export that is used directly is unchanged too."""
    plain = f"127.0.0.1:/plain port {site.server.port}"
    assert troubles.reached(plain, "reachable")["ok"]
    assert troubles.reached(plain, "with nfsvers=4.1: reachable")["ok"]
    assert contents(site.plain) == []


@pytest.mark.parametrize(
    ("export", "result", "advice"),
    [
        ("127.0.0.1:/squashed", "denies permission", "no_root_squash"),
        ("127.0.0.1:/readonly", "read-only", "rw in exports(5)"),
        ("127.0.0.1:/nowhere", "does not exist", "does not export /nowhere"),
        ("127.0.0.1:/refused", "is not responding", "refuses connections on port"),
        ("127.0.0.1:/hung", "is not responding", "firewall"),
        ("127.0.0.1:/plain", "with nfsvers=3: the export does not support", "does not serve NFS version 3"),
        ("no-such-server.invalid:/unnamed", "is not responding", "the name no-such-server.invalid is not found"),
    ],
    ids=["squashed", "read-only", "no such export", "refused", "hung", "version", "name"],
)
def test_an_export_in_trouble(troubles: Checked, export: str, result: str, advice: str) -> None:
    """Each trouble is reported with advice for an admin."""
    (found,) = [each for each in troubles.findings if each["name"].startswith(export) and result in each["result"]]
    assert not found["ok"]
    assert advice in found["advice"]


def test_kerberos(troubles: Checked, site: Site) -> None:
    """For a class that asks for Kerberos, `check` reports that the export must be mounted."""
    found = troubles.reached(f"127.0.0.1:/plain port {site.server.port}", "with sec=krb5: ")
    assert not found["ok"]
    assert "--export 127.0.0.1:/plain=DIRECTORY" in found["advice"]


def test_a_server_that_wants_a_low_port(control_plane: ControlPlane, troubles: Checked, site: Site) -> None:
    """A server that requires low source ports works with the right to use them; else both ways out are reported."""
    assert troubles.of("export", "127.0.0.1:/secure")["ok"]
    bindable = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    if os.geteuid() != 0 or int(bindable) < 1024:
        pytest.skip("this machine cannot forbid low ports to a process")
    without = ("setpriv", "--inh-caps=-net_bind_service", "--bounding-set=-net_bind_service")
    done = check(control_plane.kubeconfig, f"--provisioner-name={site.provisioner}", prefix=without)
    found = done.of("export", "127.0.0.1:/secure")
    assert not found["ok"]
    assert "insecure in exports(5)" in found["advice"]
    assert "ip_unprivileged_port_start" in found["advice"]
    assert done.reached(f"127.0.0.1:/plain port {site.server.port}", "reachable")["ok"]


def test_a_directory_that_is_not_mounted(control_plane: ControlPlane, export_directory: Path) -> None:
    """With --require-mount, a directory that is not a mount point is reported, and nothing is written into it."""
    done = check(control_plane.kubeconfig, "--require-mount", f"--export=nas:/x={export_directory}")
    found = done.of("export")
    assert "is not mounted" in found["result"]
    assert found["advice"] == "mount the export there"
    assert contents(export_directory) == []

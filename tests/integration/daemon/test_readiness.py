"""/readyz of a daemon without enough rights: it is not ready and names the missing right."""

from __future__ import annotations

import json
import secrets
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.core.checks import permissions
from testbed.api import Api
from testbed.cluster import TokenUser
from testbed.waiting import eventually
from tests.support.daemon import Daemon, Daemons
from tests.support.exported import Exported

RBAC = "/apis/rbac.authorization.k8s.io/v1"
Grant = Callable[..., None]


@pytest.fixture
def grant(cluster_api: Api, restricted_user: TokenUser) -> Iterator[Grant]:
    """Grants the restricted user the daemon's rights, except on the named resources, until the test ends."""
    role = f"test-{secrets.token_hex(4)}"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": restricted_user.name}

    def granted(*without: str) -> None:
        rules = [
            {"apiGroups": [each.group], "resources": [each.target.removesuffix(f".{each.group}")], "verbs": [each.verb]}
            for each in permissions(lease=("default", "any"))
            if not {each.target.removesuffix(f".{each.group}"), f"{each.verb} {each.target}"} & set(without)
        ]
        cluster_api.delete(f"{RBAC}/clusterroles/{role}")
        cluster_api.post(f"{RBAC}/clusterroles", {"metadata": {"name": role}, "rules": rules})

    binding = {"metadata": {"name": role}, "roleRef": reference, "subjects": [subject]}
    cluster_api.post(f"{RBAC}/clusterroles", {"metadata": {"name": role}, "rules": []})
    cluster_api.post(f"{RBAC}/clusterrolebindings", binding)
    yield granted
    cluster_api.delete(f"{RBAC}/clusterrolebindings/{role}")
    cluster_api.delete(f"{RBAC}/clusterroles/{role}")


@pytest.fixture
def export(export_directory: Path) -> Exported:
    """A directory as an export."""
    return Exported.new(export_directory)


def missing(daemon: Daemon) -> dict[str, str]:
    """Return what /readyz reports as missing; empty once the daemon is ready."""
    try:
        daemon.http("/readyz")
    except urllib.error.HTTPError as exc:
        found: dict[str, str] = json.load(exc)["missing"]
        return found
    except OSError:
        return {"endpoint": "it does not answer yet"}
    return {}


@pytest.mark.parametrize(
    ("without", "flags", "what", "words"),
    [
        ("leases", (), "Lease", "grant get, create and update on leases.coordination.k8s.io in the namespace default"),
        ("namespaces", ("--no-leader-election",), "cluster", "grant get on the namespace kube-system"),
        ("persistentvolumeclaims", (), "cache of claims", "grant list and watch"),
    ],
)
def test_a_missing_right(
    grant: Grant,
    daemon: Daemons,
    restricted_user: TokenUser,
    export: Exported,
    without: str,
    flags: tuple[str, ...],
    what: str,
    words: str,
) -> None:
    """Without a required right a replica is not ready and names it, and it is ready once the right is granted."""
    grant(without)
    running = daemon(export.flag, *flags, user=restricted_user, wait_ready=False)
    eventually(lambda: words in missing(running).get(what, ""), f"/readyz names the right for {what}", timeout_s=60)
    grant()
    eventually(running.ready, "it is ready", timeout_s=60)

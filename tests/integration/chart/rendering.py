"""The chart, rendered by Helm: the objects of one release, found by kind and name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testbed.api import Api, Object
from testbed.helm import Helm

CHART = Path(__file__).parents[3] / "charts" / "nfs-provisioner"
VALUE_SETS = sorted((CHART / "ci").glob("*.yaml"))
"""Each is one way to install the chart; some are values of the nfs-subdir chart."""


NAS = {"nfs__server": "nas", "nfs__path": "/x"}
"""The minimum of values for an installation, as keywords of a Renderer."""


@dataclass(frozen=True)
class Release:
    """The objects of a release, including hooks (`helm test`)."""

    objects: list[Object]

    def all(self, kind: str) -> list[Object]:
        """Return the objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Object:
        """Return the only object of a kind."""
        (found,) = self.all(kind)
        return found

    @property
    def pod(self) -> Object:
        """The Deployment's pod."""
        template: Object = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def container(self) -> Object:
        """The daemon's container."""
        (found,) = self.pod["spec"]["containers"]
        return dict(found)

    def environment(self, namespace: str = "nfs") -> dict[str, str]:
        """Return the daemon's environment as the kubelet sets it."""
        return {each["name"]: each.get("value", namespace) for each in self.container["env"]}

    def storage_class(self, name: str = "nfs-client") -> Object:
        """Return the StorageClass of that name."""
        (found,) = [each for each in self.all("StorageClass") if each["metadata"]["name"] == name]
        return found


class Renderer:
    """`helm template`."""

    def __init__(self, helm: Helm) -> None:
        self._helm = helm

    def __call__(
        self,
        *value_files: Path,
        name: str = "nfs-provisioner",
        namespace: str = "nfs",
        kube_version: str = "",
        **sets: Any,
    ) -> Release:
        """Render a release with values from files, then from `sets`, where `__` stands for a dot. Raises HelmFailed.

        `kube_version` is the cluster's version, by default a recent one.
        """
        values: dict[str, Any] = {}
        for key, value in sets.items():
            *parents, last = key.split("__")
            section = values
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        files = [f"--values={path}" for path in value_files]
        given = yaml.safe_dump(values)
        cluster = [f"--kube-version={kube_version}"] if kube_version else []
        where = (f"--namespace={namespace}", *cluster)
        output = self._helm.run("template", name, CHART, *where, *files, "--values=-", input=given)
        return Release([each for each in yaml.safe_load_all(output) if each])


def collection(api: Api, body: Object) -> str:
    """Return the path to create an object at, by the API server's discovery."""
    version, kind = body["apiVersion"], body["kind"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    (resource,) = [each for each in api.get(root)["resources"] if each["kind"] == kind and "/" not in each["name"]]
    place = f"/namespaces/{body['metadata']['namespace']}" if resource["namespaced"] else ""
    return f"{root}{place}/{resource['name']}"


def rules(release: Release) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield what the roles allow, one by one: kind of role, API group, resource, verb, object's name or ""."""
    for kind in ("ClusterRole", "Role"):
        for role in release.all(kind):
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            for name in rule.get("resourceNames", [""]):
                                yield kind, group, resource, verb, name


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of each leaf; empty maps are leaves too."""
    if isinstance(node, dict) and node:
        for key, child in node.items():
            yield from leaves(child, f"{path}__{key}" if path else key)
    else:
        yield path, node

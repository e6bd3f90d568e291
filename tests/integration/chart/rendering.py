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
"""Each is a way to install the chart, those of the nfs-subdir chart among them."""


NAS = {"nfs__server": "nas", "nfs__path": "/x"}
"""The least that the chart can be installed with, as a Renderer takes it."""


@dataclass(frozen=True)
class Release:
    """What a release consists of; hooks (those of `helm test`) are among the objects."""

    objects: list[Object]

    def all(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
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
        """The daemon's environment as the kubelet would set it."""
        return {each["name"]: each.get("value", namespace) for each in self.container["env"]}

    def storage_class(self, name: str = "nfs-client") -> Object:
        """The StorageClass of that name."""
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
        """A release with values from files and then from `sets`, where `__` stands for a dot. Raises HelmFailed.

        `kube_version` is the cluster's; without it, a recent one.
        """
        values: dict[str, Any] = {}
        for key, value in sets.items():
            *parents, last = key.split("__")
            room = values
            for parent in parents:
                room = room.setdefault(parent, {})
            room[last] = value
        files = [f"--values={path}" for path in value_files]
        given = yaml.safe_dump(values)
        cluster = [f"--kube-version={kube_version}"] if kube_version else []
        where = (f"--namespace={namespace}", *cluster)
        said = self._helm.run("template", name, CHART, *where, *files, "--values=-", input=given)
        return Release([each for each in yaml.safe_load_all(said) if each])


def collection(api: Api, body: Object) -> str:
    """The path that an object is created at, as the API server's discovery has it."""
    version, kind = body["apiVersion"], body["kind"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    (resource,) = [each for each in api.get(root)["resources"] if each["kind"] == kind and "/" not in each["name"]]
    place = f"/namespaces/{body['metadata']['namespace']}" if resource["namespaced"] else ""
    return f"{root}{place}/{resource['name']}"


def rules(release: Release) -> Iterator[tuple[str, str, str, str, str]]:
    """What the release's roles allow, one by one: kind of role, API group, resource, verb, name of the object or ""."""
    for kind in ("ClusterRole", "Role"):
        for role in release.all(kind):
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            for name in rule.get("resourceNames", [""]):
                                yield kind, group, resource, verb, name


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is not a map, with its path; empty maps too."""
    if isinstance(node, dict) and node:
        for key, child in node.items():
            yield from leaves(child, f"{path}__{key}" if path else key)
    else:
        yield path, node

"""The claims and classes of the story, and what is promised for each claim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["stays", "deleted", "archived", "retained", "refused"]
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]
SHORT_MODES = {"ReadWriteOnce": "RWO", "ReadWriteMany": "RWX"}
REPLICAS = 10
STATEFUL_SET = "web"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClaim:
    """A claim: its request, and the promised fate of its directory."""

    name: str
    purpose: str
    class_name: str
    size: str
    access_mode: AccessMode
    fate: Fate = "stays"
    annotations: dict[str, str] = field(default_factory=dict)
    by_controller: bool = False
    """Whether the StatefulSet controller creates it from a template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The objects of one demonstration.

    The suffix makes their names unique in a user's cluster.
    """

    suffix: str
    server: str
    path: str
    mount_options: tuple[str, ...]

    @property
    def provisioner(self) -> str:
        """The name of the provisioner, unique to this demonstration."""
        return f"demo.nfs-provisioner/nfs{self.suffix}"

    @property
    def namespace(self) -> str:
        """The namespace of the claims."""
        return f"shop{self.suffix}"

    def directory(self, claim: str) -> str:
        """Return the directory of a claim below the export, by the pathPattern of the classes."""
        return f"{self.namespace}/{claim}"

    def claims(self) -> tuple[PlannedClaim, ...]:
        """Return all claims in the order of their creation."""
        archive, delete, retain, team = (name + self.suffix for name in _RULES)
        web = (
            PlannedClaim(
                name=f"data-{STATEFUL_SET}-{ordinal}",
                purpose=f"StatefulSet {STATEFUL_SET}",
                class_name=archive,
                size="1Gi",
                access_mode="ReadWriteOnce",
                by_controller=True,
            )
            for ordinal in range(3)
        )
        return (
            _claim("mariadb", "MariaDB", archive, "2Gi"),
            _claim("wordpress", f"{REPLICAS} WordPress replicas", archive, "10Gi", access_mode="ReadWriteMany"),
            *web,
            _claim("scratch", "to be deleted", delete, "5Gi", fate="deleted"),
            _claim("reports", "to be archived", archive, "5Gi", fate="archived"),
            _claim("invoices", "to be retained", retain, "5Gi", fate="retained"),
            _claim("intruder", "directories of others", team, "1Gi", fate="refused", annotations={"team": "../.."}),
        )

    def classes(self) -> Iterator[dict[str, Any]]:
        """Yield the StorageClasses."""
        for name, (reclaim_policy, parameters) in _RULES.items():
            yield {
                "metadata": {"name": name + self.suffix},
                "provisioner": self.provisioner,
                "reclaimPolicy": reclaim_policy,
                "mountOptions": list(self.mount_options),
                "parameters": {"server": self.server, "share": self.path, **parameters},
            }

    def stateful_set(self) -> dict[str, Any]:
        """Return a StatefulSet with a claim template.

        No scheduler serves its pods: they never run, and hold no claim.
        """
        labels = {"app": STATEFUL_SET}
        template = next(claim for claim in self.claims() if claim.by_controller)
        return {
            "metadata": {"name": STATEFUL_SET},
            "spec": {
                "replicas": sum(claim.by_controller for claim in self.claims()),
                "serviceName": STATEFUL_SET,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "schedulerName": "none",
                        "containers": [{"name": "web", "image": "registry.k8s.io/pause:3.10"}],
                    },
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim_spec(template)}],
            },
        }


_PATTERN = "${.PVC.namespace}/${.PVC.name}"
_RULES: dict[str, tuple[str, dict[str, str]]] = {
    "nfs-archive": ("Delete", {"onDelete": "archive", "pathPattern": _PATTERN}),
    "nfs-delete": ("Delete", {"onDelete": "delete", "pathPattern": _PATTERN}),
    "nfs-retain": ("Retain", {"pathPattern": _PATTERN}),
    "nfs-team": ("Delete", {"onDelete": "delete", "pathPattern": "${.PVC.annotations.team}/${.PVC.name}"}),
}
"""reclaimPolicy and parameters of each class. In the last class an annotation of the tenant is part of the path."""


def _claim(name: str, purpose: str, class_name: str, size: str, **rest: Any) -> PlannedClaim:
    fields = {"access_mode": "ReadWriteOnce", **rest}
    return PlannedClaim(name=name, purpose=purpose, class_name=class_name, size=size, **fields)


def claim_spec(claim: PlannedClaim) -> dict[str, Any]:
    """Return the `spec` of a PersistentVolumeClaim."""
    return {
        "storageClassName": claim.class_name,
        "accessModes": [claim.access_mode],
        "resources": {"requests": {"storage": claim.size}},
    }

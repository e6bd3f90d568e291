"""What `check` looks at and reports: permissions, classes, and the exports that the classes use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from provisioner.core import classes, names, scope
from provisioner.core.errors import InvalidMountOption, InvalidSettings
from provisioner.core.locations import Location, label
from provisioner.core.mount_options import MountOptions
from provisioner.core.objects import StorageClass

Kind = Literal[
    "API server",
    "permission",
    "leader",
    "version",
    "StorageClass",
    "export",
    "quota agent",
    "snapshots",
    "claim",
    "volume",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check. `advice` says what an admin must do, and is empty if all is well.

    A `warning` is not a failure: the daemon works, but an admin should look at it.
    """

    kind: Kind
    name: str
    ok: bool
    result: str
    advice: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One verb on one resource, as in RBAC; an empty namespace means all, an empty name any."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def target(self) -> str:
        """The resource of the verb, as rules of roles write it: `leases.coordination.k8s.io`."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{resource}.{self.group}" if self.group else resource


def permissions(*, lease: tuple[str, str] | None, auto_grow: bool = False, snapshots: bool = False) -> list[Permission]:
    """Return all permissions that the daemon needs.

    `lease` is the namespace and name of its Lease, if it has one. `auto_grow`: a class lets its claims grow.
    `snapshots`: VolumeSnapshots are served.
    """
    volumes = [
        Permission(verb=verb, resource="persistentvolumes")
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ]
    on_claims = ("get", "list", "watch", *(("patch",) if auto_grow else ()))
    claims = [Permission(verb=verb, resource="persistentvolumeclaims") for verb in on_claims]
    status = Permission(verb="patch", resource="persistentvolumeclaims", subresource="status")
    classes = [Permission(verb=verb, resource="storageclasses", group="storage.k8s.io") for verb in ("list", "watch")]
    # In all namespaces: an event is in the namespace of its claim, and that of a volume is in `default`.
    events = [Permission(verb=verb, resource="events") for verb in ("create", "patch")]
    # A ledger distinguishes clusters by the uid of kube-system, and owners of kept data by the uid of their namespace.
    namespaces = Permission(verb="get", resource="namespaces")
    of_snapshots = _of_snapshots() if snapshots else ()
    of_lease = _of_lease(*lease) if lease else ()
    return [*volumes, *claims, status, *classes, *events, namespaces, *of_snapshots, *of_lease]


def _of_snapshots() -> list[Permission]:
    read = ("get", "list", "watch")
    resources = {
        "volumesnapshots": (*read, "create", "patch", "delete"),
        "volumesnapshotclasses": read,
        "volumesnapshotcontents": (*read, "create", "patch", "delete"),
    }
    return [
        *(
            Permission(verb=verb, resource=resource, group=names.SNAPSHOT_GROUP)
            for resource, verbs in resources.items()
            for verb in verbs
        ),
        Permission(verb="patch", resource="volumesnapshotcontents", subresource="status", group=names.SNAPSHOT_GROUP),
    ]


def _of_lease(namespace: str, name: str) -> list[Permission]:
    # No name for create: RBAC cannot restrict it to one (Kubernetes, Using RBAC, "Referring to resources").
    return [
        Permission(
            verb=verb,
            resource="leases",
            group="coordination.k8s.io",
            namespace=namespace,
            name="" if verb == "create" else name,
        )
        for verb in ("get", "create", "update")
    ]


@lru_cache
def source(verb: str, resource: str) -> str:
    """Return where the permission for a call comes from, for a caller who lacks it."""
    for each in permissions(lease=("", ""), snapshots=True):
        name = f"{each.resource}/{each.subresource}" if each.subresource else each.resource
        if (each.verb, name) == (verb, resource):
            role = "Role and RoleBinding" if each.resource == "leases" else "ClusterRole and ClusterRoleBinding"
            return (
                f"the chart's {role} grant this permission to the daemon's ServiceAccount: grant it to the user of the"
                " kubeconfig, too"
            )
    return "the daemon's ServiceAccount does not have this permission: use the kubeconfig of an admin who has it"


def permitted(answers: Mapping[Permission, bool]) -> list[Finding]:
    """Return a finding per resource.

    `answers` says of each permission whether it is granted.
    """
    targets = dict.fromkeys((permission.target, permission.namespace) for permission in answers)
    return [
        _permitted(
            *target, {each.verb: held for each, held in answers.items() if (each.target, each.namespace) == target}
        )
        for target in targets
    ]


def _permitted(target: str, namespace: str, verbs: Mapping[str, bool]) -> Finding:
    missing = [verb for verb, held in verbs.items() if not held]
    where = f" in namespace {namespace}" if namespace else ""
    role = "a Role" if namespace else "a ClusterRole"
    return Finding(
        kind="permission",
        name=target + where,
        ok=not missing,
        result=f"denied: {', '.join(missing)}" if missing else ", ".join(verbs),
        advice=f"bind {role} that allows {', '.join(missing)} on {target}{where}" if missing else "",
    )


@dataclass(frozen=True, slots=True)
class Use:
    """An export as a class uses it."""

    export: Location
    options: MountOptions


def judge(storage_class: StorageClass, default_export: Location | None) -> tuple[Finding, Use | None]:
    """Check whether a class can be used.

    Return the finding, and the export that the class uses.
    """

    def found(result: str, advice: str = "") -> Finding:
        return Finding(kind="StorageClass", name=storage_class.name, ok=not advice, result=result, advice=advice)

    try:
        settings = classes.settings_of(storage_class, default_export)
    except InvalidMountOption as exc:
        return found(str(exc), "correct the class's mountOptions"), None
    except InvalidSettings as exc:
        # Kubernetes does not allow changes of a class's parameters.
        return found(str(exc), "delete the class and create it again, corrected; its volumes stay as they are"), None
    parameters, export = settings.parameters, settings.export
    if export is None:
        advice = "create it again with the parameters server and share, or set NFS_SERVER and NFS_PATH"
        return found("it names no export, and there is no default export", advice), None
    rule = "retain" if storage_class.reclaim_policy == "Retain" else parameters.on_delete
    use = Use(export, settings.mount_options)
    if parameters.auto_grow is not None and not storage_class.allow_volume_expansion:
        well = found(f"on {way(use)}; autoGrow has no effect, as the class does not allow expansion")
        return replace(well, warning=True, advice=f"kubectl patch sc {storage_class.name} -p '{_EXPAND}'"), use
    ignored = f"; without effect: {', '.join(parameters.ignored)}" if parameters.ignored else ""
    well = found(f"on {way(use)}; {rule} when a claim is deleted{ignored}")
    return (_of_cluster_dns(well, export) if is_cluster_dns(export.server) else well), use


_EXPAND = '{"allowVolumeExpansion":true}'


def is_cluster_dns(server: str) -> bool:
    """Return True if a server's name is that of a Service: the cluster's DNS resolves it, most nodes do not."""
    labels = server.rstrip(".").split(".")
    return labels[2:3] == ["svc"] or labels[-2:] == ["cluster", "local"]


def _of_cluster_dns(finding: Finding, export: Location) -> Finding:
    result = f"{finding.result}; nodes mount {export.server}, and usually cannot resolve the name of a Service"
    advice = "create a class with the server's address, or with a name that the nodes' own DNS resolves"
    return replace(finding, result=result, advice=advice, warning=True)


def no_class(provisioner: str, classes: Mapping[str, int]) -> Finding:
    """Report that no class has the provisioner's name.

    `classes` counts the classes of each provisioner.
    """
    return Finding(
        kind="StorageClass",
        name="(none)",
        ok=False,
        result=scope.no_class(provisioner, classes),
        advice=f"create a StorageClass with provisioner: {provisioner}, or correct --provisioner-name",
    )


def uses(of_classes: Iterable[Use], configured: Iterable[Location], mounted: Set[Location]) -> list[Use]:
    """Return each export once per set of mount options, and those that only the settings name.

    The mount options of classes do not matter for an export that is mounted in the pod.
    """
    found = dict.fromkeys(use_of(use, mounted) for use in of_classes)
    named = {use.export for use in found}
    return [*found, *(Use(where, MountOptions()) for where in configured if where not in named)]


def use_of(use: Use, mounted: Set[Location]) -> Use:
    """Return the use of an export by which it is tried: mount options do not matter for one that is mounted."""
    return Use(use.export, MountOptions()) if use.export in mounted else use


def way(use: Use) -> str:
    """Return the export as it is spelled everywhere, with its mount options: `nas:/exports port 12049 nfsvers=4.1`."""
    return " ".join([label(use.export, use.options.port), *manner(use.options)])


def manner(options: MountOptions) -> list[str]:
    """Return the mount options that matter for the way to an export, except for the port."""
    said = {"nfsvers": options.version, "mountport": options.mount_port}
    parts = [f"{name}={value}" for name, value in said.items() if value is not None]
    asked = ["sec=krb5" if options.kerberos else "", options.encryption, options.transport]
    return [*parts, *filter(None, asked)]

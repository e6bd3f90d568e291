"""Classes, claims and volumes as a user of the cluster writes and watches them, in one test's namespace."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from testbed.api import Api, ApiError, Object
from testbed.processes import tail
from testbed.waiting import eventually
from tests.support.daemon import Daemon
from tests.support.exported import LEDGER, Exported

CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"

_BINDER = "persistentvolume-controller"

T = TypeVar("T")


class Storage:
    """A user's calls for storage; every failed wait reports the namespace's events and the daemons' last log lines."""

    def __init__(self, api: Api, namespace: str, *, daemon_logs: Callable[[], str], roots: Sequence[Path] = ()) -> None:
        """`roots` are the directories of this machine that are exported."""
        self.api = api
        self.namespace = namespace
        self.claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
        self._daemon_logs = daemon_logs
        self._roots = roots
        self._classes: list[str] = []
        self._volumes: list[str] = []

    def storage_class(self, provisioner: str, parameters: Mapping[str, str] | None = None, **fields: Any) -> str:
        """Create a StorageClass, by default with Delete and Immediate, and return its name."""
        name = f"class-{secrets.token_hex(4)}"
        body = {"metadata": {"name": name}, "provisioner": provisioner, "parameters": dict(parameters or {})} | fields
        self.api.post(CLASSES, body)
        self._classes.append(name)
        return name

    def claim(
        self, class_name: str, name: str = "data", *, size: str = "1Mi", metadata: Object | None = None, **spec: Any
    ) -> Object:
        """Create a claim, ReadWriteMany unless `spec` says otherwise, and return it as stored."""
        wanted = {
            "storageClassName": class_name,
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": size}},
        }
        return self.api.post(self.claims, {"metadata": {"name": name} | (metadata or {}), "spec": wanted | spec})

    def bound(self, name: str = "data", *, timeout_s: float = 60.0) -> Object:
        """Wait until the claim is Bound, and return its volume.

        The daemon settles the ledger's record after it has created the volume: wait for that too, so that a test can
        compare ledgers.
        """

        def volume() -> Object | None:
            claim = self.api.get(f"{self.claims}/{name}")
            if claim["status"]["phase"] != "Bound":
                return None
            return self.api.get(f"{VOLUMES}/{claim['spec']['volumeName']}")

        found = self.eventually(volume, f"the claim {name} is Bound", timeout_s=timeout_s)
        pending = [root / LEDGER / "pending" / found["metadata"]["name"] for root in self._roots]
        self.eventually(lambda: not any(map(os.path.lexists, pending)), f"the record of claim {name} is settled")
        return found

    def get_claim(self, name: str = "data") -> Object:
        """Return the claim."""
        return self.api.get(f"{self.claims}/{name}")

    def get_volume(self, name: str) -> Object:
        """Return the PersistentVolume."""
        return self.api.get(f"{VOLUMES}/{name}")

    def has_volume(self, name: str) -> bool:
        """Whether a PersistentVolume of that name exists."""
        try:
            self.get_volume(name)
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
        return True

    def make_volume(self, body: Object) -> Object:
        """Create a PersistentVolume by hand; the test deletes it by force at its end."""
        made = self.api.post(VOLUMES, body)
        self._volumes.append(made["metadata"]["name"])
        return made

    def delete_claim(self, name: str = "data") -> None:
        """Request the claim's deletion."""
        self.api.delete(f"{self.claims}/{name}")

    def volume_gone(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Wait until the PersistentVolume is gone."""

        def gone() -> bool:
            try:
                self.api.get(f"{VOLUMES}/{name}")
            except ApiError as exc:
                return exc.status == 404
            return False

        self.eventually(gone, f"the volume {name} is gone", timeout_s=timeout_s)

    def events(self, involved: str = "data", *, reason: str | None = None) -> list[Object]:
        """Return the events about an object of the namespace, of one reason or of all.

        Warnings of kube-controller-manager are left out: it warns while it has not seen a new class.
        """
        found = self.api.list(
            f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=f"involvedObject.name={involved}"
        )
        kept = [event for event in found if event["type"] == "Normal" or event["source"].get("component") != _BINDER]
        return [event for event in kept if reason in (None, event["reason"])]

    def volume_event(
        self, volume: str, reason: str = "VolumeFailedDelete", *, type: str = "Warning", timeout_s: float = 30.0
    ) -> Object:
        """Wait for an event about a PersistentVolume, by default a warning, and return it."""

        def found() -> list[Object]:
            events = self.api.list("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={volume}")
            return [event for event in events if event["reason"] == reason and event["type"] == type]

        return self.eventually(found, f"an event {reason} about volume {volume}", timeout_s=timeout_s)[0]

    def event(self, reason: str, involved: str = "data", *, timeout_s: float = 30.0) -> Object:
        """Wait for an event of that reason about the object, and return it."""
        what = f"an event {reason} about {involved}"
        return self.eventually(lambda: self.events(involved, reason=reason), what, timeout_s=timeout_s)[0]

    def eventually(self, condition: Callable[[], T | None], what: str, *, timeout_s: float = 30.0) -> T:
        """Wait as testbed.waiting.eventually does, with this test's events and logs in the failure."""
        return eventually(condition, what, timeout_s=timeout_s, explain=self.explain)

    def explain(self) -> str:
        """Return the namespace's events and the daemons' last log lines."""
        try:
            events = self.api.list(f"/api/v1/namespaces/{self.namespace}/events")
        except (ApiError, OSError) as exc:
            return f"the events cannot be read: {exc}\n{self._daemon_logs()}"
        lines = [f"{e['involvedObject']['name']}: {e['type']} {e['reason']}: {e['message']}" for e in events]
        return "\n".join(["--- events", *lines, self._daemon_logs()])

    def remove_volumes(self) -> None:
        """Delete the volumes created by hand, and their finalizers."""
        for name in self._volumes:
            try:
                self.api.patch(f"{VOLUMES}/{name}", {"metadata": {"finalizers": None}})
            except ApiError as exc:
                if exc.status != 404:
                    raise
            self.delete_if_there(f"{VOLUMES}/{name}")

    def remove_classes(self) -> None:
        """Delete the classes created here; the claims go with the namespace."""
        for name in self._classes:
            self.delete_if_there(f"{CLASSES}/{name}")

    def delete_if_there(self, path: str) -> None:
        """Request an object's deletion; a no-op if it is gone."""
        try:
            self.api.delete(path)
        except ApiError as exc:
            if exc.status != 404:
                raise


class ServedStorage(Storage):
    """Storage with classes of one daemon, and that daemon's default export on disk."""

    def __init__(self, api: Api, namespace: str, *, daemon: Daemon, export: Exported) -> None:
        super().__init__(api, namespace, daemon_logs=lambda: tail(daemon.log), roots=[export.root])
        self.daemon = daemon
        self.export = export
        self.provisioner = daemon.provisioner_name

    def own_class(self, parameters: Mapping[str, str] | None = None, **fields: Any) -> str:
        """Create a StorageClass of the daemon, by default with Delete and Immediate, and return its name."""
        return self.storage_class(self.provisioner, parameters, **fields)

    def volume(self, parameters: Mapping[str, str] | None = None, name: str = "data", **fields: Any) -> Object:
        """Create a claim of a new class with these parameters, wait until it is Bound, and return its volume."""
        self.claim(self.own_class(parameters, **fields), name)
        return self.bound(name)

    def directory(self, volume: Object) -> Path:
        """Return the path of a volume's directory on this machine."""
        return self.export.directory(volume)

    def released(self, volume: Object) -> None:
        """Delete a volume's claim, and wait until the volume is gone."""
        self.delete_claim(volume["spec"]["claimRef"]["name"])
        self.volume_gone(volume["metadata"]["name"])

    def refusal(self, name: str = "data") -> str:
        """Wait for the warning that refuses a claim, check that it has no volume, and return the message."""
        event = self.event("ProvisioningFailed", name)
        assert event["type"] == "Warning"
        claim = self.get_claim(name)
        assert claim["status"]["phase"] == "Pending"
        assert not self.has_volume(f"pvc-{claim['metadata']['uid']}")
        message: str = event["message"]
        return message

    def settled(self) -> None:
        """Wait until the daemon has done all earlier work, by way of one more claim."""
        name = f"later-{secrets.token_hex(3)}"
        self.volume({"pathPattern": "${.PV.name}"}, name)

    def made(self) -> list[str]:
        """Return the names at the export's root that contain the namespace's name."""
        return sorted(name for name in self.export.names() if self.namespace in name)

    def own_claims(self, class_name: str) -> list[Object]:
        """Return the remaining claims of a class."""
        return [claim for claim in self.api.list(self.claims) if claim["spec"]["storageClassName"] == class_name]

    def unbound(self, names: Iterable[str]) -> list[str]:
        """Return the claims that are not Bound."""
        return [name for name in names if self.get_claim(name)["status"]["phase"] != "Bound"]

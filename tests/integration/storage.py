"""Classes, claims and volumes as a user of the cluster writes and watches them, in one test's namespace."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from testbed.api import Api, ApiError, Object
from testbed.waiting import eventually

CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
VOLUMES = "/api/v1/persistentvolumes"

T = TypeVar("T")


class Storage:
    """What a user does with storage; every wait fails with the namespace's events and the daemons' last words."""

    def __init__(self, api: Api, namespace: str, *, daemon_logs: Callable[[], str]) -> None:
        self.api = api
        self.namespace = namespace
        self.claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
        self._daemon_logs = daemon_logs
        self._classes: list[str] = []

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
        """Wait until the claim is Bound, and return its volume."""

        def volume() -> Object | None:
            claim = self.api.get(f"{self.claims}/{name}")
            if claim["status"]["phase"] != "Bound":
                return None
            return self.api.get(f"{VOLUMES}/{claim['spec']['volumeName']}")

        return self.eventually(volume, f"the claim {name} is Bound", timeout_s=timeout_s)

    def delete_claim(self, name: str = "data") -> None:
        """Ask for the claim's deletion."""
        self.api.delete(f"{self.claims}/{name}")

    def volume_gone(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Wait until the PersistentVolume is not there any more."""

        def gone() -> bool:
            try:
                self.api.get(f"{VOLUMES}/{name}")
            except ApiError as exc:
                return exc.status == 404
            return False

        self.eventually(gone, f"the volume {name} is gone", timeout_s=timeout_s)

    def events(self, involved: str = "data", *, reason: str | None = None) -> list[Object]:
        """The events about an object of the namespace, of one reason or of all."""
        found = self.api.list(
            f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=f"involvedObject.name={involved}"
        )
        return [event for event in found if reason in (None, event["reason"])]

    def event(self, reason: str, involved: str = "data", *, timeout_s: float = 30.0) -> Object:
        """Wait for an event of that reason about the object, and return it."""
        what = f"an event {reason} about {involved}"
        return self.eventually(lambda: self.events(involved, reason=reason), what, timeout_s=timeout_s)[0]

    def eventually(self, condition: Callable[[], T | None], what: str, *, timeout_s: float = 30.0) -> T:
        """As testbed.waiting.eventually, with this test's events and logs in the failure."""
        return eventually(condition, what, timeout_s=timeout_s, explain=self.explain)

    def explain(self) -> str:
        """The namespace's events and the daemons' last log lines."""
        try:
            events = self.api.list(f"/api/v1/namespaces/{self.namespace}/events")
        except (ApiError, OSError) as exc:
            return f"no events to be had: {exc}\n{self._daemon_logs()}"
        told = [f"{e['involvedObject']['name']}: {e['type']} {e['reason']}: {e['message']}" for e in events]
        return "\n".join(["--- events", *told, self._daemon_logs()])

    def remove_classes(self) -> None:
        """Delete the classes made here; the claims go with the namespace."""
        for name in self._classes:
            self.api.delete(f"{CLASSES}/{name}")

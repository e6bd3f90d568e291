"""One daemon per module without any --export, and the Ganesha servers that its classes name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testbed import ganesha
from testbed.api import Api
from testbed.cluster import ControlPlane
from testbed.ganesha import Export, Ganesha
from testbed.processes import tail
from tests.support.daemon import Daemon, Daemons
from tests.support.direct_export import VERSIONS, DirectExport
from tests.support.disk import disk
from tests.support.storage import Storage

MakeServer = Callable[..., Ganesha]


class DirectStorage(Storage):
    """Storage whose classes are those of one daemon."""

    def __init__(self, api: Api, namespace: str, daemon: Daemon) -> None:
        super().__init__(api, namespace, daemon_logs=lambda: tail(daemon.log))
        self.daemon = daemon

    def class_on(self, export: DirectExport, on_delete: str = "delete", **fields: Any) -> str:
        """Create a class on an export and return its name; `fields` can add `parameters` and `options`."""
        parameters = export.parameters | {"onDelete": on_delete} | fields.pop("parameters", {})
        options = export.mount_options + fields.pop("options", [])
        return self.storage_class(self.daemon.provisioner_name, parameters, mountOptions=options, **fields)

    def purged(self, export: DirectExport) -> None:
        """Wait until an export's trash is empty."""
        self.eventually(lambda: not disk(export.root).trash, "the trash is purged", timeout_s=30)

    def unrecorded(self, export: DirectExport, name: str) -> None:
        """Wait until a volume's record is deleted, which happens after the volume is gone."""
        self.eventually(lambda: name not in disk(export.root).records, f"the record of {name} is deleted")

    def failure(self, name: str, *words: str, timeout_s: float = 10.0) -> str:
        """Wait for a claim's ProvisioningFailed event with these words, and return its message."""

        def found() -> str | None:
            messages = [event["message"] for event in self.events(name, reason="ProvisioningFailed")]
            return next((text for text in messages if all(word in text for word in words)), None)

        return self.eventually(found, f"an event about {name} with {words}", timeout_s=timeout_s)


@pytest.fixture(scope="module")
def direct_daemon(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon without any --export, for all tests of a module."""
    daemons = Daemons(control_plane, tmp_path_factory.mktemp("direct"))
    yield daemons("--no-leader-election")
    daemons.kill()


@pytest.fixture
def direct(cluster_api: Api, namespace: str, direct_daemon: Daemon) -> Iterator[DirectStorage]:
    """Classes and claims in the test's namespace, served by the module's daemon."""
    storage = DirectStorage(cluster_api, namespace, direct_daemon)
    yield storage
    storage.remove_volumes()
    storage.remove_classes()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeServer]:
    """Starts a Ganesha with exports of these paths, by default in all versions; skipped where none can run.

    With `start=False` the test starts it later; further fields are those of `Export`.
    """
    home = tmp_path_factory.mktemp("served")
    reason = ganesha.missing(versions=VERSIONS) or ganesha.vfs_problem(home)
    if reason:
        pytest.skip(f"this machine cannot run an NFS server: {reason}")
    with ExitStack() as stack:

        def make(*paths: str, versions: Any = VERSIONS, start: bool = True, **fields: Any) -> Ganesha:
            exports = [Export(_directory(home, path), path, **fields) for path in paths]
            server = Ganesha(exports, versions=versions)
            stack.callback(server.stop)
            if start:
                server.start()
            return server

        yield make


def _directory(home: Path, path: str) -> Path:
    directory = home / path.removeprefix("/")
    directory.mkdir(parents=True, exist_ok=True)
    return directory

"""The daemon on a server with case-insensitive names, as ZFS (TrueNAS) and NetApp can have."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from tests.support.daemon import Daemons
from tests.support.disk import disk
from tests.support.storage import Storage

pytestmark = pytest.mark.timeout(180)

SERVER = """
import os

def folded(call, names):
    def folding(*args, **kwargs):
        relative = [n < names and isinstance(each, str) and each[:1] != "/" for n, each in enumerate(args)]
        return call(*(each.lower() if fold else each for each, fold in zip(args, relative)), **kwargs)
    return folding

for name, names in {"mkdir": 1, "stat": 1, "rename": 2, "rmdir": 1, "unlink": 1, "readlink": 1}.items():
    setattr(os, name, folded(getattr(os, name), names))
opened = os.open
os.open = lambda path, flags, *args, **kwargs: opened(
    path.lower() if kwargs.get("dir_fd") is not None and isinstance(path, str) else path, flags, *args, **kwargs
)
"""
"""A `sitecustomize` for the daemon's process: its system calls on names in a directory behave like such a server."""


def test_labels_that_differ_in_case(daemon: Daemons, storage: Storage, export_directory: Path, tmp_path: Path) -> None:
    """Of two claims with the labels `shop` and `Shop`, the second gets nothing inside the first one's directory."""
    (tmp_path / "server").mkdir()
    (tmp_path / "server/sitecustomize.py").write_text(SERVER)
    search = os.pathsep.join([str(tmp_path / "server"), *filter(None, [os.environ.get("PYTHONPATH")])])
    flags = (f"--export=nas.example:/folding={export_directory}", "--no-leader-election")
    started = daemon(*flags, environment={"PYTHONPATH": search})
    outer = storage.storage_class(started.provisioner_name, {"pathPattern": "${.PVC.labels.team}"})
    inner = storage.storage_class(started.provisioner_name, {"pathPattern": "${.PVC.labels.team}/${.PVC.name}"})
    storage.claim(outer, "all", metadata={"labels": {"team": "shop"}})
    storage.bound("all")
    storage.claim(inner, "inner", metadata={"labels": {"team": "Shop"}})
    storage.claim(outer, "same", metadata={"labels": {"team": "SHOP"}})
    storage.claim(inner, "other", metadata={"labels": {"team": "Lab"}})
    storage.bound("other")
    for name in ("inner", "same"):
        refused = partial(storage.events, name, reason="ProvisioningFailed")
        event = storage.eventually(refused, f"the claim {name} is refused")[0]
        assert "overlaps with" in event["message"]
    assert disk(export_directory).directories == {"shop", "lab"}
    assert os.listdir(export_directory / "shop") == []

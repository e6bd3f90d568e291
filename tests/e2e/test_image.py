"""The provisioner's image: its content, its labels, and that it runs without anything else."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from pathlib import Path

import pytest
from testcontainers.core.docker_client import DockerClient

from provisioner import __version__
from tests.e2e.containers import UNPRIVILEGED, run

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 50_000_000
IMPORT_ALL = """
import importlib, pkgutil, provisioner
found = [each.name for each in pkgutil.walk_packages(provisioner.__path__, "provisioner.")]
for name in found:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(found))
"""
HASHES = """
import hashlib, json, pathlib, provisioner
root = pathlib.Path(provisioner.__file__).parent
print(json.dumps({str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
                  for file in root.rglob("*.py")}))
"""
TOOLS = """
import importlib.util, json, shutil
commands = "gcc cc c++ make ld as pip pip3 curl wget git".split()
modules = "pip ensurepip setuptools".split()
print(json.dumps([*filter(shutil.which, commands), *filter(importlib.util.find_spec, modules)]))
"""
UNSHIPPED = """
import importlib.util, json
print(json.dumps([*filter(importlib.util.find_spec, "demo testbed tests pictures deploy".split())]))
"""
PACKAGES = """
import importlib.metadata, json
print(json.dumps({each.name.lower().replace("_", "-"): each.version for each in importlib.metadata.distributions()}))
"""


def python(image: str, program: str) -> str:
    """Run a program with the image's Python as the chart runs it, and return its stdout."""
    ended = run(image, "-c", program, entrypoint="python3", **UNPRIVILEGED)
    assert ended.status == 0, ended.stderr
    return ended.stdout


def test_user_command_and_labels(provisioner_image: str) -> None:
    """The image runs the daemon as uid 65534, and its labels have title, version and revision."""
    config = DockerClient().client.images.get(provisioner_image).attrs["Config"]
    assert config["User"] == "65534:65534"
    assert (config["Entrypoint"], config["Cmd"]) == (["nfs-provisioner"], ["run"])
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    for name in ("title", "description", "source", "licenses"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_size(provisioner_image: str) -> None:
    """A pull is at most 50 MB, compressed as in registries."""
    compressor, size = zlib.compressobj(6, wbits=31), 0
    for piece in DockerClient().client.images.get(provisioner_image).save():
        size += len(compressor.compress(piece))
    size += len(compressor.flush())
    assert 20_000_000 < size <= LIMIT_BYTES


def test_no_tools_to_build_or_install(provisioner_image: str) -> None:
    """The image has no compiler, no pip or ensurepip, and no download tool."""
    assert json.loads(python(provisioner_image, TOOLS)) == []


def test_the_code_is_this_checkouts(provisioner_image: str) -> None:
    """The package in the image has exactly the files of this checkout."""
    root = ROOT / "provisioner"
    here = {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in root.rglob("*.py")}
    assert json.loads(python(provisioner_image, HASHES)) == here


def test_neither_demo_nor_testbed(provisioner_image: str) -> None:
    """The image contains the product alone, without the demonstration and the servers for tests."""
    assert json.loads(python(provisioner_image, UNSHIPPED)) == []


def test_the_packages_are_the_pinned_ones(provisioner_image: str) -> None:
    """The other packages are exactly those that requirements.txt pins."""
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s\\]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    installed = json.loads(python(provisioner_image, PACKAGES))
    assert installed.pop("nfs-provisioner") == __version__
    assert installed == pinned


def test_everything_can_be_imported(provisioner_image: str) -> None:
    """Every module imports with the image's Python, which differs from the tests' Python."""
    assert int(python(provisioner_image, IMPORT_ALL)) > 60


def test_help(provisioner_image: str) -> None:
    """With a read-only root, as uid 65534 and without capabilities, the image prints its help."""
    ended = run(provisioner_image, "--help", network_mode="none", **UNPRIVILEGED)
    assert ended.status == 0, ended.stderr
    assert "Usage: nfs-provisioner" in ended.stdout
    assert "check" in ended.stdout


def test_unusable_settings(provisioner_image: str) -> None:
    """With unusable settings the container exits with status 2 and one line."""
    ended = run(provisioner_image, network_mode="none", env={"NFS_SERVER": "nas"}, **UNPRIVILEGED)
    assert ended.status == 2
    assert ended.stderr.count("\n") == 1

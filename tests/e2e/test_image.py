"""The provisioner's image: what is in it, what is not, and that it runs with nothing but itself."""

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
    """What a program says that the image's own Python runs, as the chart would run it."""
    ended = run(image, "-c", program, entrypoint="python3", **UNPRIVILEGED)
    assert ended.status == 0, ended.stderr
    return ended.stdout


def test_what_the_image_says_of_itself(provisioner_image: str) -> None:
    """It is nobody's, starts the daemon, and says by its labels what it is and of which version."""
    config = DockerClient().client.images.get(provisioner_image).attrs["Config"]
    assert config["User"] == "65534:65534"
    assert (config["Entrypoint"], config["Cmd"]) == (["nfs-provisioner"], ["run"])
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    for name in ("title", "description", "source", "licenses"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_its_size(provisioner_image: str) -> None:
    """A node pulls at most 50 MB, compressed as registries keep it."""
    compressor, size = zlib.compressobj(6, wbits=31), 0
    for piece in DockerClient().client.images.get(provisioner_image).save():
        size += len(compressor.compress(piece))
    size += len(compressor.flush())
    assert 20_000_000 < size <= LIMIT_BYTES


def test_nothing_to_build_or_to_install_with(provisioner_image: str) -> None:
    """There is no compiler, no pip and no ensurepip in it, nor anything to download with."""
    assert json.loads(python(provisioner_image, TOOLS)) == []


def test_the_code_is_what_the_tests_ran(provisioner_image: str) -> None:
    """Every file of the package is the one of this checkout, and no other is there."""
    root = ROOT / "provisioner"
    here = {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in root.rglob("*.py")}
    assert json.loads(python(provisioner_image, HASHES)) == here


def test_neither_demo_nor_testbed(provisioner_image: str) -> None:
    """The image contains the product alone, without the demonstration and the servers for tests."""
    assert json.loads(python(provisioner_image, UNSHIPPED)) == []


def test_the_packages_are_those_pinned(provisioner_image: str) -> None:
    """What is installed beside us is what requirements.txt pins, and nothing else."""
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s\\]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    installed = json.loads(python(provisioner_image, PACKAGES))
    assert installed.pop("nfs-provisioner") == __version__
    assert installed == pinned


def test_everything_can_be_imported(provisioner_image: str) -> None:
    """Every module of ours imports with the image's Python, which is not the one that the tests run on."""
    assert int(python(provisioner_image, IMPORT_ALL)) > 60


def test_help(provisioner_image: str) -> None:
    """Read-only, as nobody and without capabilities, it says what it can do."""
    ended = run(provisioner_image, "--help", network_mode="none", **UNPRIVILEGED)
    assert ended.status == 0, ended.stderr
    assert "Usage: nfs-provisioner" in ended.stdout
    assert "check" in ended.stdout


def test_unusable_settings(provisioner_image: str) -> None:
    """Settings that cannot be used end with status 2 and one line, as everywhere."""
    ended = run(provisioner_image, network_mode="none", env={"NFS_SERVER": "nas"}, **UNPRIVILEGED)
    assert ended.status == 2
    assert ended.stderr.count("\n") == 1

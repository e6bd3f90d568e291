"""`make release`: one version in all parts, and the same bytes for the same commit."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from deploy import release
from deploy.release import ROOT, ReleaseRefused, version_of
from testbed.helm import Helm

pytestmark = pytest.mark.timeout(600)

VERSION = "7.8.9-rc.1"


@pytest.fixture(scope="module")
def released(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a release of the commit that is checked out; `helm` says that Helm is built."""
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("this machine cannot build a release: the tests do not run in a git checkout")
    directory = tmp_path_factory.mktemp("release")
    release.build(VERSION, directory)
    return directory


def test_the_same_bytes_twice(released: Path, tmp_path: Path) -> None:
    """A second build of the commit gives the same files."""
    files = release.build(VERSION, tmp_path)
    assert len(files) == 5
    assert {path.name for path in released.iterdir()} == {path.name for path in files}
    assert [path.name for path in files if path.read_bytes() != (released / path.name).read_bytes()] == []


def test_the_sums(released: Path) -> None:
    """SHA256SUMS has each file, in the form that `sha256sum --check` reads."""
    lines = [line.split("  ") for line in (released / "SHA256SUMS").read_text().splitlines()]
    sums = {name: found for found, name in lines}
    files = {path.name: path for path in released.iterdir() if path.name != "SHA256SUMS"}
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def test_one_version(released: Path, helm: Helm) -> None:
    """The wheel, the chart, the image that it installs, and the manifests have the version of the tag."""
    (wheel,) = released.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        # The spelling of Python: PEP 440.
        assert f'__version__ = "{VERSION}"' in packed.read("provisioner/__init__.py").decode()
    chart = released / f"nfs-provisioner-{VERSION}.tgz"
    shown = yaml.safe_load(helm.run("show", "chart", chart))
    assert shown["version"] == shown["appVersion"] == VERSION
    rendered = helm.run("template", "r", chart, "--set=nfs.server=nas")
    image = f"ghcr.io/nfs-provisioner/nfs-provisioner:{VERSION}"
    assert set(re.findall(r"image: \"?([^\s\"]+)", rendered)) == {image}
    assert image in shown["annotations"]["artifacthub.io/images"]
    with tarfile.open(released / f"nfs-provisioner-{VERSION}-manifests.tgz") as packed_manifests:
        names = packed_manifests.getnames()
        manifest = packed_manifests.extractfile("deploy/base/deployment.yaml")
        assert manifest is not None
        assert image in manifest.read().decode()
    assert {name.split("/")[1] for name in names} == {"base", "example", "monitoring"}


def test_the_chart_has_what_helm_needs(released: Path) -> None:
    """The packed chart has the files of the chart, and no value sets of the tests."""
    with tarfile.open(released / f"nfs-provisioner-{VERSION}.tgz") as packed:
        names = set(packed.getnames())
        assert {entry.uid for entry in packed.getmembers()} == {0}
    assert {f"nfs-provisioner/{name}" for name in ("Chart.yaml", "values.yaml", "README.md", "icon.svg")} <= names
    assert not [name for name in names if "/ci/" in name]


def test_the_list_of_parts(released: Path) -> None:
    """The list of parts names each package that the lock pins, with its version."""
    parts = json.loads((released / f"nfs-provisioner-{VERSION}.cdx.json").read_text())
    pinned = re.findall(r"^([a-z][\w.-]*)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert parts["bomFormat"] == "CycloneDX"
    assert [each["name"] for each in parts["components"]] == pinned
    assert all(each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}" for each in parts["components"])


@pytest.mark.parametrize(("tag", "version"), [("v1.2.3", "1.2.3"), ("v0.1.0-rc.1", "0.1.0-rc.1")])
def test_a_tag(tag: str, version: str) -> None:
    """A tag names the version."""
    assert version_of(tag) == version


@pytest.mark.parametrize("tag", ["1.2.3", "v1.2", "v1.2.3.4", "v1.2.3-dirty", "latest", ""])
def test_a_tag_that_names_no_version(tag: str) -> None:
    """Any other tag is refused, with an example of a right one."""
    with pytest.raises(ReleaseRefused, match=r"create one such as v1.2.3"):
        version_of(tag)

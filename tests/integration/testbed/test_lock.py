"""The lock files resolve to the versions that they name, with the oldest supported pip, despite newer releases."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LATER = "9999"
"""The version of a release of every package after the lock was written."""

OLDEST_PIPS = {
    "23.0.1": "236bcb61156d76c4b8a05821b988c7b8c35bf0da28a4b614e8d6ab5212c25c6f",
    "23.2.1": "7ccf472345f20d35bdc9d1841ff5f313260c2c33fe417f48c30ac46cccabf5be",
    "25.2": "6d67a2b4e7f14d8b31b8b52648866fa717f45a1eb70e83002f4331d07e953717",
}
"""Version and SHA-256 of the oldest pip for Debian 12 and Python 3.11, for 3.12 and 3.13, and for 3.14."""


def oldest_pip() -> str:
    """Return the oldest pip that comes with this Python."""
    return "23.0.1" if sys.version_info < (3, 12) else "23.2.1" if sys.version_info < (3, 14) else "25.2"


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_the_oldest_pip_installs_the_locked_versions(lock: str, tmp_path: Path) -> None:
    """From an index with a newer release of every package, the oldest pip selects the versions of the lock."""
    index = tmp_path / "index"
    index.mkdir()
    pinned = _pins((ROOT / lock).read_text())
    hashes = {requirement: _publish(requirement, index) for requirement in pinned.values()}
    (tmp_path / "lock.txt").write_text(
        "".join(f"{requirement} --hash=sha256:{digest}\n" for requirement, digest in hashes.items())
    )
    pip = _pip(tmp_path)

    done = subprocess.run(
        [
            *(sys.executable, pip / "pip", "--isolated", "install", "--dry-run", "--ignore-installed"),
            *("--no-index", "--find-links", index, "--require-hashes", "--requirement", tmp_path / "lock.txt"),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    names = re.search("Would install (.*)", done.stdout)
    assert names is not None
    expected = {f"{requirement.name}-{_version(requirement)}" for requirement in pinned.values()}
    assert {_same(each) for each in names[1].split()} == {_same(each) for each in expected}


def _pins(lock: str) -> dict[str, Requirement]:
    """Return the requirements of a lock that this Python needs, without their hashes."""
    heads = [line.rstrip(" \\") for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    requirements = [Requirement(head) for head in heads]
    return {each.name: each for each in requirements if each.marker is None or each.marker.evaluate()}


def _publish(requirement: Requirement, index: Path) -> str:
    """Add the locked and a later release to the index, and return the SHA-256 of the locked one.

    They have the name, extras and dependencies of the installed package, and no content.
    """
    locked = _version(requirement)
    installed = metadata.metadata(requirement.name)
    assert installed["Version"] == locked, f"{requirement.name}: run `make setup`, and then the tests"
    kept = [
        f"{key}: {value}"
        for key in ("Requires-Python", "Requires-Dist", "Provides-Extra")
        for value in installed.get_all(key, [])
    ]
    _wheel(requirement.name, LATER, kept, index)
    return hashlib.sha256(_wheel(requirement.name, locked, kept, index).read_bytes()).hexdigest()


def _wheel(name: str, version: str, fields: list[str], index: Path) -> Path:
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    files: Mapping[str, str] = {
        "METADATA": "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *fields, ""]),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = index / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(f"{stem}.dist-info/{file}", content)
    return path


def _pip(directory: Path) -> Path:
    """Download the oldest pip as a wheel that Python can run, verified by its hash."""
    version = oldest_pip()
    pin = directory / "pip.txt"
    pin.write_text(f"pip=={version} --hash=sha256:{OLDEST_PIPS[version]}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--dest", directory, "--requirement", pin], check=True, timeout=100)
    return directory / f"pip-{version}-py3-none-any.whl"


def _version(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    assert pin.operator == "=="
    return pin.version


def _same(name_and_version: str) -> str:
    return name_and_version.lower().replace("_", "-")

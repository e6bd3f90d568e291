"""Root file systems from Debian packages, and the commands that build them; everything needs root."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.processes import tail

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ("mmdebstrap", "debian-archive-keyring")

_BUILD_S = 1800.0
_NOTHING_TO_READ = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")]


class CommandFailed(Exception):
    """A command of a build failed; the text names it and ends with its last output."""


def command(*words: str | Path, timeout_s: float = _BUILD_S) -> None:
    """Run a command. Raises CommandFailed."""
    with tempfile.NamedTemporaryFile(prefix="nodes-", suffix=".log") as log:
        try:
            done = subprocess.run(
                ["nice", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=timeout_s
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise CommandFailed(f"{words[0]}: {exc}") from exc
        if done.returncode:
            raise CommandFailed(f"{words[0]} failed with status {done.returncode}:\n{tail(Path(log.name))}")


def bootstrap(
    target: Path, *, suite: str, packages: Sequence[str], variant: str = "minbase", options: Sequence[str] = ()
) -> None:
    """Create the root file system of a release with further packages; mmdebstrap(1) chooses a format by the target."""
    include = f"--include={','.join(packages)}"
    command("mmdebstrap", f"--variant={variant}", include, f"--keyring={KEYRING}", *_NOTHING_TO_READ, *options,
            suite, target, MIRROR)  # fmt: skip

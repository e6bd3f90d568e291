"""The modules that the daemon's command imports: each costs every replica memory and start time."""

from __future__ import annotations

import subprocess
import sys

from provisioner.cli.entry import COMMANDS

_IMPORT_RUN = """
import sys
import click
from provisioner.cli.entry import cli
cli.get_command(click.Context(cli), "run")
print("\\n".join(sys.modules))
"""
HEAVY = ("aiohttp", "colorama", "oauthlib", "pydantic", "pygments", "requests", "rich", "urllib3", "websocket")
"""What libraries import that the daemon uses in part, 30 MB together."""


def test_run_imports_what_it_uses() -> None:
    """`run` imports no library that it does not use, no other command, and no NFS client before an export needs it."""
    done = subprocess.run([sys.executable, "-c", _IMPORT_RUN], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    others = {f"provisioner.{package}.{name}" for package in ("cli", "commands") for name in COMMANDS if name != "run"}
    assert "provisioner.commands.run" in imported
    assert not [name for name in imported if name.partition(".")[0] in HEAVY]
    assert not others.intersection(imported)
    assert "provisioner.nfs" not in imported

"""`nfs-provisioner check`: is everything as it must be, and what is to be done about what is not?"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import click

from provisioner.cli import options
from provisioner.core.checks import Finding


@click.command()
@options.taking(options.output(), options.as_run())
def check(*, output: str, log_format: str | None, log_level: str, **given: Any) -> int:
    """Look at all that the daemon needs, and say what to do about each failure.

    Looks at the API server, our permissions, each StorageClass that names us, and each export: whether it can be
    reached and written by the way that the daemon takes. On each export a directory is made and taken away again;
    nothing else is changed. Takes the flags and the environment of `run`: put `check` in its place.

    Exit status 0 when all is well, 1 when something is not, 2 for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner check
    """
    settings = options.settings(**given)
    from provisioner.inspection import inspect

    findings = asyncio.run(inspect(settings))
    if output == "json":
        told = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": all(finding.ok for finding in findings), "findings": told}, indent=2))
    else:
        _show(findings)
    return 0 if all(finding.ok for finding in findings) else 1


def _show(findings: Sequence[Finding]) -> None:
    from provisioner.cli import tables

    rows: list[list[tables.Cell]] = [
        [
            ("✓", "green") if finding.ok else ("✗", "bold red"),
            f"{finding.kind} {finding.name}".rstrip(),
            finding.result,
            (finding.advice, "yellow"),
        ]
        for finding in findings
    ]
    tables.show(["", "WHAT", "RESULT", "WHAT TO DO"], rows)

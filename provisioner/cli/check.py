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
    """Look at the daemon and at all that it needs, and say what to do about each failure.

    Looks at the API server, the permissions, the Lease of the running daemon, each StorageClass of the provisioner, and
    each export: whether it can be reached and written by the way that the daemon takes. Warns of claims that are
    Pending, volumes that are not reclaimed, and volumes on exports that nothing names. On each export a directory is
    made and taken away again; nothing else is changed. Takes the flags and the environment of `run`: put `check` in its
    place.

    Exit status 0 when all is well, warnings or not, 1 when something is not, 2 for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner check
    """
    settings = options.settings(**given)
    from provisioner.commands.check import inspect

    report = asyncio.run(inspect(settings))
    findings = report.findings
    click.echo(report.scope, err=True)
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
            _mark(finding),
            f"{finding.kind} {finding.name}".rstrip(),
            finding.result,
            (finding.advice, "yellow"),
        ]
        for finding in findings
    ]
    tables.show(["", "WHAT", "RESULT", "WHAT TO DO"], rows)


def _mark(finding: Finding) -> tuple[str, str]:
    if not finding.ok:
        return "✗", "bold red"
    return ("!", "bold yellow") if finding.warning else ("✓", "green")

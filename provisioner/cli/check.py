"""`nfs-provisioner check`: checks the installation, and prints advice for each failure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import click

from provisioner.cli import options
from provisioner.cli.output import Cell, print_table
from provisioner.commands.check import run_checks
from provisioner.core.checks import Finding
from provisioner.settings import Settings


@click.command()
@options.taking(options.output())
@options.with_settings
async def check(settings: Settings, *, output: str) -> int:
    """Check the installation, and print advice for each failure.

    Checks the API server, the permissions, the Lease of the running daemon, each StorageClass of the provisioner, and
    each export: whether it can be reached and written in the way that the daemon uses. Warns of Pending claims, of
    volumes that are not reclaimed, and of volumes on exports that nothing names. Creates and removes a directory on
    each export; changes nothing else. Takes the flags and the environment of `run`: replace `run` with `check`.

    Exit status 0 if all checks pass, with or without warnings, 1 if a check fails, 2 for unusable settings.

    \b
    Example:
      kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner check
    """
    report = await run_checks(settings)
    findings = report.findings
    passed = all(finding.ok for finding in findings)
    click.echo(report.scope, err=True)
    if output == "json":
        rows = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": passed, "findings": rows}, indent=2))
    else:
        _print_rows(findings)
    return 0 if passed else 1


def _print_rows(findings: Sequence[Finding]) -> None:
    rows: list[list[Cell]] = [
        [
            _mark(finding),
            f"{finding.kind} {finding.name}".rstrip(),
            finding.result,
            (finding.advice, "yellow"),
        ]
        for finding in findings
    ]
    print_table(["", "WHAT", "RESULT", "WHAT TO DO"], rows)


def _mark(finding: Finding) -> tuple[str, str]:
    if not finding.ok:
        return "✗", "bold red"
    return ("!", "bold yellow") if finding.warning else ("✓", "green")

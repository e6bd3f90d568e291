"""`nfs-provisioner check`: checks the installation, and prints advice for each failure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import click

from provisioner.cli import lists, options
from provisioner.cli.output import Cell, Format, print_document, print_stanza, print_table
from provisioner.commands.check import run_checks
from provisioner.core.checks import Finding
from provisioner.settings import Settings


@click.command()
@options.taking(lists.form())
@options.with_settings
async def check(settings: Settings, *, output: Format, no_headers: bool) -> int:
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
    if output in ("json", "yaml"):
        rows = [dataclasses.asdict(finding) for finding in findings]
        print_document({"ok": passed, "findings": rows}, output)
    elif output == "name":
        for finding in findings:
            click.echo(f"{finding.kind} {finding.name}".rstrip())
    elif output == "wide":
        _print_table(findings, headers=not no_headers)
    else:
        for finding in findings:
            print_stanza(_stanza(finding))
    return 0 if passed else 1


def _stanza(finding: Finding) -> Iterator[Cell]:
    """Return one line for what is well, and what, why and what to do for the rest."""
    mark, style = _mark(finding)
    what = f"{mark} {finding.kind} {finding.name}".rstrip()
    if finding.ok and not finding.warning:
        yield f"{what}: {finding.result}", style
        return
    yield what, style
    yield f"why: {finding.result}"
    if finding.advice:
        yield f"fix: {finding.advice}", "yellow"


def _print_table(findings: Sequence[Finding], *, headers: bool) -> None:
    rows: list[list[Cell]] = [
        [
            _mark(finding),
            f"{finding.kind} {finding.name}".rstrip(),
            finding.result,
            (finding.advice, "yellow"),
        ]
        for finding in findings
    ]
    print_table(["", "WHAT", "RESULT", "WHAT TO DO"], rows, headers=headers)


def _mark(finding: Finding) -> tuple[str, str]:
    if not finding.ok:
        return "✗", "bold red"
    return ("!", "bold yellow") if finding.warning else ("✓", "green")

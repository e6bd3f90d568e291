"""`nfs-provisioner recover --ledger`: shows or rewrites the records that ledgers lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from provisioner.cli.output import Cell, print_scope, print_table
from provisioner.commands.recover_ledger import rewrite_ledgers
from provisioner.core.errors import InvalidSettings
from provisioner.core.ledgers import Sheet, Step, Write
from provisioner.core.scope import count
from provisioner.settings import Settings

_COLUMNS = ("CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "WHAT")


def refuse_others(given: Mapping[str, object]) -> None:
    """Raise InvalidSettings for a flag that does not go with `--ledger`."""
    wrong = [flag for flag, value in given.items() if value]
    if wrong:
        raise InvalidSettings(f"--ledger reads the volumes of this cluster and cannot be used with {', '.join(wrong)}")


async def recover(settings: Settings, *, dry_run: bool) -> int:
    """Show or rewrite what is missing or disagrees; return the exit status. Raises ClusterError, InvalidSettings."""
    outcome = await rewrite_ledgers(settings, dry_run=dry_run)
    sheets, failed = outcome.sheets, outcome.failed
    print_scope(outcome.scope)
    _print_rows(sheets, failed, dry_run=dry_run)
    _print_summary(sheets, failed, dry_run=dry_run)
    return 1 if failed or any(sheet.trouble for sheet in sheets) else outcome.scope.status


def _print_rows(sheets: Sequence[Sheet], failed: Mapping[str, str], *, dry_run: bool) -> None:
    rows: list[list[Cell]] = [
        [
            _claim(step),
            step.found.volume.name,
            sheet.place.name,
            "/".join(step.found.path),
            _what(step, failed, dry_run=dry_run),
        ]
        for sheet in sheets
        for step in sheet.steps
    ]
    if rows:
        print_table(_COLUMNS, rows)


def _claim(step: Step) -> str:
    reference = step.found.volume.spec.claim_ref
    return "-" if reference is None else f"{reference.namespace}/{reference.name}"


def _what(step: Step, failed: Mapping[str, str], *, dry_run: bool) -> tuple[str, str]:
    """Return the outcome of a step in words, and their colour."""
    if not isinstance(step.action, Write):
        return f"skipped: {step.action.why}", "yellow"
    why = failed.get(step.found.volume.name)
    if why:
        return f"failed: {why}", "bold red"
    return ("its record would be written", "") if dry_run else ("its record is written", "green")


def _print_summary(sheets: Sequence[Sheet], failed: Mapping[str, str], *, dry_run: bool) -> None:
    """Print the outcome for each export, and the next steps."""
    has_work = any(sheet.has_work for sheet in sheets)
    for sheet in sheets:
        click.echo(f"export {sheet.place.name}: {_of_export(sheet, failed, dry_run=dry_run)}", err=True)
    if failed:
        click.echo("run the command again to retry what failed: completed steps are not repeated", err=True)
    if dry_run and has_work:
        click.echo("nothing was changed; use --apply to write the records", err=True)
    if not dry_run and has_work:
        click.echo("if other clusters share an export whose ledger was lost, run this in each of them", err=True)


def _of_export(sheet: Sheet, failed: Mapping[str, str], *, dry_run: bool) -> str:
    written, would = len(sheet.records.keys() - failed.keys()), "would be " if dry_run else ""
    parts = [
        f"{count(sheet.agree, 'volume')} in agreement",
        f"{count(written, 'record')} {would}written",
    ]
    skipped = len(sheet.steps) - len(sheet.records)
    if skipped:
        parts.append(f"{count(skipped, 'volume')} skipped")
    if sheet.place.name in failed:
        parts.append(f"failed: {failed[sheet.place.name]}")
    elif sheet.trouble:
        parts.append(f"its id is {sheet.id or 'missing'} and is not changed: {sheet.trouble}")
    elif sheet.id != sheet.place.id:
        was = f"instead of {sheet.place.id}" if sheet.place.id else "which was missing"
        parts.append(f"its id {would or 'is '}{sheet.id}, as its volumes have it, {was}")
    return ", ".join(parts)

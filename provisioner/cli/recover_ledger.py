"""`nfs-provisioner recover --ledger`: what ledgers lack of the volumes on their exports, shown or written again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from provisioner.cli import listings
from provisioner.core.errors import InvalidSettings
from provisioner.core.ledgers import Sheet, Step, Write
from provisioner.core.scope import Scope, count
from provisioner.settings import Settings

_COLUMNS = ("CLAIM", "VOLUME", "EXPORT", "DIRECTORY", "WHAT")


def refuse_others(given: Mapping[str, object]) -> None:
    """Raise InvalidSettings for a flag that says what else is to be recovered."""
    wrong = [flag for flag, value in given.items() if value]
    if wrong:
        raise InvalidSettings(f"--ledger looks at the volumes of this cluster and does not go with {', '.join(wrong)}")


async def recover(settings: Settings, *, dry_run: bool) -> int:
    """Show what is missing or does not agree, or write it; the exit status. Raises ClusterError, InvalidSettings."""
    from provisioner.commands.recover_ledger import rewriting
    from provisioner.commands.session import surveyed

    async with surveyed(settings) as survey:
        rewriter = await rewriting(survey, settings.provisioner)
        sheets = await rewriter.look()
        scope = rewriter.but(survey.scope)
        failed = {} if dry_run else await rewriter.apply()
    listings.looked_at(scope)
    _show(sheets, failed, dry_run=dry_run)
    _tell(sheets, failed, scope, dry_run=dry_run)
    return 1 if failed or any(sheet.trouble for sheet in sheets) else scope.status


def _show(sheets: Sequence[Sheet], failed: Mapping[str, str], *, dry_run: bool) -> None:
    from provisioner.cli import tables

    rows: list[list[tables.Cell]] = [
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
        tables.show(_COLUMNS, rows)


def _claim(step: Step) -> str:
    reference = step.found.volume.spec.claim_ref
    return "-" if reference is None else f"{reference.namespace}/{reference.name}"


def _what(step: Step, failed: Mapping[str, str], *, dry_run: bool) -> tuple[str, str]:
    """In words, and their colour."""
    if not isinstance(step.action, Write):
        return f"skipped: {step.action.why}", "yellow"
    why = failed.get(step.found.volume.name)
    if why:
        return f"failed: {why}", "bold red"
    return ("its record would be written", "") if dry_run else ("its record is written", "green")


def _tell(sheets: Sequence[Sheet], failed: Mapping[str, str], scope: Scope, *, dry_run: bool) -> None:
    """What becomes of each export, and how it ended."""
    for sheet in sheets:
        click.echo(f"export {sheet.place.name}: {_of_export(sheet, failed, dry_run=dry_run)}", err=True)
    if failed:
        click.echo("run it again for what failed: what is done is not done twice", err=True)
    if dry_run and any(sheet.has_work for sheet in sheets):
        click.echo("nothing was changed; --apply writes it", err=True)
    if not dry_run and any(sheet.has_work for sheet in sheets):
        click.echo("where other clusters share an export whose ledger was lost, run this in each of them", err=True)


def _of_export(sheet: Sheet, failed: Mapping[str, str], *, dry_run: bool) -> str:
    written, would = len(sheet.records.keys() - failed.keys()), "would be " if dry_run else ""
    said = [
        f"{count(sheet.agree, 'volume')} in agreement",
        f"{count(written, 'record')} {would}written",
    ]
    skipped = len(sheet.steps) - len(sheet.records)
    if skipped:
        said.append(f"{count(skipped, 'volume')} skipped")
    if sheet.place.name in failed:
        said.append(f"failed: {failed[sheet.place.name]}")
    elif sheet.trouble:
        said.append(f"its id is {sheet.id or 'gone'} and stays so: {sheet.trouble}")
    elif sheet.id != sheet.place.id:
        was = f"instead of {sheet.place.id}" if sheet.place.id else "which was gone"
        said.append(f"its id {would or 'is '}{sheet.id}, as its volumes have it, {was}")
    return ", ".join(said)

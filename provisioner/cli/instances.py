"""`nfs-provisioner instances`: who is at work on each export in this cluster's name, and the decision between two."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from provisioner.cli import listings, options
from provisioner.core import instances as rules
from provisioner.core import times
from provisioner.core.instances import InstanceRow
from provisioner.core.scope import Scope, Unseen
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings

_COLUMNS = ("EXPORT", "INSTANCE", "TERM", "SIGNED", "STATE")


@click.command()
@click.option("--this-cluster-goes-on", "goes_on", is_flag=True,
              help="Where two clusters with one id were at work, and the provisioner of the other one is stopped: let"
              " that of this cluster delete and archive again.")  # fmt: skip
@options.taking(options.output(), options.as_run())
def instances(
    *, output: str, goes_on: bool, log_format: str | None, log_level: str, **given: Any
) -> int:  # fmt: skip
    """Show which instance of the provisioner works on each export in this cluster's name.

    A cluster that is restored from a backup of etcd beside its original has the original's id. Where both are at work
    on an export, nothing on it is deleted or archived, in neither cluster, until an admin has stopped the provisioner
    of one, and says with --this-cluster-goes-on in the other that it goes on. Where both still run, the stop comes back
    within seconds, before anything is deleted.

    Takes the flags and the environment of `run`: put `instances` in its place.

    The standard error says which exports were looked at. Exit status 0 when all were; 1 when an export or the API
    server does not answer; 2 when there is no export to look at, and for unusable settings.

    Example: kubectl exec -n nfs-provisioner deploy/nfs-provisioner -- nfs-provisioner instances
    """
    found, scope = asyncio.run(_look(options.settings(**given), goes_on=goes_on))
    status = listings.tell(found, scope, output=output, show=_show, none="no instance has been at work")
    if goes_on:
        decided = [each.export for each in found if each.state == "decided"]
        said = (
            f"on {', '.join(decided)}: this cluster goes on within a minute" if decided else "there is no stop to end"
        )
        click.echo(said, err=True)
    return status


async def _look(settings: Settings, *, goes_on: bool) -> tuple[list[InstanceRow], Scope]:
    """The signs, and what was looked at. Raises ClusterError, InvalidSettings."""
    from provisioner.commands.session import surveyed, unseen

    found: list[InstanceRow] = []
    missed: list[Unseen] = []
    async with surveyed(settings) as survey:
        name = rules.name(survey.cluster_id, settings.provisioner)
        for export in survey.exports:
            try:
                text = await export.instance(name)
                sign = rules.parse(text)
                if goes_on and sign.state == "twice":
                    sign = rules.decided(times.text(datetime.now(UTC)), socket.gethostname())
                    await export.sign_instance(name, str(sign), over=True)
            except ExportError as exc:
                missed.append(unseen(export, exc))
                continue
            if text:
                found.append(rules.listed(export.name, sign))
        return found, survey.scope.but(missed)


def _show(found: Sequence[InstanceRow]) -> None:
    from provisioner.cli import tables

    rows: list[list[tables.Cell]] = [
        [each.export, each.instance, str(each.term), each.signed or "-", (each.meaning, "red" if each.other else "")]
        for each in found
    ]
    tables.show(_COLUMNS, rows)

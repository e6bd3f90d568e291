"""The work of `instances`: reads the instances' signs on all exports, and decides between two instances."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from provisioner.commands.session import open_session, unseen
from provisioner.core import instances as rules
from provisioner.core import times
from provisioner.core.scope import Scope, Unseen
from provisioner.ports.tree import ExportError
from provisioner.settings import Settings


async def list_instances(settings: Settings, *, this_cluster_goes_on: bool) -> tuple[list[rules.InstanceRow], Scope]:
    """Return the sign on each export, and what was looked at. Raises ClusterError, InvalidSettings.

    With `this_cluster_goes_on`, a sign of two instances is replaced by the decision for this cluster.
    """
    found: list[rules.InstanceRow] = []
    missed: list[Unseen] = []
    async with open_session(settings) as session:
        name = rules.name(session.cluster_id, settings.provisioner)
        for export in session.exports:
            try:
                text = await export.heartbeats.instance(name)
                sign = rules.parse(text)
                if this_cluster_goes_on and sign.state == "twice":
                    sign = rules.decided(times.text(datetime.now(UTC)), socket.gethostname())
                    await export.heartbeats.sign_instance(name, str(sign), over=True)
            except ExportError as exc:
                missed.append(unseen(export, exc))
                continue
            if text:
                found.append(rules.listed(export.name, sign))
    return found, session.scope.but(missed)

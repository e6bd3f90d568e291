"""The work of `version`: reads the daemon's version from its Lease."""

from __future__ import annotations

from msgspec import Struct

from provisioner import __version__
from provisioner.commands.session import connect
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseRecord
from provisioner.ports.cluster import ClusterError
from provisioner.settings import Settings

CONTRACT = 1
"""The version of the JSON output: it changes when a field is removed or changes its meaning."""


class Versions(Struct, frozen=True):
    """The versions of this command and of the daemon."""

    client: str
    daemon: str | None = None
    """None if it is unknown, or was not asked for."""
    leader: str | None = None
    """The identity of the daemon that holds the Lease."""
    lease: str = ""
    """The Lease that was read, as `namespace/name`."""
    why_unknown: str = ""
    contract: int = CONTRACT


async def read_versions(settings: Settings) -> tuple[Versions, bool]:
    """Return the versions, and whether the API server was asked, if there is one."""
    lease = f"{settings.lease_namespace}/{settings.lease_name}"
    try:
        async with connect(settings) as cluster:
            record = await cluster.get_lease(settings.lease_namespace, settings.lease_name)
    except (InvalidSettings, ClusterError) as exc:
        return Versions(client=__version__, lease=lease, why_unknown=str(exc)), isinstance(exc, InvalidSettings)
    return _of_lease(record, lease), True


def _of_lease(record: LeaseRecord | None, lease: str) -> Versions:
    if record is None or not record.holder:
        why = f"no daemon holds the Lease {lease}: set --lease-namespace to the namespace of the daemon"
        return Versions(client=__version__, lease=lease, why_unknown=why)
    why = "" if record.program else "a daemon of an older version holds the Lease"
    return Versions(
        client=__version__, daemon=record.program or None, leader=record.holder, lease=lease, why_unknown=why
    )

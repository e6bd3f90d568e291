"""Volumes that are there again after their data have left their directory, as when etcd goes back to an older backup.

A claim was deleted after the backup, so its directory is in the trash or an archive. With the backup the claim and its
volume are back. Then the data are kept, and `recover --volume` brings them back into the directory.
"""

from __future__ import annotations

from provisioner.core import times
from provisioner.core.objects import Volume

_GOING = ("Released", "Failed")


def keeps(volume: Volume) -> bool:
    """Whether a volume keeps the data that were its own: unless it is being deleted, and no claim has it."""
    return volume.metadata.deletion_timestamp is None or volume.status.phase == "Bound"


def is_being_reclaimed(volume: Volume) -> bool:
    """Whether a volume looks as it does in each reclaim for a moment, after its data have moved."""
    return volume.status.phase in _GOING


def volume_of(entry: str) -> str:
    """The volume of an entry in the trash, which is called `<volume>.<time>`."""
    return entry.rsplit(".", 2)[0] if times.stamped(entry) is not None else entry


def kept_message(volume: str, where: str, export: str) -> str:
    """The words for a volume whose data are not destroyed, as it is there again."""
    return (
        f"its data were moved to {where} on export {export} when it was deleted, and the volume is there again, as"
        " after a restore of etcd from an older backup; the data are kept as long as the volume exists:"
        f" `nfs-provisioner recover --volume {volume}` shows how to bring them back, and with --apply does it"
    )

"""Errors of the ledger: why an export does not give a directory or an archive to a claim."""

from __future__ import annotations

from provisioner.core.discretion import Words
from provisioner.core.errors import ProvisionerError
from provisioner.core.parameters import Ownership as Ownership


class DiscreetError(ProvisionerError):
    """A refusal that names what other namespaces have: one text for the log, another one for the event on the claim."""

    def __init__(self, words: Words | str) -> None:
        """`words` is a plain text if nothing in it is of another namespace."""
        self._words = Words(words, words) if isinstance(words, str) else words
        super().__init__(self._words.whole)

    @property
    def told(self) -> str:
        """The text for the event; see `ProvisionerError`."""
        return self._words.told


class PathTaken(DiscreetError):
    """The directory, or one above or below it, belongs to another volume, archive or export; the text names it."""


class AlreadyThere(ProvisionerError):
    """The directory exists, and no record gives it to the claim."""


class ArchiveUnusable(DiscreetError):
    """An archive cannot be restored into the claim; the text says why."""


def unreadable_record(export_name: str, volume_name: str) -> PathTaken:
    """Return the error for a volume whose own record exists and cannot be read."""
    return PathTaken(
        f"the ledger of export {export_name} has an unreadable record of volume {volume_name}: check the export with"
        " `nfs-provisioner check`"
    )

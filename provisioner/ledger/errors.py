"""Errors of the ledger: why an export does not give a directory or an archive to a claim."""

from __future__ import annotations

from provisioner.core.discretion import Words
from provisioner.core.errors import ProvisionerError
from provisioner.core.parameters import Ownership as Ownership


class DiscreetError(ProvisionerError):
    """A refusal that names what other namespaces may have: the text is for the log, `told` for an event on a claim."""

    def __init__(self, words: Words | str) -> None:
        """`words` is one text where nothing in it is of another namespace."""
        self._words = Words(words, words) if isinstance(words, str) else words
        super().__init__(self._words.whole)

    @property
    def told(self) -> str:
        """See `ProvisionerError`."""
        return self._words.told


class PathTaken(DiscreetError):
    """A directory cannot be handed out because somebody else has it, or one above or below it; the text says who."""


class AlreadyThere(ProvisionerError):
    """The directory was there before, and the rule for existing directories does not let us hand it out."""


class ArchiveUnusable(DiscreetError):
    """An archive cannot be brought back for this claim; the text says why."""


def unreadable_record(export_name: str, volume_name: str) -> PathTaken:
    """Return the error for a volume whose own record is there and cannot be read."""
    return PathTaken(f"the ledger of export {export_name} has an unreadable record of volume {volume_name}")

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


class InProgress(Exception):
    """Provisioning still runs in the background: the volume is neither done nor failed (sig-storage-lib's outcome).

    No error for users: the claim is looked at again after `after_s` seconds, without an event or a count of failures.
    """

    def __init__(self, after_s: float) -> None:
        super().__init__(f"still running, to be looked at again in {after_s:g} s")
        self.after_s = after_s


class PathTaken(DiscreetError):
    """A directory cannot be handed out because somebody else has it, or one above or below it; the text says who."""


class AlreadyThere(ProvisionerError):
    """The directory was there before, and the rule for existing directories does not let us hand it out."""


class ArchiveUnusable(DiscreetError):
    """An archive cannot be brought back for this claim; the text says why."""

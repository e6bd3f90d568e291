"""Errors of the ledger: why a claim does not get a directory or an archive."""

from __future__ import annotations

from provisioner.core.discretion import Words
from provisioner.core.errors import ProvisionerError
from provisioner.core.reasons import Reason
from provisioner.ports.errors import ExportError


class DiscreetError(ProvisionerError):
    """A refusal that can name objects of other namespaces.

    The text is for the log, `event_text` is for an event.
    """

    def __init__(self, words: Words | str) -> None:
        """`words` is one text if it names nothing of another namespace."""
        self._words = Words(words, words) if isinstance(words, str) else words
        super().__init__(self._words.log)

    @property
    def event_text(self) -> str:
        """See `ProvisionerError`."""
        return self._words.event


class InProgress(Exception):
    """Provisioning still runs in the background: the volume is neither done nor failed.

    It is sig-storage-lib's ProvisioningInBackground. Users see no error: the claim is retried after `after_s` seconds,
    without an event and without counting a failure.
    """

    def __init__(self, after_s: float) -> None:
        super().__init__(f"still running, retried in {after_s:g} s")
        self.after_s = after_s


class PathTaken(DiscreetError):
    """The directory overlaps with that of another volume, archive or export.

    The text names that one.
    """

    @property
    def reason(self) -> str:
        """See `ProvisionerError`."""
        return Reason.OVERLAPPING_DIRECTORY


class UnreadableRecord(PathTaken):
    """The volume's own record exists and cannot be read, so that its directory is unknown."""

    @property
    def reason(self) -> str:
        """See `ProvisionerError`."""
        return Reason.UNREADABLE_RECORD


class AlreadyThere(ProvisionerError):
    """The directory already exists, and no record gives it to the claim."""

    @property
    def reason(self) -> str:
        """See `ProvisionerError`."""
        return Reason.DIRECTORY_EXISTS


class NoFreeGroup(ProvisionerError):
    """No group id of the class's range is free."""


class ArchiveUnusable(DiscreetError):
    """An archive cannot be restored into the claim; the text says why."""


class CopyFailed(ProvisionerError):
    """A copy of a directory has ended early; `refusal` says why."""

    def __init__(self, refusal: ExportError, where: str = "") -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.where = where
        """The exports that can have refused it, for messages."""

    @property
    def event_text(self) -> str:
        """See `ProvisionerError`."""
        return f"the copy has failed and begins again: {self.refusal.event_message(self.where)}"

    @property
    def reason(self) -> str:
        """See `ProvisionerError`."""
        return self.refusal.reason


def unreadable_record(export_name: str, volume_name: str) -> UnreadableRecord:
    """Return the error for a volume whose own record exists and cannot be read."""
    return UnreadableRecord(
        f"the ledger of export {export_name} has an unreadable record of volume {volume_name}: check the export with"
        " `nfs-provisioner check`"
    )

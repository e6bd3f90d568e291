"""Limits for directories that have no end or more entries than fit in memory, and their errors.

Both drivers of `Tree` use them: a broken or hostile server must not keep the daemon busy forever or fill its memory.
"""

from __future__ import annotations

from provisioner.ports.errors import Cause, ExportError

LISTING_LIMIT = 200_000
"""Directory entries held in memory at a time: of an export's root, its ledger and the parents of its volumes."""
TARGETS_LIMIT_BYTES = 64 << 20
"""Total size of the records in one directory of a ledger: about 160,000 records."""
TRASH_LIMIT = 20_000
"""Names in the trash that are held in memory at a time; the rest follow once these are removed."""


class Endless(ExportError):
    """The end of a directory was not reached."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(Cause.OTHER, what, hint=f"{what}: {hint}")


def repeats(directory: str) -> Endless:
    """The server repeats an earlier position in a directory, so that reading would never end."""
    what = f"the server repeats a directory position (readdir loop) in {directory}"
    return Endless(what, "update the server, or recreate that directory there and move its content over")


def too_many(directory: str, limit: int) -> Endless:
    """A directory has more entries than the limit, or has no end."""
    what = f"{directory} has more than {limit:,} entries, or has no end"
    return Endless(what, "move away entries that do not belong there, or check the server's file system")


def too_long(directory: str) -> Endless:
    """The records in a directory of a ledger exceed TARGETS_LIMIT_BYTES."""
    what = f"{directory} holds symbolic links of more than {TARGETS_LIMIT_BYTES >> 20} MiB in total"
    return Endless(what, "move away entries that do not belong there")


def vanishing(directory: str) -> Endless:
    """A directory keeps listing entries that do not exist when the removal reaches them."""
    return Endless(f"{directory} lists entries that do not exist", "check the server's file system")


def named(path: tuple[str, ...]) -> str:
    """Return the name of a directory for messages."""
    return f"directory {'/'.join(path)}" if path else "the export's root"

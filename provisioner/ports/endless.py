"""Directories that have no end, or more entries than we hold: the limits, and the words for both drivers."""

from __future__ import annotations

from provisioner.ports.tree import Cause, ExportError

LISTING_LIMIT = 100_000
"""Entries of directories that we hold at a time: of an export's root, of its ledger, of what volumes lie in."""
TARGETS_LIMIT_BYTES = 32 << 20
"""What the records of one directory of a ledger may take together: some 80,000 of them."""
TRASH_LIMIT = 20_000
"""Names in the trash that we hold at a time; the others come once these have gone."""


class Endless(ExportError):
    """A directory was not read to its end, since there is none within reach."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(Cause.OTHER, what, hint=f"{what}: {hint}")


def repeats(directory: str) -> Endless:
    """The server gives a position of a directory again that it gave before: reading on would never end."""
    what = f"the server repeats a directory position (readdir loop) in {directory}"
    return Endless(what, "update the server, or make that directory again there and move its content over")


def too_many(directory: str, limit: int) -> Endless:
    """A directory has more entries than we read, or never ends."""
    what = f"{directory} has more than {limit:,} entries, or has no end"
    return Endless(what, "move away what does not belong there, or check the file system of the server")


def too_long(directory: str) -> Endless:
    """The records of a ledger take more than we hold."""
    what = f"{directory} holds symbolic links of more than {TARGETS_LIMIT_BYTES >> 20} MiB in all"
    return Endless(what, "move away what does not belong there")


def vanishing(directory: str) -> Endless:
    """A directory shows entries without end, and none of them is there when it is to be removed."""
    return Endless(f"{directory} shows entries that are not there", "check the file system of the server")


def named(path: tuple[str, ...]) -> str:
    """A directory of an export as messages name it."""
    return f"directory {'/'.join(path)}" if path else "the export's root"

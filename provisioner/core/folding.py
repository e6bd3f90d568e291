"""Names as the most tolerant of file servers compare them: without case, in any normal form of Unicode.

ZFS, NetApp and servers on Windows and macOS can be so. Names that they treat as one are equal after folding. The
reverse need not be true, so equal folded names are only used as a reason to keep two directories apart.
"""

from __future__ import annotations

import unicodedata

from provisioner.core.locations import RelPath


def fold_path(path: RelPath) -> RelPath:
    """Return a path with each of its names folded."""
    return tuple(map(fold, path))


def fold(name: str) -> str:
    """Return a name without differences that some server ignores: case, composition, and invisible characters."""
    if name.isascii():
        return name.lower()
    # Upper case first: "ı" and "ſ" become the letters to which others fold.
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).upper().casefold())
    return "".join(each for each in plain if unicodedata.category(each) != "Cf")

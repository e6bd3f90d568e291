"""Names as the most tolerant of file servers compare them: without case, in any normal form of Unicode.

ZFS, NetApp and servers of Windows and macOS can be so. What they take for one name is equal after folding; the reverse
need not hold, so a comparison of folded names is only ever a reason to keep two apart.
"""

from __future__ import annotations

import unicodedata

from provisioner.core.locations import RelPath


def fold_path(path: RelPath) -> RelPath:
    """A path with each of its names folded."""
    return tuple(map(fold, path))


def fold(name: str) -> str:
    """A name without what some server does not tell apart: case, composition, and characters that nobody sees."""
    if name.isascii():
        return name.lower()
    # Upper case first: "ı" and "ſ" become letters that others fold to.
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).upper().casefold())
    return "".join(each for each in plain if unicodedata.category(each) != "Cf")

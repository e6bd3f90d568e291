"""Order of resourceVersions (Kubernetes, "API concepts", "Resource versions"; KEP-5504 promises that they compare).

The versions of one kind only grow. A lower version than before means that the cluster's state went back: etcd was
restored from a backup. What was seen before must then not be used any more.
"""

from __future__ import annotations


def is_below(version: str, other: str) -> bool:
    """Return True if a version is older than another one of the same kind.

    Return False if they are not numbers.
    """
    if not (_is_number(version) and _is_number(other)):
        return False
    one, two = version.lstrip("0"), other.lstrip("0")
    return (len(one), one) < (len(two), two)


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit()

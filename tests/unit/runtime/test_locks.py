"""Turns: one at a time for each volume."""

from __future__ import annotations

import pytest

from provisioner.runtime.locks import VolumeLocks


def test_a_volume_is_taken_once() -> None:
    """Who comes second is told to leave a volume alone, others are not concerned, and afterwards it is free again."""
    locks = VolumeLocks()
    with locks.try_acquire("pvc-1") as first, locks.try_acquire("pvc-1") as second, locks.try_acquire("pvc-2") as other:
        assert (first, second, other) == (True, False, True)
        with locks.try_acquire("pvc-1") as third:
            assert not third
    with locks.try_acquire("pvc-1") as later:
        assert later


def test_a_turn_ends_with_a_fault() -> None:
    """A fault in the work on a volume frees it."""
    locks = VolumeLocks()
    with pytest.raises(ValueError, match="oops"), locks.try_acquire("pvc-1"):
        raise ValueError("oops")
    with locks.try_acquire("pvc-1") as later:
        assert later

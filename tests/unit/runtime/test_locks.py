"""Turns: one at a time for each volume."""

from __future__ import annotations

import pytest

from provisioner.runtime.locks import Turns


def test_a_volume_is_taken_once() -> None:
    """Who comes second is told to leave a volume alone, others are not concerned, and afterwards it is free again."""
    turns = Turns()
    with turns.take("pvc-1") as first, turns.take("pvc-1") as second, turns.take("pvc-2") as other:
        assert (first, second, other) == (True, False, True)
        with turns.take("pvc-1") as third:
            assert not third
    with turns.take("pvc-1") as later:
        assert later


def test_a_turn_ends_with_a_fault() -> None:
    """A fault in the work on a volume frees it."""
    turns = Turns()
    with pytest.raises(ValueError, match="oops"), turns.take("pvc-1"):
        raise ValueError("oops")
    with turns.take("pvc-1") as later:
        assert later

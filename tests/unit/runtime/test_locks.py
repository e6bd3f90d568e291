"""runtime.locks: one worker per volume."""

from __future__ import annotations

import pytest

from provisioner.runtime.locks import VolumeLocks


def test_a_volume_is_locked_once() -> None:
    """The second try fails until the lock is released; other volumes are not affected."""
    locks = VolumeLocks()
    with locks.try_acquire("pvc-1") as first, locks.try_acquire("pvc-1") as second, locks.try_acquire("pvc-2") as other:
        assert (first, second, other) == (True, False, True)
        with locks.try_acquire("pvc-1") as third:
            assert not third
    with locks.try_acquire("pvc-1") as later:
        assert later


def test_an_error_releases_the_lock() -> None:
    """An error in the work on a volume releases its lock."""
    locks = VolumeLocks()
    with pytest.raises(ValueError, match="oops"), locks.try_acquire("pvc-1"):
        raise ValueError("oops")
    with locks.try_acquire("pvc-1") as later:
        assert later

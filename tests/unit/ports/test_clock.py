"""provisioner.ports.clock: the system's time."""

from __future__ import annotations

import time
from datetime import timedelta

from provisioner.ports.clock import SystemClock


def test_time_goes_on_while_the_machine_is_suspended() -> None:
    """Durations are those of CLOCK_BOOTTIME, and with them the end of a lease and of an archive's retention."""
    clock = SystemClock()
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before_s <= clock.monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(clock.steady() - clock.now()) < timedelta(seconds=5)

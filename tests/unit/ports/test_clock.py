"""ports.clock: the system clock."""

from __future__ import annotations

import time
from datetime import timedelta

from provisioner.ports.clock import SystemClock


def test_time_continues_while_the_machine_is_suspended() -> None:
    """Durations follow CLOCK_BOOTTIME, so leases and retention expire even if the machine is suspended."""
    clock = SystemClock()
    before_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before_s <= clock.monotonic() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(clock.steady() - clock.now()) < timedelta(seconds=5)

"""How our commands end: in order, also when they are told to, and with a line that says what failed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


def exit_status(work: Callable[[], int], *failures: type[Exception]) -> int:
    """Do a command's work; its exit status: that of `work`, 1 for a failure, which is told, 130 after Ctrl-C.

    SIGTERM is as Ctrl-C: an orderly end, from inside the `with` that started the servers.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except failures as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130

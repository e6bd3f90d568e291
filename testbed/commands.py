"""What commands of the testbed share: their exit statuses, and their progress on a terminal or in a log."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

from testbed.binaries import Progress

_QUIET_IN_LOGS_S = 30.0


def exit_status(work: Callable[[], int], *failures: type[Exception]) -> int:
    """Run `work` and return the exit status of the command.

    It is that of `work`, 1 for a failure, which this prints, or 130 after Ctrl-C.
    SIGTERM acts like Ctrl-C: it raises KeyboardInterrupt inside the `with` block that started the servers.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except failures as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def to_terminal() -> Progress:
    """Return a Progress that prints to stderr.

    On a terminal an update overwrites its line; a log gets fewer lines.
    """
    last, shown_s = "", 0.0

    def show(line: str) -> None:
        nonlocal last, shown_s
        label, now_s = line.partition(":")[0], time.monotonic()
        if last == label:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[1A\x1b[2K")
            elif now_s - shown_s < _QUIET_IN_LOGS_S:
                return
        last, shown_s = label, now_s
        print(line, file=sys.stderr, flush=True)

    return show

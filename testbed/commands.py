"""Exit statuses of commands: orderly ends, and a line that says what failed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


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

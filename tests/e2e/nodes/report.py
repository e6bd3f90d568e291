"""The report of the stories on real nodes: steps and their durations."""

from __future__ import annotations

import time


class Report:
    """Steps in their order."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._began = time.time()

    def note(self, what: str, seconds: float) -> None:
        """Add a step."""
        self._lines.append(f"{seconds:8.1f} s  {what}")

    def write(self) -> str:
        """Return the report as text: a heading and a line per step."""
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self._began))
        return "\n".join([f"real nodes, {day} UTC", *self._lines, ""])

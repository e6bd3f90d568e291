"""What the stories on real nodes did, and how long it took."""

from __future__ import annotations

import time


class Report:
    """Lines in the order in which things were done."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._began = time.time()

    def note(self, what: str, seconds: float) -> None:
        """Remember something that was done."""
        self._lines.append(f"{seconds:8.1f} s  {what}")

    def write(self) -> str:
        """The report as text: a heading, and a line for each note."""
        day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self._began))
        return "\n".join([f"real nodes, {day} UTC", *self._lines, ""])

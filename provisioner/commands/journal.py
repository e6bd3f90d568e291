"""The journal of `move`: a file that has each volume as it was and as it becomes, written before anything is deleted.

Between the deletion of a PersistentVolume and its creation, only this file knows all of it. Each change replaces the
file in one step, and is on disk before the next step begins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from provisioner.core.errors import InvalidSettings

State = Literal["begun", "done"]


@dataclass(slots=True)
class Journal:
    """The volumes of one move, by name."""

    path: str
    old: str
    new: str
    entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def unfinished(self) -> dict[str, Mapping[str, Any]]:
        """Return the entries of volumes whose move has begun and has not ended."""
        return {name: entry for name, entry in self.entries.items() if entry["state"] != "done"}

    def write(self, name: str, state: State, *, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Note the state of a volume. Raises InvalidSettings if the file cannot be written."""
        self.entries[name] = {"state": state, "was": was, "now": now}
        text = json.dumps({"from": self.old, "to": self.new, "volumes": self.entries}, indent=2)
        draft = f"{self.path}.draft"
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError as exc:
            raise InvalidSettings(
                f"cannot write the journal {self.path}: {exc.strerror}; name a file that can be written with --journal"
            ) from exc


def read_journal(path: str, old: str, new: str) -> Journal:
    """Return the journal of a move; an empty one if there is no file. Raises InvalidSettings."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        journal = Journal(path, found["from"], found["to"], dict(found["volumes"]))
    except FileNotFoundError:
        return Journal(path, old, new)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InvalidSettings(f"the journal {path} cannot be read ({exc}): name another file with --journal") from exc
    if (journal.old, journal.new) != (old, new):
        raise InvalidSettings(
            f"the journal {path} is of the move from {journal.old} to {journal.new}: finish that one first, or name"
            " another file with --journal"
        )
    return journal

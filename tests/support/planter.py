"""Plants and compares trees in a virtual machine, on the server's own side of its exports.

Another machine asks over NFS: a symlink in `asks` of an export has the question, one of that name in `answers` the
answer. It needs only Python's library.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

from tests.support.planting import differences, plant_many

ANSWER_BYTES = 1000
"""The longest symlink on XFS has 1023 bytes."""


def answer(root: Path, question: str) -> str:
    """Do what is asked: ["plant", name, entries] or ["compare", one, other, symlink_times, attributes]."""
    match json.loads(question):
        case ["plant", str(name), int(entries)]:
            plant_many(root / name, entries)
            return "planted"
        case ["compare", str(one), str(other), bool(symlink_times), bool(attributes)]:
            found = differences(root / one, root / other, symlink_times=symlink_times, attributes=attributes)
            return "\n".join(found)
    return f"what is {question}?"


def main(roots: list[Path]) -> None:
    """Answer all questions on these exports."""
    for root in roots:
        for name in ("asks", "answers"):
            (root / name).mkdir(parents=True, exist_ok=True)
    while True:
        for root in roots:
            for name in os.listdir(root / "asks"):
                target = root / "answers" / name
                if not target.is_symlink():
                    try:
                        text = answer(root, os.readlink(root / "asks" / name))
                    except Exception:  # noqa: BLE001  the other machine reports it
                        text = traceback.format_exc()
                    target.symlink_to(text[:ANSWER_BYTES])
        time.sleep(0.1)


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])

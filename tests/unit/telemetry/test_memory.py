"""telemetry.memory: the limit of the container, in either version of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.telemetry.memory import limit_bytes


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "134217728\n", 134217728),
        ("memory.max", "max\n", 0),
        ("memory/memory.limit_in_bytes", "134217728\n", 134217728),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 0),
        ("other", "", 0),
    ],
)
def test_the_limit(tmp_path: Path, file: str, text: str, limit: int) -> None:
    """The limit is read where the kernel shows it; no limit, and no cgroup, is 0."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert limit_bytes(tmp_path) == limit

"""Hundreds of exports in one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.connections import connections_to
from tests.support.direct_export import DirectExport

pytestmark = pytest.mark.timeout(240)

EXPORTS = 200
LIMIT_BYTES = 110 * 1000**2


def memory_bytes(pid: int | None, field: str = "VmRSS") -> int:
    """Return resident memory, or its peak with VmHWM (proc(5), status)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


@pytest.mark.thorough
def test_two_hundred_classes_on_two_hundred_exports(direct: DirectStorage, serve: MakeServer) -> None:
    """Volumes of 200 classes on 200 exports bind and are reclaimed, in under 110 MB and on one connection."""
    server = serve(*(f"/many/{number}" for number in range(EXPORTS)), versions=(4,))
    exports = [DirectExport(server, f"/many/{number}") for number in range(EXPORTS)]
    names = [f"data-{number}" for number in range(EXPORTS)]
    with ThreadPoolExecutor(8) as pool:
        classes = list(pool.map(direct.class_on, exports))
        list(pool.map(direct.claim, classes, names))
        volumes = list(pool.map(lambda name: direct.bound(name, timeout_s=120), names))
        assert connections_to(server.port, pid=direct.daemon.pid) == 1
        assert all(export.directory(volume).is_dir() for export, volume in zip(exports, volumes, strict=True))
        list(pool.map(direct.delete_claim, names))
        list(pool.map(lambda volume: direct.volume_gone(volume["metadata"]["name"], timeout_s=120), volumes))
    assert connections_to(server.port, pid=direct.daemon.pid) == 1
    peak_bytes = memory_bytes(direct.daemon.pid, "VmHWM")
    print(f"{EXPORTS} exports: {memory_bytes(direct.daemon.pid) / 1e6:.0f} MB resident, {peak_bytes / 1e6:.0f} MB peak")
    assert peak_bytes < LIMIT_BYTES

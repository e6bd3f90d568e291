"""A cluster of 1,000,000 claims on paper: computed from the measured bytes of one claim, and from the growth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from provisioner.ports.endless import LISTING_LIMIT, TARGETS_LIMIT_BYTES

CLAIMS = 1_000_000
BINDER_RATE = 30.0
"""Claims per second that kube-controller-manager binds at most (development/peers.md, "Published speeds")."""
_LIST_ITEMS = 500
"""Items of a page of a list."""
_BLOCK_BYTES = 4096
"""ext4 keeps a symlink of 60 bytes or more in a block of its own; XFS does so above some 300 to 450 bytes."""
_INODE_BYTES = 256
_ENTRY_BYTES = 56
"""A directory entry of ext4 with a name of 40 bytes: inode, lengths, name, aligned to 4."""

Growth = Mapping[str, Mapping[str, float]]
"""Figures by size."""


def needed_mb(figures: Mapping[str, float]) -> float:
    """Return the most memory that was resident in any phase of one size."""
    spike = figures["memory_held"] + max(0.0, figures.get("relist_spike", 0.0))
    return max(spike, *(figures[key] for key in ("memory_created", "memory_deleted", "memory_held_peak")))


def slope(growth: Growth, key: str) -> float:
    """Return how much a figure rises per volume, between the smallest and the largest size."""
    small, large = min(growth, key=int), max(growth, key=int)
    if small == large:
        return 0.0
    return (growth[large][key] - growth[small][key]) / (int(large) - int(small))


def million(sizes: Mapping[str, float], growth: Growth) -> Iterator[list[str]]:
    """Yield rows: what, for one claim, for all."""
    claim, volume = sizes["claim_bytes"], sizes["volume_bytes"]
    created, deleted = sizes["created_bytes"], sizes["deleted_bytes"]
    record, read_us = sizes["record_bytes"], sizes["read_record_us"]
    pages = 2 * CLAIMS / _LIST_ITEMS
    held = slope(growth, "memory_held") * 1e3
    started_us, waited_us = slope(growth, "cpu_held") * 1e3, slope(growth, "start_held") * 1e6
    most = min(LISTING_LIMIT, int(TARGETS_LIMIT_BYTES // record))
    yield ["list, in bytes", f"{claim:,.0f} + {volume:,.0f}", f"{_gb((claim + volume) * CLAIMS)} in {pages:,.0f} pages"]
    yield ["watch, created", f"{sizes['created_events']:.1f} events, {created:,.0f} bytes", _gb(created * CLAIMS)]
    yield ["watch, deleted", f"{sizes['deleted_events']:.1f} events, {deleted:,.0f} bytes", _gb(deleted * CLAIMS)]
    yield [
        f"watch, at {BINDER_RATE:.0f} claims per second, the binder's ceiling",
        f"{created * BINDER_RATE / 1e3:,.0f} kB/s",
        f"{CLAIMS / BINDER_RATE / 3600:.1f} hours to bind all",
    ]
    yield ["memory of the daemon", f"{held:.2f} kB", _gb(held * 1e3 * CLAIMS)]
    yield ["CPU of a start", f"{started_us:.0f} µs", f"{started_us * CLAIMS / 1e6:.0f} s"]
    yield ["start → PV of a new claim", f"{waited_us:.0f} µs", f"{waited_us * CLAIMS / 1e6:.0f} s"]
    yield ["records of a ledger", f"{record:.0f} bytes", f"{_gb(record * CLAIMS)}; one export takes {most:,}"]
    yield ["exports needed", "", f"{math.ceil(CLAIMS / most)}"]
    yield ["directory of the records", f"{_ENTRY_BYTES} bytes", _gb(_ENTRY_BYTES * CLAIMS)]
    yield [
        "inodes of volumes and records on ext4",
        f"2 inodes, 2 blocks: {2 * (_INODE_BYTES + _BLOCK_BYTES):,} bytes",
        f"{2 * CLAIMS:,} inodes, {_gb(2 * (_INODE_BYTES + _BLOCK_BYTES) * CLAIMS)}",
    ]
    yield ["list and read the records, local", f"{read_us:.1f} µs", f"{read_us * CLAIMS / 1e6:.0f} s"]
    yield ["Lease", "none", "30 renewals per minute, as with one claim"]


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

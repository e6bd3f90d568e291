"""Random histories of many volumes, tenants and mishaps: each seed always gives the same one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from tests.simulation.histories import KINDS, ONE_SEED, Crowded, report


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_crowd(kind: Crowded) -> None:
    """Whatever fails, and whatever tenants and admins do, no data is lost and nothing is left behind."""
    for seed in [int(ONE_SEED)] if ONE_SEED else kind.seeds:
        world = kind.play(seed)
        assert not world.judge.violations, report(
            world, f"SIMULATION_SEED={seed} pytest tests/simulation -k test_crowd"
        )


DIGEST = """
import hashlib
from tests.simulation.histories import Crowded
print(hashlib.sha256("\\n".join(Crowded(leaders=2, clusters=2).play(7).trace).encode()).hexdigest())
"""


def test_one_seed_is_one_history() -> None:
    """One seed gives the same calls in the same order, also in another process with another hash seed."""
    trace = Crowded(leaders=2, clusters=2).play(7).trace
    assert len(trace) > 100
    digest = hashlib.sha256("\n".join(trace).encode()).hexdigest()
    for hashes in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        answer = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert answer.stdout.strip() == digest

"""The quota agent on real kernels: XFS and ext4 with project quotas in a virtual machine, with knfsd and its client.

One boot runs the contract of `Disk` and all stories of `inside.py` on both file systems.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed import vm
from testbed.vm import KernelClient
from tests.contract.disk_cases import CASES
from tests.integration.quota.inside import CHECKS
from tests.support.product import product

TIMEOUT_S = 1500.0
TESTS = ("tests/contract/disk_cases.py", "tests/integration/quota/inside.py")
NAMES = [f"contract-{each.__name__}" for each in CASES] + [each.__name__ for each in CHECKS]

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(TIMEOUT_S + 60)]


@pytest.fixture(scope="module")
def output() -> str:
    """What the virtual machine printed."""
    if reason := vm.missing():
        pytest.skip(f"this machine cannot run a virtual machine: {reason}")
    script = Path(__file__).with_name("inside.sh").read_text()
    ran = KernelClient().run(script, timeout_s=TIMEOUT_S, files=product(*TESTS), python=True, disks=2)
    if "No module named" in ran.output and sys.version_info[:2] != (3, 11):
        pytest.skip("this machine cannot run the agent in the virtual machine, which has another version of Python")
    print(ran.output)
    return ran.output


@pytest.mark.parametrize("filesystem", ["xfs", "ext4"])
@pytest.mark.parametrize("name", NAMES)
def test_on_a_real_kernel(output: str, filesystem: str, name: str) -> None:
    """The story holds on the file system."""
    lines = output.splitlines()
    assert any(line.startswith(f"ok {filesystem} {name} ") for line in lines), output[-20_000:]

"""Sizes that a quota agent enforces, from the claim to the writer: knfsd with XFS, the agent, and the kernel's client.

Two virtual machines run the server and the client; the daemon and the control plane run beside them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from provisioner.core.locations import location
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, enforces
from provisioner.ledger import answers
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from testbed import vm
from testbed.api import Object
from testbed.vm import KernelClient, KernelServer, Ran
from tests.integration.daemon.direct.conftest import DirectStorage
from tests.support.product import product
from tests.support.sized import PATH, VERSIONS, class_fields, sized_server

pytestmark = pytest.mark.timeout(600)

SERVER = "127.0.0.1"
MI = 1 << 20
SIZE, RAISED = "16Mi", "32Mi"
CLIENT = """
set -e
modprobe -a nfs nfsv3 nfsv4
printf '%s' "$VOLUMES" | PYTHONPATH=/product /usr/bin/python3 -m tests.integration.daemon.direct.tenant
"""


@pytest.fixture(scope="module")
def server() -> Iterator[KernelServer]:
    """The kernel's NFS server with an XFS, and the quota agent beside it."""
    if reason := vm.missing():
        pytest.skip(f"this machine cannot run a virtual machine: {reason}")
    running = sized_server()
    try:
        running.start()
        yield running
    finally:
        running.stop()


def sized(direct: DirectStorage, server: KernelServer, version: str) -> Object:
    """Create a claim whose size is enforced; return its volume."""
    parameters, options = class_fields(server, SERVER, version)
    provisioner, name = direct.daemon.provisioner_name, claim_of(version)
    made = direct.storage_class(provisioner, parameters, mountOptions=options, allowVolumeExpansion=True)
    direct.claim(made, name, size=SIZE)
    return direct.bound(name, timeout_s=180.0)


def claim_of(version: str) -> str:
    """The name of the claim for a version."""
    return f"data-{version.replace('.', '-')}"


class Agent:
    """What the agent answers and tenants mark, as another NFS client reads it."""

    def __init__(self, server: KernelServer) -> None:
        self._server = server

    async def _tree(self) -> DirectTree:
        pool = ConnectionPool(Credentials(), timeout_s=30.0)
        return DirectTree(location(SERVER, PATH), pool, version="4.2", port=self._server.port)

    async def answer(self, volume: Object) -> Answer | None:
        """Return the answer for a volume."""
        tree = await self._tree()
        try:
            return await answers.Answers(tree).read(volume["metadata"]["name"])
        finally:
            await tree.close()

    async def is_full(self, volume: Object) -> bool:
        """Whether the tenant has marked a volume as full."""
        tree = await self._tree()
        directory = volume["spec"]["nfs"]["path"].removeprefix(f"{PATH}/")
        try:
            return "full" in [entry.name for entry in await tree.list((*directory.split("/"),))]
        finally:
            await tree.close()


def test_a_writer_is_stopped_and_a_raise_lets_it_go_on(direct: DirectStorage, server: KernelServer) -> None:
    """A claim's size is what its pods get: `df` shows it, writers stop at it, and what was written stays.

    A raise under a running writer is in force before the claim's status has it.
    """
    volumes = {version: sized(direct, server, version) for version in VERSIONS}
    agent = Agent(server)
    capacity = parse_bytes(SIZE)
    for volume in volumes.values():
        assert enforces(asyncio.run(agent.answer(volume)), capacity)
    ran: list[Ran] = []

    def tenant() -> None:
        lines = [
            f"{version} {','.join(volume['spec']['mountOptions'])} {volume['spec']['nfs']['path']} {capacity}\n"
            for version, volume in volumes.items()
        ]
        files = product("tests/integration/daemon/direct/tenant.py", "tests/support/tenants.py")
        ran.append(KernelClient().run(CLIENT, {"VOLUMES": "".join(lines)}, timeout_s=400.0, files=files, python=True))

    client = threading.Thread(target=tenant)
    client.start()
    try:
        for version, volume in volumes.items():
            direct.eventually(
                lambda: asyncio.run(agent.is_full(volume)) or not client.is_alive(),  # noqa: B023
                f"the volume of {version} is full",
                timeout_s=300.0,
            )
            raise_size(direct, agent, version, volume)
    finally:
        client.join()
    print(ran[0].output)
    check_output(ran[0].output, capacity)


def raise_size(direct: DirectStorage, agent: Agent, version: str, volume: Object) -> None:
    """Raise a claim, and check that its status does not say so before the limit is in force."""
    began, name = time.monotonic(), claim_of(version)
    direct.api.patch(f"{direct.claims}/{name}", {"spec": {"resources": {"requests": {"storage": RAISED}}}})

    def is_raised() -> bool:
        return bool(direct.get_claim(name)["status"]["capacity"]["storage"] == RAISED)

    direct.eventually(is_raised, f"the claim of {version} has {RAISED}", timeout_s=120.0)
    print(f"the raise of {version} took {time.monotonic() - began:.2f} s")
    assert enforces(asyncio.run(agent.answer(volume)), parse_bytes(RAISED))


def check_output(output: str, capacity: int) -> None:
    """Check what the tenants met: sizes within 1 % and 1 MiB."""
    found = [line.split() for line in output.splitlines()]
    for version in VERSIONS:
        assert ["size", version, str(capacity)] in found, output
        assert ["kept", version, "True"] in found, output
        assert ["raised", version, "True"] in found, output
        accepted = [int(words[3]) for words in found if words[:2] == ["accepted", version]]
        assert len(accepted) == 2, output
        assert all(abs(each - capacity) <= capacity // 100 + MI for each in accepted), output

"""Sites for the contract of the NFS client: the Linux kernel's server with XFS, in each version.

One virtual machine serves the whole session; each test exports its own directory there.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

import pytest

from provisioner.core.locations import location
from testbed import vm
from testbed.vm import KernelServer
from tests.contract.sites import Factory, Site
from tests.contract.trees_direct import reached

EXPORT = "/srv"
OPTIONS = "rw,async,no_root_squash,insecure"
"""No power loss happens here, and without waiting for the disk at each change the suite takes half the time."""

_SERVER = pytest.StashKey[KernelServer]()


def _server(request: pytest.FixtureRequest) -> KernelServer:
    """Return the session's server; skips the test if no server can run."""
    stash = request.config.stash
    if _SERVER not in stash:
        reason = vm.missing()
        if reason:
            pytest.skip(f"this machine cannot run the kernel's NFS server: {reason}")
        server = KernelServer({EXPORT: OPTIONS})
        request.config.add_cleanup(server.stop)
        server.start()
        stash[_SERVER] = server
    return stash[_SERVER]


def _kernel(version: str) -> Factory:
    @contextlib.asynccontextmanager
    async def kernel(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
        server = _server(request)
        where = location("127.0.0.1", f"{EXPORT}/{secrets.token_hex(6)}")
        async with reached(server, where, version, local=None) as site:
            yield site

    kernel.__name__ = f"kernel-{version}"
    return kernel


FACTORIES: list[Factory] = list(map(_kernel, ("3", "4.0", "4.1", "4.2")))

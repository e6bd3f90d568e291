"""Every driver of a port, for that port's contract suite."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator

import pytest

from tests.contract import sites, trees_direct, trees_kernel

LOCAL: list[sites.Factory] = [sites.mounted, *trees_direct.FACTORIES]

# A virtual machine boots in the time of the first test that needs it.
BOOTED = [pytest.param(factory, marks=pytest.mark.timeout(180)) for factory in trees_kernel.FACTORIES]


@pytest.fixture(params=[sites.memory, *LOCAL, *BOOTED], ids=lambda factory: factory.__name__)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[sites.Site]:
    """An empty export with a tree on it, one of each driver."""
    factory: sites.Factory = request.param
    async with factory(request) as made:
        yield made


@pytest.fixture(params=LOCAL, ids=lambda factory: factory.__name__)
async def shared_site(request: pytest.FixtureRequest) -> AsyncIterator[tuple[sites.Site, pathlib.Path]]:
    """A site whose export is also a directory of this machine, so that a tenant can work behind the tree's back."""
    factory: sites.Factory = request.param
    async with factory(request) as made:
        if made.local is None:
            pytest.skip("this machine cannot get behind the back of a tree that is on no local directory")
        yield made, made.local

"""The drivers of each port, for the contract suite of that port."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterable

import pytest
from _pytest.mark.structures import ParameterSet

from tests.contract import sites, trees_direct, trees_kernel

# Each change is tested with each kind of driver, each server and two versions of NFS; `make test-all` has all of them.
EACH_CHANGE = {"memory", "mounted", "direct-4.2", "kernel-3"}


def _params(factories: Iterable[sites.Factory], *marks: pytest.MarkDecorator) -> list[ParameterSet]:
    """Return the drivers as parameters of a fixture, by name."""
    return [
        pytest.param(
            each, id=each.__name__, marks=[*marks, *([] if each.__name__ in EACH_CHANGE else [pytest.mark.thorough])]
        )
        for each in factories
    ]


LOCAL = _params([sites.mounted, *trees_direct.FACTORIES])

# A virtual machine boots in the time of the first test that needs it.
BOOTED = _params(trees_kernel.FACTORIES, pytest.mark.timeout(180))


@pytest.fixture(params=[*_params([sites.memory]), *LOCAL, *BOOTED])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[sites.Site]:
    """An empty export with a tree, once per driver."""
    factory: sites.Factory = request.param
    async with factory(request) as made:
        yield made


@pytest.fixture(params=LOCAL)
async def shared_site(request: pytest.FixtureRequest) -> AsyncIterator[tuple[sites.Site, pathlib.Path]]:
    """A site whose export is also a local directory, in which a tenant can work at the same time."""
    factory: sites.Factory = request.param
    async with factory(request) as made:
        if made.local is None:
            pytest.skip("this machine cannot get behind the back of a tree that is on no local directory")
        yield made, made.local

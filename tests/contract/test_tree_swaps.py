"""Contract of the `Tree` port while a tenant swaps directories for symlinks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pathlib
import threading
from collections.abc import Awaitable, Iterator

import pytest

from provisioner.ports.tree import ExportError, Ownership, Tree
from tests.contract.sites import Seen, Site, look

pytestmark = pytest.mark.timeout(60)

SWAPS = 1000


class Swapper(threading.Thread):
    """A tenant who turns `parent` and `last` into a directory, nothing and a symlink to the outside, in a loop."""

    def __init__(self, root: pathlib.Path, outside: pathlib.Path) -> None:
        super().__init__()
        self.root = root
        self.outside = outside
        self.swaps = 0
        self.stop = threading.Event()

    def run(self) -> None:
        """Swap until stopped."""
        while not self.stop.is_set():
            for name in ("parent", "last"):
                self.swap(self.root / name)

    def swap(self, place: pathlib.Path) -> None:
        """Make one swap; a call of the tree can interfere with each step."""
        with contextlib.suppress(OSError):
            place.mkdir()
        with contextlib.suppress(OSError):
            place.rename(self.root / f"away-{place.name}-{self.swaps}")
        with contextlib.suppress(OSError):
            place.symlink_to(self.outside)
            self.swaps += 1
        with contextlib.suppress(OSError):
            place.unlink()


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory outside the export with data of another tenant."""
    place = tmp_path_factory.mktemp("outside")
    victim = place / "victim"
    victim.mkdir(mode=0o750)
    (victim / "file").write_text("kept")
    (place / "link").symlink_to("kept")
    return place


@pytest.fixture
def swapper(shared_site: tuple[Site, pathlib.Path], outside: pathlib.Path) -> Iterator[Swapper]:
    """A tenant who swaps entries in the site while the test runs."""
    thread = Swapper(shared_site[1], outside)
    thread.start()
    yield thread
    thread.stop.set()
    thread.join()


def attempts(tree: Tree, number: int) -> Iterator[Awaitable[object]]:
    """Return calls whose path goes through or ends at a swapped entry."""
    made, moved = f"made-{number}", f"moved-{number}"
    yield tree.make_directory(("parent", made), Ownership(mode=0o777))
    yield tree.make_directory(("parent", made, "deep", "er"), Ownership(mode=0o777))
    yield tree.rename(("parent", made), ("parent", moved))
    yield tree.rename(("parent", "victim"), (f"stolen-{number}",))
    yield tree.rename(("home",), ("parent", "home"))
    yield tree.rename(("parent", "home"), ("home",))
    yield tree.set_access(("parent", "victim"), Ownership(mode=0o777))
    yield tree.set_access(("last",), Ownership(mode=0o777))
    yield tree.make_symlink(("parent", f"link-{number}"), "target")
    yield tree.remove_symlink(("parent", "link"))
    yield tree.remove_tree(("parent", "victim"))
    yield tree.remove_tree(("parent", moved))
    yield tree.remove_tree(("last",))
    yield tree.remove_directory(("parent", made))


async def settle(call: Awaitable[object]) -> bool:
    """Return True if a call succeeded, and False for an ExportError."""
    try:
        await call
    except ExportError:
        return False
    return True


async def test_a_swap_leads_nowhere(
    shared_site: tuple[Site, pathlib.Path], swapper: Swapper, outside: pathlib.Path
) -> None:
    """Whatever a tenant swaps for a symlink, nothing outside the export is created, changed or removed."""
    before = seen_below(outside)
    tree = shared_site[0].tree
    await tree.make_directory(("home",), Ownership(mode=0o755))
    for number in itertools.count():
        await asyncio.gather(*map(settle, attempts(tree, number)))
        if swapper.swaps >= SWAPS:
            break
    assert seen_below(outside) == before


def seen_below(place: pathlib.Path) -> dict[str, Seen | None]:
    """Return all entries at and below a path, with modes, owners and contents."""
    return {str(found): look(found) for found in (place, *place.rglob("*"))}


def test_the_outside_can_be_seen(outside: pathlib.Path) -> None:
    """The comparison of the test above covers every entry of the outside."""
    assert set(seen_below(outside)) == {str(outside / name) for name in ("", "victim", "victim/file", "link")}

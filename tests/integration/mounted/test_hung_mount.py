"""The mounted driver on a mount that really hangs: a FUSE file system whose process is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from provisioner.mounted.tree import MountedTree
from provisioner.ports.tree import Cause, ExportError, Ownership, PathExists, PathMissing
from testbed import fuse
from testbed.fuse import HangingMount

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(bool(fuse.missing()), reason=f"this machine cannot mount FUSE: {fuse.missing()}"),
]

PLAIN = Ownership(mode=0o755)
TIMEOUT_S = 0.5
THREADS = 4


@pytest.fixture
def mount(tmp_path: pathlib.Path) -> Iterator[HangingMount]:
    """A mount that still works, with a directory `there` on it."""
    source, place = tmp_path / "source", tmp_path / "place"
    (source / "there").mkdir(parents=True)
    place.mkdir()
    with HangingMount(source, place) as made:
        yield made


@pytest.fixture
async def tree(mount: HangingMount) -> AsyncIterator[MountedTree]:
    """A tree on the mount, with a short time limit and few threads."""
    made = MountedTree(str(mount.place), require_mount=True, timeout_s=TIMEOUT_S, threads=THREADS)
    await retry(made.root_id)
    yield made
    await made.close()


async def retry(call: Callable[[], Awaitable[object]]) -> None:
    """Repeat a call until the mount answers; the test's time limit ends it."""
    while True:
        try:
            await call()
        except ExportError as exc:
            if exc.cause not in (Cause.BUSY, Cause.UNREACHABLE):
                raise
            await asyncio.sleep(0.01)
        else:
            return


async def cause_of_making(tree: MountedTree, *path: str) -> Cause:
    """Return why a directory cannot be created."""
    with pytest.raises(ExportError) as caught:
        await tree.make_directory(path, PLAIN)
    return caught.value.cause


async def test_calls_time_out_and_threads_stay_bounded(mount: HangingMount, tree: MountedTree) -> None:
    """On a hung mount every call fails with UNREACHABLE, and only the pool's threads hang."""
    before = threading.active_count()
    mount.hang()
    calls = [tree.is_empty(("there",)), *(tree.make_directory((str(number),), PLAIN) for number in range(40))]
    outcomes = await asyncio.gather(*calls, tree.space(), return_exceptions=True)
    causes = [outcome.cause for outcome in outcomes if isinstance(outcome, ExportError)]
    assert causes == [Cause.UNREACHABLE] * len(outcomes)
    assert threading.active_count() <= before + THREADS


async def test_a_path_is_busy_until_its_call_returns(mount: HangingMount, tree: MountedTree) -> None:
    """While a call hangs, another change of its path fails with BUSY; once the mount works, it succeeds."""
    mount.hang()
    assert await cause_of_making(tree, "a") is Cause.UNREACHABLE
    assert await cause_of_making(tree, "a") is Cause.BUSY
    with pytest.raises(ExportError) as caught:
        await tree.rename(("there",), ("a",))
    assert caught.value.cause is Cause.BUSY
    assert await cause_of_making(tree, "b") is Cause.UNREACHABLE
    mount.go_on()
    with contextlib.suppress(PathExists):
        await retry(lambda: tree.make_directory(("a",), PLAIN))
    assert (mount.source / "a").is_dir()


async def test_an_abandoned_call_changes_nothing_later(mount: HangingMount, tree: MountedTree) -> None:
    """A call that hung before its change and timed out changes nothing once the mount works."""
    mount.hang()  # The first system call, on the root, hangs.
    assert await cause_of_making(tree, "never") is Cause.UNREACHABLE
    mount.go_on()
    with pytest.raises(PathMissing):
        await retry(lambda: tree.remove_directory(("never",)))
    assert sorted(os.listdir(mount.source)) == ["there"]


async def test_a_purge_that_hangs_is_completed_later(mount: HangingMount, tree: MountedTree) -> None:
    """A removal on a hung mount fails with UNREACHABLE, and the next one on the working mount removes the rest."""
    await tree.make_directory(("gone", "a"), PLAIN)
    mount.hang()
    with pytest.raises(ExportError) as caught:
        await tree.remove_tree(("gone",))
    assert caught.value.cause is Cause.UNREACHABLE
    mount.go_on()
    await retry(lambda: tree.remove_tree(("gone",)))
    assert os.listdir(mount.source) == ["there"]


async def test_another_export_is_not_affected(mount: HangingMount, tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """While all threads of one export hang, another export's calls succeed."""
    other = MountedTree(str(tmp_path), require_mount=False, timeout_s=60.0)
    mount.hang()
    hung = [asyncio.create_task(tree.is_empty(("there",))) for _ in range(2 * THREADS)]
    for number in range(100):
        await other.make_directory(("other", str(number)), PLAIN)
    assert await other.remove_tree(("other",)) == 101
    outcomes = await asyncio.gather(*hung, return_exceptions=True)
    assert all(isinstance(outcome, ExportError) for outcome in outcomes)
    await other.close()


async def test_a_mount_that_works_again_is_used_again(mount: HangingMount, tree: MountedTree) -> None:
    """After a hang that took every slot, calls succeed again without a restart."""
    mount.hang()
    await asyncio.gather(*(tree.root_id() for _ in range(3 * THREADS)), return_exceptions=True)
    mount.go_on()
    await retry(tree.root_id)


async def test_closing_does_not_wait_for_the_mount(mount: HangingMount, tree: MountedTree) -> None:
    """Closing a tree returns while a call still hangs."""
    mount.hang()
    assert await cause_of_making(tree, "a") is Cause.UNREACHABLE
    hung = threading.active_count()
    await tree.close()
    assert threading.active_count() == hung


PROGRAM = """
import asyncio, sys
from provisioner.mounted.tree import MountedTree
from provisioner.ports.tree import ExportError

async def main():
    tree = MountedTree(sys.argv[1], require_mount=False, timeout_s=0.2)
    try:
        await tree.root_id()
    except ExportError as exc:
        print(exc.cause.name)
    await tree.close()

asyncio.run(main())
"""


def test_a_process_ends_although_its_calls_hang(mount: HangingMount) -> None:
    """A process whose threads hang in calls exits with status 0."""
    mount.hang()
    command = [sys.executable, "-c", PROGRAM, str(mount.place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "UNREACHABLE\n"


async def test_a_mount_that_dies_or_is_unmounted(mount: HangingMount, tree: MountedTree) -> None:
    """Calls fail with UNREACHABLE after the mount's process dies, and with NOT_MOUNTED after an unmount."""
    mount.kill()
    assert await cause_of_making(tree, "a") is Cause.UNREACHABLE
    mount.unmount()
    assert await cause_of_making(tree, "a") is Cause.NOT_MOUNTED

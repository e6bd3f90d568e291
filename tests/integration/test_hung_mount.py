"""The mounted driver on a mount that hangs for real: a FUSE file system whose process is stopped."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from provisioner.nfs.mounted import MountedTree
from provisioner.ports import Access, Cause, ExportError, PathExists

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this machine cannot mount FUSE: it has no /dev/fuse"),
]

PLAIN = Access(mode=0o755)
TIMEOUT_S = 0.5
THREADS = 4


class Mount:
    """A directory shown in another place by bindfs, which can be stopped and continued."""

    def __init__(self, source: pathlib.Path, place: pathlib.Path) -> None:
        self.source = source
        self.place = place
        # Nothing is cached, so that every system call asks the process.
        options = "attr_timeout=0,entry_timeout=0,negative_timeout=0"
        self.process = subprocess.Popen(["bindfs", "-f", "-o", options, str(source), str(place)])
        while not place.is_mount():
            assert self.process.poll() is None, "bindfs has ended"
            time.sleep(0.01)

    def hang(self) -> None:
        """From now on every call on the mount hangs."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # The kernel says that it has stopped.

    def go_on(self) -> None:
        """Answer again, to the calls that hang as well."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Unmount."""
        self.go_on()
        subprocess.run(["fusermount3", "-u", "-z", str(self.place)], check=True)
        self.process.wait()


@pytest.fixture
def mount(tmp_path: pathlib.Path) -> Iterator[Mount]:
    """A mount that works so far, with a directory `there` on it."""
    source, place = tmp_path / "source", tmp_path / "place"
    (source / "there").mkdir(parents=True)
    place.mkdir()
    made = Mount(source, place)
    yield made
    made.end()


@pytest.fixture
async def tree(mount: Mount) -> AsyncIterator[MountedTree]:
    """A tree on the mount, with a short time limit and few threads."""
    made = MountedTree(str(mount.place), require_mount=True, timeout_s=TIMEOUT_S, threads=THREADS)
    await at_last(made)
    yield made
    await made.close()


async def at_last(tree: MountedTree) -> None:
    """Wait until a call succeeds; the test's own limit ends it."""
    while True:
        try:
            await tree.root_id()
        except ExportError:
            continue
        return


async def cause_of_making(tree: MountedTree, *path: str) -> Cause:
    """Why a directory cannot be made."""
    with pytest.raises(ExportError) as caught:
        await tree.make_directory(path, PLAIN)
    return caught.value.cause


async def test_calls_are_let_go_and_threads_stay_bounded(mount: Mount, tree: MountedTree) -> None:
    """On a hung mount every call is UNREACHABLE, and however many there are, no more than the pool's threads hang."""
    before = threading.active_count()
    mount.hang()
    calls = [tree.is_empty(("there",)), *(tree.make_directory((str(number),), PLAIN) for number in range(40))]
    outcomes = await asyncio.gather(*calls, tree.space(), return_exceptions=True)
    causes = [outcome.cause for outcome in outcomes if isinstance(outcome, ExportError)]
    assert causes == [Cause.UNREACHABLE] * len(outcomes)
    assert threading.active_count() <= before + THREADS


async def test_a_path_is_busy_until_its_call_returns(mount: Mount, tree: MountedTree) -> None:
    """While a call hangs, another change of its path is BUSY; when the mount is back, the path can be changed again."""
    mount.hang()
    assert await cause_of_making(tree, "a") is Cause.UNREACHABLE
    assert await cause_of_making(tree, "a") is Cause.BUSY
    with pytest.raises(ExportError) as caught:
        await tree.rename(("there",), ("a",))
    assert caught.value.cause is Cause.BUSY
    assert await cause_of_making(tree, "b") is Cause.UNREACHABLE
    mount.go_on()
    while True:
        try:
            await tree.make_directory(("a",), PLAIN)
        except PathExists:
            break
        except ExportError as exc:
            assert exc.cause in (Cause.BUSY, Cause.UNREACHABLE)
        else:
            break
    assert (mount.source / "a").is_dir()


async def test_a_call_that_was_given_up_does_nothing_more(mount: Mount, tree: MountedTree) -> None:
    """A call that hung before its change and whose caller has gone makes no change when the mount is back."""
    mount.hang()  # The first system call, on the root, hangs already.
    assert await cause_of_making(tree, "never") is Cause.UNREACHABLE
    mount.go_on()
    while True:
        try:
            await tree.remove_directory(("never",))
        except ExportError as exc:
            if exc.cause not in (Cause.BUSY, Cause.UNREACHABLE):
                break
    assert sorted(os.listdir(mount.source)) == ["there"]


async def test_a_purge_that_hangs_goes_on_later(mount: Mount, tree: MountedTree) -> None:
    """A removal on a hung mount is UNREACHABLE, and when the mount is back the next one removes what is left."""
    await tree.make_directory(("gone", "a"), PLAIN)
    mount.hang()
    with pytest.raises(ExportError) as caught:
        await tree.remove_tree(("gone",))
    assert caught.value.cause is Cause.UNREACHABLE
    mount.go_on()
    while (mount.source / "gone").exists():
        try:
            await tree.remove_tree(("gone",))
        except ExportError as exc:
            assert exc.cause in (Cause.BUSY, Cause.UNREACHABLE)
    assert (mount.source / "there").is_dir()


async def test_another_export_is_not_affected(mount: Mount, tree: MountedTree, tmp_path: pathlib.Path) -> None:
    """With one export's threads all hung, another export's calls succeed."""
    other = MountedTree(str(tmp_path), require_mount=False, timeout_s=60.0)
    mount.hang()
    hung = [asyncio.create_task(tree.is_empty(("there",))) for _ in range(2 * THREADS)]
    for number in range(100):
        await other.make_directory(("other", str(number)), PLAIN)
    assert await other.remove_tree(("other",)) == 101
    outcomes = await asyncio.gather(*hung, return_exceptions=True)
    assert all(isinstance(outcome, ExportError) for outcome in outcomes)
    await other.close()


async def test_a_mount_that_works_again_is_used_again(mount: Mount, tree: MountedTree) -> None:
    """After a hang in which every slot was taken, calls succeed again without a restart."""
    mount.hang()
    await asyncio.gather(*(tree.root_id() for _ in range(3 * THREADS)), return_exceptions=True)
    mount.go_on()
    await at_last(tree)


async def test_closing_does_not_wait_for_the_mount(mount: Mount, tree: MountedTree) -> None:
    """With calls hung, close returns while they still hang, and takes no thread's return for it."""
    mount.hang()
    assert await cause_of_making(tree, "a") is Cause.UNREACHABLE
    hung = threading.active_count()
    await tree.close()
    assert threading.active_count() == hung


PROGRAM = """
import asyncio, sys
from provisioner.nfs.mounted import MountedTree
from provisioner.ports import ExportError

async def main():
    tree = MountedTree(sys.argv[1], require_mount=False, timeout_s=0.2)
    try:
        await tree.root_id()
    except ExportError as exc:
        print(exc.cause.name)
    await tree.close()

asyncio.run(main())
"""


def test_a_process_ends_although_its_calls_hang(mount: Mount) -> None:
    """A thread that hangs in a call does not keep the interpreter from ending, with status 0."""
    mount.hang()
    command = [sys.executable, "-c", PROGRAM, str(mount.place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "UNREACHABLE\n"


async def test_a_mount_that_is_gone_is_noticed(mount: Mount, tree: MountedTree) -> None:
    """After the mount's process has died calls are UNREACHABLE; after an unmount the directory is NOT_MOUNTED."""
    mount.process.kill()
    mount.process.wait()
    assert await cause_of_making(tree, "a") is Cause.UNREACHABLE
    subprocess.run(["fusermount3", "-u", "-z", str(mount.place)], check=True)
    assert await cause_of_making(tree, "a") is Cause.NOT_MOUNTED
    mount.__init__(mount.source, mount.place)

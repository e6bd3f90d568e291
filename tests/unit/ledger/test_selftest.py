"""ledger.selftest: what it proves, that it leaves nothing, and that every failure says what to do."""

from __future__ import annotations

import asyncio

import pytest

from provisioner.core.locations import RelPath
from provisioner.ledger.selftest import trial_run
from provisioner.ports.tree import Cause, ExportError
from tests.support.fakes.tree import Hook, MemoryTree, no_fault
from tests.support.ledger_faults import opened


def failing(name: str, cause: Cause) -> Hook:
    """A hook that refuses one call."""

    async def hook(call: str, path: RelPath) -> None:
        if call == name:
            raise ExportError(cause, "/".join(path))

    return hook


async def test_an_export_without_a_ledger() -> None:
    """An export without a ledger is proven to be writable, is reported to have none, and stays as it was."""
    tree = MemoryTree()
    done = await trial_run(tree)
    assert not done.ledger
    assert done.space == tree.statfs
    assert tree.root.entries == {}


async def test_an_export_with_a_ledger() -> None:
    """On an export with a ledger the trial happens in the ledger, which stays as it was."""
    tree = MemoryTree()
    await opened(tree)
    before = await tree.list((".provisioner",))
    assert (await trial_run(tree)).ledger
    assert await tree.list((".provisioner",)) == before
    assert list(tree.root.entries) == [".provisioner"]


async def test_a_server_that_does_not_set_modes() -> None:
    """A server that refuses chmod can be used, its answer is reported, and nothing is left."""
    tree = MemoryTree()
    tree.refuses_modes = "chmod: EPERM"
    assert (await trial_run(tree)).mode_refused == "chmod: EPERM"
    assert tree.root.entries == {}


@pytest.mark.parametrize("call", ["read_symlink", "space", "make_directory"])
async def test_a_refusal(call: str) -> None:
    """A refusal is raised with its cause, and nothing is left."""
    tree = MemoryTree(before=failing(call, Cause.DENIED))
    with pytest.raises(ExportError) as caught:
        await trial_run(tree)
    assert caught.value.cause is Cause.DENIED
    assert ".provisioner-check" not in caught.value.advice
    assert tree.root.entries == {}


async def test_an_answer_that_was_lost() -> None:
    """A directory that was created although the answer was lost is removed."""
    tree = MemoryTree(after=failing("make_directory", Cause.UNREACHABLE))
    with pytest.raises(ExportError):
        await trial_run(tree)
    assert tree.root.entries == {}


async def test_a_server_that_goes_away_in_between() -> None:
    """A directory that can have been left behind is named in the advice, with what to do."""
    for made in (True, False):
        tree = MemoryTree(before=failing("remove_directory", Cause.UNREACHABLE))
        tree.after = no_fault if made else failing("make_directory", Cause.UNREACHABLE)
        with pytest.raises(ExportError) as caught:
            await trial_run(tree)
        (left,) = tree.root.entries
        assert f"remove the empty directory {left}" in caught.value.advice


async def test_an_interrupted_rehearsal() -> None:
    """If it is interrupted while it creates the directory, nothing is left."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def wait(call: str, _path: RelPath) -> None:
        if call == "make_directory":
            reached.set()
            await never.wait()

    tree = MemoryTree(after=wait)
    task = asyncio.create_task(trial_run(tree))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tree.root.entries == {}

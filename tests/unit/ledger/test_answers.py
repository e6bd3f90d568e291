"""ledger.answers: what the provisioner reads of a quota agent."""

from __future__ import annotations

import pytest

from provisioner.core.locations import Location, RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quota import ANSWERS, HEARTBEAT, Answer, Heartbeat, answer_path, encode
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError, Ownership
from tests.support.fakes.tree import MemoryTree

ANSWER = Answer(project=100000, limit_bytes=1 << 30, whole=True, at="2026-01-02T03:04:05Z")
BEAT = Heartbeat(at="2026-01-02T03:04:05Z", version="2.0", filesystem="xfs", enforces=True)

FORGED = ["", "nonsense", '{"v":2}', '{"v":1,"limit":"all"}', '{"v":1,"x":' + "[" * 1000, "\udcff"]


async def with_agent() -> tuple[MemoryTree, Export]:
    tree = MemoryTree()
    export = Export(Location("nas", "/exports"), tree)
    await export.open()
    await tree.make_directory(ANSWERS, Ownership(mode=0o700))
    return tree, export


async def test_no_agent() -> None:
    """An export on which no agent has ever worked has no answers and no heartbeat."""
    export = Export(Location("nas", "/exports"), MemoryTree())
    await export.open()
    assert await export.answers.read("pvc-1") is None
    assert await export.answers.read_all() == {}
    assert await export.answers.heartbeat() is None


async def test_answers() -> None:
    """The provisioner reads the answer of one volume, those of all, and the heartbeat."""
    tree, export = await with_agent()
    tree.plant_symlink(answer_path("pvc-1"), encode(ANSWER))
    tree.plant_symlink(HEARTBEAT, encode(BEAT))
    assert await export.answers.read("pvc-1") == ANSWER
    assert await export.answers.read("pvc-2") is None
    assert await export.answers.read_all() == {"pvc-1": ANSWER}
    assert await export.answers.heartbeat() == BEAT


async def test_a_newer_agent() -> None:
    """Fields of a newer agent's answers are ignored."""
    tree, export = await with_agent()
    tree.plant_symlink(answer_path("pvc-1"), '{"v":1,"id":7,"new":{"x":[1]}}')
    assert await export.answers.read("pvc-1") == Answer(project=7)


@pytest.mark.parametrize("text", FORGED)
async def test_a_forged_answer(text: str) -> None:
    """An answer or a heartbeat that cannot be read counts as none, and hides no other one."""
    tree, export = await with_agent()
    tree.plant_symlink(answer_path("pvc-1"), text)
    tree.plant_symlink(answer_path("pvc-2"), encode(ANSWER))
    tree.plant_symlink(HEARTBEAT, text)
    assert await export.answers.read("pvc-1") is None
    assert await export.answers.read_all() == {"pvc-2": ANSWER}
    assert await export.answers.heartbeat() is None


async def test_other_entries() -> None:
    """A file or a directory in the place of an answer counts as no answer."""
    tree, export = await with_agent()
    tree.write_file(answer_path("pvc-1"))
    await tree.make_directory(answer_path("pvc-2"), Ownership())
    await tree.make_directory(HEARTBEAT, Ownership())
    assert await export.answers.read("pvc-1") is None
    assert await export.answers.read("pvc-2") is None
    assert await export.answers.read_all() == {}
    assert await export.answers.heartbeat() is None


async def test_a_file_instead_of_all_answers() -> None:
    """A file in the place of the directory of answers counts as no answers."""
    tree = MemoryTree()
    export = Export(Location("nas", "/exports"), tree)
    await export.open()
    tree.write_file(ANSWERS)
    assert await export.answers.read("pvc-1") is None
    assert await export.answers.read_all() == {}


async def test_an_export_that_fails() -> None:
    """An export that is not responding is not mistaken for one without an agent."""

    async def fault(call: str, path: RelPath) -> None:
        if path[:1] == (LEDGER,):
            raise ExportError(Cause.UNREACHABLE)

    tree, export = await with_agent()
    tree.before = fault
    for call in (export.answers.read("pvc-1"), export.answers.read_all(), export.answers.heartbeat()):
        with pytest.raises(ExportError):
            await call

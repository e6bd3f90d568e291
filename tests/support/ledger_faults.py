"""Faults between an export and its tree: a crash or a lost answer at any call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from provisioner.core.locations import Location, RelPath
from provisioner.core.records import Record
from provisioner.ledger.errors import AlreadyThere, PathTaken
from provisioner.ledger.export import Export
from provisioner.ports.tree import Cause, ExportError
from tests.support import samples
from tests.support.fakes.tree import Directory, MemoryTree, no_fault

NAS = Location("nas", "/exports")


class Crash(Exception):
    """The process dies here: nothing that it does later reaches the tree."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong at one call: `effect` says whether it took effect, `survives` whether the process lives on."""

    effect: bool
    survives: bool

    def __str__(self) -> str:
        return f"{'lost answer' if self.survives else 'crash'} {'after' if self.effect else 'before'}"

    async def at(self, number: int, tree: MemoryTree, operation: Awaitable[object]) -> bool:
        """Run the operation with the fault at its n-th call; return False if it has fewer calls."""
        calls = 0

        async def hook(call: str, path: RelPath) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                raise ExportError(Cause.UNREACHABLE, f"{call} {path}") if self.survives else Crash
            if calls > number and not self.survives:
                raise Crash

        if self.effect:
            tree.after = hook
        else:
            tree.before = hook
        try:
            await operation
        except (Crash, ExportError, AlreadyThere, PathTaken):
            pass
        finally:
            tree.before = tree.after = no_fault
        return calls >= number


FAULTS = [Fault(effect=effect, survives=survives) for effect in (False, True) for survives in (False, True)]

Operation = Callable[[Export], Awaitable[object]]


async def opened(tree: MemoryTree) -> Export:
    export = Export(NAS, tree)
    await export.open()
    return export


async def interrupted(
    fault: Fault, prepare: Callable[[], Awaitable[MemoryTree]], operation: Operation
) -> list[tuple[MemoryTree, Export]]:
    """Run an operation once per call with a fault there; return each tree and the export that continues with it.

    After a crash that is a new process, which reads the ledger again.
    """
    met: list[tuple[MemoryTree, Export]] = []
    for number in range(1, 1000):
        tree = await prepare()
        export = await opened(tree)
        if not await fault.at(number, tree, operation(export)):
            return met
        met.append((tree, export if fault.survives else await opened(tree)))
    raise AssertionError("the operation does not end")


def record(directory: str, volume: str) -> Record:
    return samples.record(directory, claim_uid=volume.removeprefix("pvc-"))


TENANT = samples.TENANT
"""The namespace of all records."""


def ledger(tree: MemoryTree, kind: str) -> list[str]:
    """Return the names in one of the ledger's directories."""
    directory = tree.look((".provisioner", kind))
    assert isinstance(directory, Directory)
    return sorted(directory.entries)


def directories(tree: MemoryTree) -> set[str]:
    """Return the paths of all directories on the tree, without the ledger's."""
    return {"/".join(path) for path in _below((), tree.root) if path[0] != ".provisioner"}


def _below(path: RelPath, directory: Directory) -> Iterator[RelPath]:
    for name, node in directory.entries.items():
        if isinstance(node, Directory):
            yield (*path, name)
            yield from _below((*path, name), node)

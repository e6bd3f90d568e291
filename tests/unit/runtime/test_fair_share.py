"""runtime.fair_share: shares of the workers, and keys that are parked."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.runtime.fair_share import FairShare, NoSlot

EXPORTS = ["a", "b", "c", "d"]


class Workers:
    """A number of workers, whose keys are busy until they are ended; each key is `EXPORT NUMBER`."""

    def __init__(self, count: int) -> None:
        self.resumed: list[str] = []
        self.share = FairShare(count, self.resumed.append)
        self.busy: dict[str, ExitStack] = {}
        self.parked: set[str] = set()

    def start(self, export: str, key: str) -> bool:
        """Let a worker take the key; return whether it got a slot."""
        stack = ExitStack()
        try:
            stack.enter_context(self.share.slot(export, key))
        except NoSlot:
            self.parked.add(key)
            self.share.wake()
            return False
        self.busy[key] = stack
        return True

    def end(self, key: str) -> None:
        """Let the key's worker finish."""
        self.busy.pop(key).close()
        self.share.wake()


def fill(workers: Workers, export: str, keys: int) -> int:
    """Start keys on an export that hangs; return how many got a slot."""
    return sum(workers.start(export, f"{export} {number}") for number in range(keys))


def test_shares() -> None:
    """The first export to hang gets two thirds of the workers, the second two thirds of the rest, and so on."""
    workers = Workers(64)
    assert [fill(workers, export, 100) for export in EXPORTS] == [43, 14, 5, 2]


def test_a_single_worker_works() -> None:
    """A single worker gets a slot."""
    workers = Workers(1)
    assert workers.start(EXPORTS[0], "a")


def test_parked_keys_come_up_again() -> None:
    """When a slot becomes free, the first parked key is resumed."""
    workers = Workers(1)
    assert fill(workers, EXPORTS[0], 3) == 1
    assert workers.resumed == []
    workers.end("a 0")
    assert workers.resumed == ["a 1"]


def test_a_slot_is_given_back() -> None:
    """A key that fails gives its slot back."""
    share = FairShare(2, lambda _key: None)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), share.slot(EXPORTS[0], "a"):
            raise ZeroDivisionError


def test_an_export_behind_a_hung_one() -> None:
    """A key whose export uses no worker is not held back by many keys that wait for another export."""
    workers = Workers(8)
    for export, keys in zip(EXPORTS, (6, 3, 2, 2), strict=True):
        fill(workers, export, keys)
    assert not workers.start("e", "e 0")
    workers.end("a 0")
    assert "e 0" in workers.resumed


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 10)), max_size=80)


@given(st.integers(1, 8), STEPS)
def test_no_key_is_forgotten(count: int, steps: list[tuple[bool, int, int]]) -> None:
    """In any order of work all keys get through, and never more run in parallel than there are workers."""
    workers, number = Workers(count), 0
    todo: list[str] = []

    def take_up() -> None:
        while (todo or workers.resumed) and len(workers.busy) < count:
            key = workers.resumed.pop(0) if workers.resumed else todo.pop(0)
            workers.parked.discard(key)
            workers.start(key.split()[0], key)

    for begin, which, some in steps:
        if begin:
            number += 1
            todo.append(f"{EXPORTS[which]} {number}")
        elif workers.busy:
            workers.end(sorted(workers.busy)[some % len(workers.busy)])
        take_up()
        assert len(workers.busy) <= count
    while workers.busy:
        workers.end(min(workers.busy))
        take_up()
    assert (todo, workers.resumed, workers.parked) == ([], [], set())

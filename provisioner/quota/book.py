"""The records of one export in the agent's memory: wishes, answers, archives, and who holds which project id. Pure.

The agent reads all names in each pass, and decodes only texts that have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

from msgspec import structs

from provisioner.core.errors import InvalidRecord
from provisioner.core.locations import RelPath
from provisioner.core.paths import PathIndex
from provisioner.core.quota import Answer, decode_answer
from provisioner.core.records import decode_archive
from provisioner.ports.quota import Label
from provisioner.quota import wishes
from provisioner.quota.ids import LARGEST_ID, IdRange, Owner
from provisioner.quota.wishes import Wish


class Holders:
    """Who holds which project id of one file system: all exports on it share their projects."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[Book, str]] = {}
        self._more: dict[int, tuple[tuple[Book, str], ...]] = {}
        """The others of an id that several have, which is rare."""

    def add(self, project: int, book: Book, name: str) -> None:
        """Note that a volume's answer has an id."""
        if project and self._first.setdefault(project, (book, name)) != (book, name):
            self._more[project] = (*self._more.get(project, ()), (book, name))

    def remove(self, project: int, book: Book, name: str) -> None:
        """Note that it no longer has it."""
        left = [each for each in self.of(project) if each != (book, name)]
        self._first.pop(project, None)
        self._more.pop(project, None)
        for each in left:
            self.add(project, *each)

    def of(self, project: int) -> tuple[tuple[Book, str], ...]:
        """Return the volumes whose answers have an id."""
        first = self._first.get(project)
        return () if first is None else (first, *self._more.get(project, ()))

    def __contains__(self, project: object) -> bool:
        """Return True if an answer has this id."""
        return project in self._first


class Book:
    """The records of one export."""

    def __init__(
        self,
        root: str,
        holders: Holders,
        ids: IdRange,
        *,
        all_volumes: bool,
        label: Callable[[RelPath], Label | None],
    ) -> None:
        """`holders` is shared by all exports on one file system; `label` looks at a directory."""
        self.root = root
        self._label = label
        self._holders = holders
        self._ids = ids
        self._all = all_volumes
        self.wishes: dict[str, Wish] = {}
        self.answers: dict[str, Answer] = {}
        self.index = PathIndex()
        self._texts: dict[str, int] = {}
        """Digests of the texts of records and their states."""
        self._answer_texts: dict[str, int] = {}
        self._archives: dict[str, str] = {}
        """The archive that each volume became."""
        self._trash: frozenset[str] = frozenset()

    # ------------------------------------------------------------------------------------------- what was read

    def enter(self, name: str, text: str, *, pending: bool) -> None:
        """Enter the text of a volume's record; an empty one is no record."""
        known = hash((text, pending))
        if self._texts.get(name) == known:
            return
        self.forget_record(name)
        if text:
            wish = wishes.read(text, pending=pending, all_volumes=self._all)
            self.wishes[name], self._texts[name] = wish, known
            if wish.path:
                self.index.add(wish.path, name)

    def forget_record(self, name: str) -> None:
        """Note that a volume has no record."""
        wish = self.wishes.pop(name, None)
        self._texts.pop(name, None)
        if wish is not None and wish.path:
            self.index.remove(wish.path, name)

    def enter_answer(self, name: str, text: str) -> None:
        """Enter the text of an answer; an empty one, or one that cannot be read, is no answer."""
        if text and self._answer_texts.get(name) == hash(text):
            return
        known = self.answers.pop(name, None)
        self._answer_texts.pop(name, None)
        if known is not None:
            self._holders.remove(known.project, self, name)
        answer = self._usable(text) if text else None
        if answer is not None:
            self.answers[name] = structs.replace(answer, at="")  # only readers need it, and it costs memory
            self._answer_texts[name] = hash(text)
            self._holders.add(answer.project, self, name)

    @staticmethod
    def _usable(text: str) -> Answer:
        """Return the answer in a text; an empty answer if it cannot be read or has an impossible id.

        An id outside the range is kept: the range was another one when the agent gave it.
        """
        with suppress(InvalidRecord):
            answer = decode_answer(text)
            if 0 <= answer.project <= LARGEST_ID:
                return answer
        return Answer()

    def enter_archives(self, texts: Mapping[str, str]) -> None:
        """Enter the records of all archives; one that cannot be read counts for no volume."""
        self._archives = {}
        for archive, text in texts.items():
            try:
                self._archives[decode_archive(text).volume] = archive
            except InvalidRecord:
                continue

    def enter_trash(self, names: Collection[str]) -> None:
        """Enter the names of all directories in the trash."""
        # `<volume>`, `<volume>.begun` or `<volume>.<time>`, and a volume's name can have dots.
        parts = (name.split(".") for name in names)
        self._trash = frozenset(".".join(each[:end]) for each in parts for end in range(1, len(each) + 1))

    # ------------------------------------------------------------------------------------------- what it says

    def names(self) -> Iterator[str]:
        """Iterate over the volumes that can need something: those that ask for a limit, and those with an answer."""
        for name, wish in self.wishes.items():
            if wish.size_bytes or wish.why_not or name in self.answers:
                yield name
        yield from sorted(self.answers.keys() - self.wishes.keys())

    def wish(self, name: str) -> Wish | None:
        """Return what a volume's record asks for.

        None if it has no record, or if another volume has taken its directory over.
        """
        wish = self.wishes.get(name)
        if wish is None or not wish.path:
            return wish
        return wish if wishes.successor(name, self.wishes, self.index) == name else None

    def rival(self, name: str) -> str:
        """Return a volume that claims the same directory."""
        wish = self.wishes.get(name)
        return wishes.rival(name, self.wishes, self.index) if wish is not None and wish.path else ""

    def is_archive(self, name: str) -> bool:
        """Return True if a volume is an archive now."""
        return name in self._archives

    def owner(self, project: int, name: str) -> Owner:
        """Return whose project id a directory of a volume has."""
        holders = self._holders.of(project)
        if (self, name) in holders:
            return "own"
        if not holders:
            return "unheld" if project in self._ids else "admin"
        return "former" if all(book is self and self._gave_up(other, name) for book, other in holders) else "other"

    def former_holders(self, project: int) -> list[str]:
        """Return the volumes of this export whose answers have an id."""
        return [name for book, name in self._holders.of(project) if book is self]

    def was_whole(self, project: int) -> bool:
        """Return True if an answer says that all content of its directory has this id."""
        return any(book.answers[name].whole for book, name in self._holders.of(project))

    def is_shared(self, name: str) -> bool:
        """Return True if another volume has a better right to the id in a volume's answer.

        After a crash while an id was handed on, or with a forged answer, two answers can have one id.
        """
        answer = self.answers.get(name)
        if answer is None or not answer.project:
            return False
        holders = self._holders.of(answer.project)
        return len(holders) > 1 and min(holders, key=lambda each: each[0].claim_to_id(each[1])) != (self, name)

    def claim_to_id(self, name: str) -> tuple[object, ...]:
        """Return how good a volume's right to its id is: of two, the lower one is better."""
        wish, answer = self.wish(name), self.answers[name]
        label = self._label(wish.path) if wish is not None and wish.path else None
        has_label = label is not None and label.project == answer.project
        return (wish is None, not has_label, not answer.whole, self.root, name)

    def _gave_up(self, former: str, name: str) -> bool:
        """Return True if a volume can take over the id of a former one with the directory that has it."""
        if self.wish(former) is not None:
            return False
        wish = self.wishes.get(name)
        archive = self._archives.get(former)
        if archive is not None:
            return wish is not None and wish.archive == archive
        return former not in self._trash

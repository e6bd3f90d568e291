"""The agent of one export: gathers what is known of each volume, asks the rules, and carries out their steps.

It is synchronous and works in slices: its generators yield between volumes, or after some entries of a long walk, so
that the caller can look at events and stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from msgspec import structs

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quota import ANSWERS, HEARTBEAT, Answer, Heartbeat, answer_path, brief, differs, encode
from provisioner.ports.quota import UNUSED, Disk, DiskError, Facts, NoRoom, Usage, Walked
from provisioner.quota import rules
from provisioner.quota.book import Book, Holders
from provisioner.quota.ids import IdRange

log = structlog.get_logger(__name__)

PENDING: RelPath = (LEDGER, "pending")
VOLUMES: RelPath = (LEDGER, "volumes")
ARCHIVES: RelPath = (LEDGER, "archives")
TRASH: RelPath = (LEDGER, "trash")
"""The parts of a ledger that the agent reads (ledger.layout)."""

_STEPS_LIMIT = 32
"""More steps than any volume needs."""
_YIELD_EVERY = 64
"""Volumes per slice of a pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the agent was asked to do."""

    version: str
    ids: IdRange = field(default_factory=IdRange)
    all_volumes: bool = False
    lift_archives: bool = False
    root_is_held: bool = False
    """Whether an admin says that root is held on ext4 too: the exports squash root, or the server is Ganesha."""


@dataclass(slots=True)
class Counts:
    """What the last pass has found."""

    volumes: int = 0
    """Volumes that ask for a limit."""
    limited: int = 0
    """Those among them whose limit is in force."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Answers by their reason, if they have one."""
    failures: int = 0


class ExportAgent:
    """The agent of one export."""

    def __init__(self, root: str, disk: Disk, holders: Holders, options: Options, *, now: Callable[[], str]) -> None:
        """`holders` is shared by all exports on one file system; `now` returns the time for records."""
        self.root = root
        self.disk = disk
        self.facts: Facts | None = None
        self.counts = Counts()
        self.passed_at = ""
        """When the last pass ended."""
        self.pass_took_s = 0.0
        self.idle_because = "it has not looked yet"
        """Why the last pass could do nothing; empty if it could."""
        self.warnings: tuple[str, ...] = ()
        self.awaited: dict[str, int] = {}
        """Volumes whose directory is not there, and how often it was not."""
        self._options = options
        self._now = now
        self._since = now()
        self._holders = holders
        self._book = Book(root, holders, options.ids, all_volumes=options.all_volumes, label=disk.label)
        self._usages: dict[int, Usage] = {}
        """The usage of projects in the present pass, and of those that were looked at since."""
        self._lowest_free = 0
        """No id below this one was free in this pass."""
        self._walks: dict[str, tuple[int, Iterator[Walked]]] = {}
        """Walks that are under way, and their projects."""
        self._walked: dict[str, Walked] = {}
        """The results of walks since the last pass."""

    # ------------------------------------------------------------------------------------------- a pass

    def full_pass(self) -> Iterator[None]:
        """Look at everything once, and write the heartbeat."""
        try:
            if not self._is_ready():
                return
            self.disk.events()  # a record that comes after it was looked for is seen as an event
            self._read_records()
            self._read_answers()
            self._read_archives()
            self._usages = dict(self.disk.usages())
            self._look_for_inheritance()
        except DiskError as exc:
            self._idle(str(exc))
            return
        self.idle_because = ""
        self._walked.clear()
        self._lowest_free = 0
        counts = Counts()
        for number, name in enumerate(list(self._book.names())):
            if number % _YIELD_EVERY == _YIELD_EVERY - 1:
                yield
            self._attempt(name, counts)
        self._usages = {}  # look_at() reads the usage of its volume
        self.counts = counts
        self.passed_at = self._now()
        self._beat()

    def _is_ready(self) -> bool:
        """Return True if the export has a ledger, and the agent can do its work."""
        self.facts = self.disk.facts()
        if not self.disk.read((LEDGER, "export")):
            self._idle(f"{self.root} has no ledger yet: it begins when a provisioner uses the export")
        elif self.facts.lacks:
            self._idle("; ".join(self.facts.lacks))
            self._beat()
            self.disk.release()
        elif not self.disk.lock():
            self._idle(f"another quota agent works on {self.root}: stop one of the two")
        else:
            return True
        return False

    def _idle(self, because: str) -> None:
        if because != self.idle_because:
            log.warning("quota_agent_idle", root=self.root, because=because)
        self.idle_because = because

    def _read_records(self) -> None:
        """Bring the book up to date with the disk."""
        # Pending first: a record moves from pending to volumes, so one of the two lists has it.
        names = {*self.disk.names(PENDING)}
        names |= {*self.disk.names(VOLUMES)}
        for name in self._book.wishes.keys() - names:
            self._book.forget_record(name)
            self.awaited.pop(name, None)
        for name in sorted(names):
            self._read_record(name)

    def _read_answers(self) -> None:
        """Bring the answers in the book up to date."""
        answers = {name for name in self.disk.names(ANSWERS) if not name.startswith(".")}
        for name in self._book.answers.keys() - answers:
            self._book.enter_answer(name, "")
        for name in sorted(answers):
            self._book.enter_answer(name, self.disk.read(answer_path(name)))

    def _read_archives(self) -> None:
        """Bring archives and trash in the book up to date."""
        archives = self.disk.names(ARCHIVES)
        self._book.enter_archives({name: self.disk.read((*ARCHIVES, name)) for name in archives})
        self._book.enter_trash(self.disk.names(TRASH))

    def _read_record(self, name: str) -> None:
        """Read one record: a settled one counts more than a pending one."""
        settled = self.disk.read((*VOLUMES, name))
        pending = "" if settled else self.disk.read((*PENDING, name))
        if not settled and not pending:  # it can have moved between the two calls
            settled = self.disk.read((*VOLUMES, name))
        self._book.enter(name, settled or pending, pending=not settled)

    def _look_for_inheritance(self) -> None:
        """Find directories that would pass a project on to what is renamed into them: such renames fail."""
        above = {(), (LEDGER,), TRASH}
        above |= {wish.path[:end] for wish in self._book.wishes.values() for end in range(1, len(wish.path))}
        labels = {path: self.disk.label(path) for path in sorted(above)}
        found = [path for path, label in labels.items() if label is not None and label.inherits]
        self.warnings = tuple(
            f"{'/'.join((self.root.rstrip('/'), *path))} passes its project on, so that archiving, deleting and"
            " restoring fail there: run xfs_io -c 'chattr -P' on it (XFS), or chattr -P (ext4)"
            for path in found
        )

    def _beat(self) -> None:
        """Write the heartbeat."""
        facts = self.facts
        assert facts is not None
        beat = Heartbeat(
            at=self._now(),
            since=self._since,
            version=self._options.version,
            filesystem=facts.filesystem,
            enforces=not facts.lacks,
            holds_root=self._options.root_is_held or facts.filesystem != "ext4",
            lacks="; ".join(facts.lacks),
            warns="; ".join(self.warnings),
            ids=str(self._options.ids),
            volumes=self.counts.volumes,
            limited=self.counts.limited,
        )
        try:
            self.disk.write(HEARTBEAT, encode(beat))
        except DiskError as exc:
            log.warning("quota_heartbeat_unwritten", root=self.root, error=str(exc))

    # ------------------------------------------------------------------------------------------- one volume

    def look_at(self, name: str) -> None:
        """Look at one volume whose record has changed."""
        if self.idle_because:
            return
        self._walked.pop(name, None)
        try:
            self._read_record(name)
            self._book.enter_answer(name, self.disk.read(answer_path(name)))
            answer = self._book.answers.get(name)
            if answer is not None:
                self._reread(answer.project)
        except DiskError as exc:
            log.warning("quota_step_failed", root=self.root, volume=name, error=str(exc))
            return
        self._attempt(name, Counts())

    def go_on(self) -> Iterator[None]:
        """Go on with the walks that are under way, and yield after each slice."""
        for name in list(self._walks):
            if name in self._walks:  # a look at the volume can have ended it since
                yield from self._go_on(name)

    @property
    def busy(self) -> list[str]:
        """The volumes whose last walk has met files that NFS clients hold; look_at() walks again."""
        return [name for name, met in self._walked.items() if met.busy]

    @property
    def is_walking(self) -> bool:
        """Whether a walk is under way."""
        return bool(self._walks)

    def _go_on(self, name: str) -> Iterator[None]:
        under_way, met = self._walks[name], Walked()
        project, walk = under_way
        while True:
            try:
                met = next(walk)
            except StopIteration:
                break
            except DiskError as exc:
                del self._walks[name]
                self._failed(name, exc)
                return
            yield
            if self._walks.get(name) is not under_way:
                return  # the directory got another id, and the walk begins again
        del self._walks[name]
        self._walked[name] = met
        with suppress(DiskError):
            self._reread(project)
            self._attempt(name, Counts())

    def _attempt(self, name: str, counts: Counts) -> None:
        """Carry out all steps for a volume; the next pass repeats one that fails."""
        try:
            self._settle(name)
        except DiskError as exc:
            counts.failures += 1
            self._failed(name, exc)
        self._count(name, counts)

    def _failed(self, name: str, error: DiskError) -> None:
        """Report a failed step in the log and in the answer, once for each text."""
        old = self._book.answers.get(name)
        new = structs.replace(old or Answer(), reason="failed", why=brief(str(error)), at=self._now())
        if isinstance(error, NoRoom) or differs(old, new):
            log.warning("quota_step_failed", root=self.root, volume=name, error=str(error))
        if differs(old, new):
            with suppress(DiskError):
                self._write(name, new)

    def _count(self, name: str, counts: Counts) -> None:
        wish, answer = self._book.wishes.get(name), self._book.answers.get(name)
        if wish is not None and (wish.size_bytes or wish.why_not):
            counts.volumes += 1
            counts.limited += answer is not None and bool(answer.limit_bytes) and not answer.reason
        if answer is not None and answer.reason:
            counts.reasons[answer.reason] = counts.reasons.get(answer.reason, 0) + 1

    def _settle(self, name: str) -> None:
        for _ in range(_STEPS_LIMIT):
            view = self._view(name)
            step = rules.decide(view)
            if not self._carry_out(name, step):
                self._await(name, view)
                return
        raise DiskError(f"the file system does not keep what was set: {step}")

    def _await(self, name: str, view: rules.View) -> None:
        """Note that a volume has no directory yet: it follows its record, or comes back from the trash."""
        if view.wish is not None and view.wish.size_bytes and view.label is None:
            self.awaited[name] = self.awaited.get(name, 0) + 1
        else:
            self.awaited.pop(name, None)

    def _carry_out(self, name: str, step: rules.Step) -> bool:
        """Carry out a step; return whether there can be another one now."""
        match step:
            case rules.Rest() | rules.Await():
                return False
            case rules.Write(answer):
                self._write(name, answer)
            case rules.Forget():
                self.disk.remove(answer_path(name))
                self._book.enter_answer(name, "")
            case rules.SetLabel(path, project, was):
                self._walks.pop(name, None)
                self._walked.pop(name, None)
                self.disk.set_label(path, project, was=was)
            case rules.LabelContent(path, project):
                return self._begin_walk(name, path, project)
            case rules.SetLimit(project, limit_bytes):
                self.disk.set_limit(project, limit_bytes)
                self._reread(project)
                log.info("quota_limit_set", root=self.root, volume=name, project=project, limit_bytes=limit_bytes)
        return True

    def _begin_walk(self, name: str, path: RelPath, project: int) -> bool:
        """Take the first slice of a walk: an empty directory needs no more."""
        if name in self._walks:
            return False
        walk = self.disk.walk(path, project)
        met = next(walk)
        if next(walk, None) is not None:
            self._walks[name] = (project, walk)
            return False
        self._walked[name] = met
        self._reread(project)
        return True

    def _write(self, name: str, answer: Answer) -> None:
        text = encode(answer)
        self.disk.write(answer_path(name), text)
        self._book.enter_answer(name, text)
        self._reread(answer.project)

    def _reread(self, project: int) -> None:
        """Read the usage of a project again, after something has changed it."""
        if project:
            self._usages[project] = self.disk.usage(project)

    # ------------------------------------------------------------------------------------------- what is known

    def _view(self, name: str) -> rules.View:
        book = self._book
        wish, answer = book.wish(name), book.answers.get(name)
        is_shared = book.is_shared(name)
        label = self.disk.label(wish.path) if wish is not None and wish.path else None
        project = label.project if label is not None else 0
        owner = book.owner(project, name) if project else "unheld"
        needs_id = wish is not None and (answer is None or not answer.project or is_shared)
        if needs_id and owner == "former":  # since the last pass, the directory can have become an archive
            self._read_archives()
            for former in book.former_holders(project):
                self._read_record(former)
            owner = book.owner(project, name)
        return rules.View(
            wish=wish,
            answer=answer,
            is_shared=is_shared,
            rival=book.rival(name),
            label=label,
            owner=owner,
            was_whole=bool(project) and book.was_whole(project),
            usage=self._usages.get(answer.project, UNUSED) if answer is not None else UNUSED,
            walked=self._walked.get(name),
            free_id=self._free_id() if needs_id and label is not None else None,
            lifts=self._options.lift_archives and book.is_archive(name),
            now=self._now(),
        )

    def _free_id(self) -> int | None:
        """Return the lowest id that nothing on the file system has; None if there is none."""
        found = self._options.ids.free(self._is_taken, start=self._lowest_free)
        while found is not None and not self.disk.usage(found).is_free:  # since this pass began
            found = self._options.ids.free(self._is_taken, start=found + 1)
        self._lowest_free = found or 0
        return found

    def _is_taken(self, project: int) -> bool:
        return project in self._holders or not self._usages.get(project, UNUSED).is_free

"""An NFS server in memory: exports with ledgers, tenants, and agents that can be killed at any call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.core.locations import RelPath
from provisioner.core.paths import LEDGER
from provisioner.core.quantities import parse_bytes
from provisioner.core.quota import Answer, Heartbeat, decode_answer, decode_heartbeat, enforces
from provisioner.core.records import ArchiveRecord, OnDelete, Quota, Record, decode, encode
from provisioner.ports.quota import DiskError
from provisioner.quota.agent import ExportAgent, Options
from provisioner.quota.book import Holders
from provisioner.quota.ids import IdRange
from provisioner.quota.rounds import Rounds
from tests.support.fakes.disk import MemoryDisk, Quotas
from tests.support.fakes.tree import Directory, File, MemoryTree, Symlink

IDS = IdRange(1000, 1009)
ADMIN = 77
"""A project that an admin has set by hand."""


class Killed(BaseException):
    """The process of the agent ends at this call."""


class QuotaWorld:
    """One file system with exports, and what people and provisioners do there."""

    def __init__(self, exports: int = 1) -> None:
        self.trees = [MemoryTree() for _ in range(exports)]
        self.quotas = Quotas(*self.trees)
        self.clock_s = 0.0
        self.calls = 0
        self.kill_at: int | None = None
        """The number of the call at which the agent is killed: even numbers before, odd ones after it."""
        self.fail_at: int | None = None
        for tree in self.trees:
            self.make_ledger(tree)

    @property
    def tree(self) -> MemoryTree:
        """The first export."""
        return self.trees[0]

    @staticmethod
    def make_ledger(tree: MemoryTree) -> None:
        """Create a ledger."""
        tree.root.entries[LEDGER] = ledger = Directory(mode=0o700)
        ledger.entries["export"] = Symlink("id")
        for name in ("pending", "volumes", "archives", "trash", "drafts", "clusters"):
            ledger.entries[name] = Directory(mode=0o700)

    # ------------------------------------------------------------------------------------------- agents

    def agents(self, **options: object) -> list[ExportAgent]:
        """Start a process of the agent, with an empty memory."""
        holders = Holders()
        chosen = options_of(options)
        return [
            ExportAgent(f"/srv/{number}", self.disk(tree), holders, chosen, now=lambda: "2026-11-28T09:00:00Z")
            for number, tree in enumerate(self.trees)
        ]

    def disk(self, tree: MemoryTree | None = None) -> MemoryDisk:
        """Return an export's disk for a new process."""
        return MemoryDisk(self.quotas, tree or self.tree, before=self._before, after=self._after)

    def _before(self, call: str, path: RelPath) -> None:
        self.calls += 1
        if self.kill_at == self.calls:
            raise Killed
        if self.fail_at == self.calls:
            raise DiskError(f"{call} {'/'.join(path)}: Input/output error")

    def _after(self, call: str, path: RelPath) -> None:
        self._before(call, path)

    def run(self, agents: Sequence[ExportAgent] | None = None, *, passes: int = 2, **options: object) -> None:
        """Run an agent until everything is at rest."""
        rounds = Rounds(agents or self.agents(**options), lambda: self.clock_s)
        for _ in range(passes):
            self.clock_s += 60.0
            rounds.turn()
            while rounds.is_at_work:
                rounds.turn()

    def end(self, agents: Iterable[ExportAgent]) -> None:
        """The process of the agents has ended: the kernel ends its locks."""
        for agent in agents:
            agent.disk.release()

    # ------------------------------------------------------------------------------------------- people

    def record(
        self,
        directory: str,
        size: str = "1Mi",
        *,
        quota: Quota = "required",
        namespace: str = "shop",
        on_delete: OnDelete = "archive",
        created: str = "2026-11-28T08:00:00Z",
        archive: str = "",
        retained: str = "",
    ) -> Record:
        """Return a record."""
        return Record(
            directory=directory,
            namespace=namespace,
            claim="data",
            claim_uid="",
            class_name="nfs",
            on_delete=on_delete,
            capacity=size,
            created=created,
            quota=quota,
            archive=archive,
            retained=retained,
        )

    def write_record(
        self, name: str, record: Record | str, *, state: str = "volumes", tree: MemoryTree | None = None
    ) -> None:
        """Write a record, or any text."""
        text = record if isinstance(record, str) else encode(record)
        self.part(state, tree).entries[name] = Symlink(text)

    def volume(
        self, name: str, directory: str = "", size: str = "1Mi", *, tree: MemoryTree | None = None, **fields: object
    ) -> Directory:
        """A provisioner creates a volume; return its directory."""
        directory = directory or name
        self.write_record(name, self.record(directory, size, **fields), tree=tree)  # type: ignore[arg-type]
        return self.make(directory, tree=tree)

    def make(self, directory: str, *, tree: MemoryTree | None = None) -> Directory:
        """Create a directory with its parents."""
        self.quotas.settle()
        parent = (tree or self.tree).root
        for part in directory.split("/"):
            below = parent.entries.setdefault(part, Directory())
            assert isinstance(below, Directory)
            parent = below
        self.quotas.settle()
        return parent

    def fill(self, directory: Directory, size_bytes: int, name: str = "file") -> File:
        """A tenant writes a file."""
        file = File(bytes(size_bytes))
        directory.entries[name] = file
        self.quotas.settle()
        return file

    def part(self, name: str, tree: MemoryTree | None = None) -> Directory:
        """Return a directory of the ledger."""
        node = (tree or self.tree).look((LEDGER, name))
        assert isinstance(node, Directory)
        return node

    def move(self, source: str, target: str) -> None:
        """Rename a directory."""
        self.quotas.settle()
        old, new = tuple(source.split("/")), tuple(target.split("/"))
        parent, above = self.tree.look(old[:-1]), self.tree.look(new[:-1])
        assert isinstance(parent, Directory)
        assert isinstance(above, Directory)
        above.entries[new[-1]] = parent.entries.pop(old[-1])

    def delete(self, name: str, directory: str = "") -> None:
        """A provisioner deletes a volume: its directory goes to the trash, its record ends."""
        self.move(directory or name, f"{LEDGER}/trash/{name}")
        del self.part("volumes").entries[name]

    def archive(self, name: str, directory: str = "") -> str:
        """A provisioner archives a volume; return the archive's name."""
        archive = f"archived-{directory or name}-1"
        target = self.part("volumes").entries.pop(name)
        assert isinstance(target, Symlink)
        record = ArchiveRecord(name, "2026-11-28T08:30:00Z", decode(target.target))
        self.part("archives").entries[archive] = Symlink(encode(record))
        self.move(directory or name, archive)
        return archive

    def purge(self, name: str) -> None:
        """The trash is emptied."""
        self.quotas.settle()
        del self.part("trash").entries[name]

    # ------------------------------------------------------------------------------------------- what is there

    def answer(self, name: str, tree: MemoryTree | None = None) -> Answer | None:
        """Return an answer of the agent."""
        node = (tree or self.tree).look((LEDGER, "quota", name))
        return decode_answer(node.target) if isinstance(node, Symlink) else None

    def said(self, name: str, tree: MemoryTree | None = None) -> Answer:
        """Return the answer that must be there."""
        answer = self.answer(name, tree)
        assert answer is not None
        return answer

    def heartbeat(self) -> Heartbeat:
        """Return the heartbeat that must be there."""
        node = self.tree.look((LEDGER, "agent"))
        assert isinstance(node, Symlink)
        return decode_heartbeat(node.target)

    def limit(self, name: str, tree: MemoryTree | None = None) -> int:
        """Return the limit that the file system enforces for a volume."""
        return self.quotas.limits.get(self.said(name, tree).project, 0)

    def check_promises(self) -> None:
        """What must hold after every single call: no answer promises more than is so."""
        self.quotas.settle()
        labels: dict[int, str] = {}
        for number, tree in enumerate(self.trees):
            for name, record in self.records(tree).items():
                node, answer = tree.look(record.path), self.answer(name, tree)
                if not isinstance(node, Directory) or answer is None or answer.reason == "conflict":
                    continue
                project, inherits = self.quotas.project(node)
                if answer.whole and answer.limit_bytes and enforces(answer, parse_bytes(record.capacity)):
                    assert project == answer.project, name
                    assert inherits, name
                    limit = self.quotas.limits.get(project, 0)
                    assert 0 < limit <= answer.limit_bytes, (name, limit, answer)
                if project == answer.project and project:
                    other = labels.setdefault(project, f"{number} {name}")
                    assert other == f"{number} {name}", f"{other} and {number} {name} have project {project}"

    def records(self, tree: MemoryTree | None = None) -> dict[str, Record]:
        """Return the records of volumes."""
        entries = {**self.part("pending", tree).entries, **self.part("volumes", tree).entries}
        found = {}
        for name, node in entries.items():
            assert isinstance(node, Symlink)
            found[name] = decode(node.target)
        return found

    def check_rest(self) -> None:
        """What must hold at rest: each volume has its limit, and no directory has another's project."""
        self.check_promises()
        projects: dict[int, str] = {}
        for number, tree in enumerate(self.trees):
            for name, record in self.records(tree).items():
                node = tree.look(record.path)
                if not isinstance(node, Directory) or record.quota == "none":
                    continue
                project, inherits = self.quotas.project(node)
                assert project in IDS, (name, project)
                assert inherits
                assert projects.setdefault(project, f"{number} {name}") == f"{number} {name}"
                used = self.quotas.usages()[project].used_bytes
                wanted = parse_bytes(record.capacity)
                limit = self.quotas.limits.get(project, 0)
                assert wanted <= limit < max(wanted, used) + 4096, (name, limit, used)
                assert self.said(name, tree).limit_bytes == limit
                assert self.said(name, tree).whole
        held = [answer.project for tree in self.trees for answer in self._answers(tree) if answer.project]
        assert len(held) == len(set(held)), held
        assert {project for project, limit in self.quotas.limits.items() if limit} <= set(held)

    def _answers(self, tree: MemoryTree) -> list[Answer]:
        node = tree.look((LEDGER, "quota"))
        links = node.entries.values() if isinstance(node, Directory) else []
        return [decode_answer(each.target) for each in links if isinstance(each, Symlink)]


def options_of(options: dict[str, object]) -> Options:
    """Return the options of an agent, with the range of the tests."""
    return Options(**{"version": "1", "ids": IDS, **options})  # type: ignore[arg-type]

"""A `Disk` that changes nothing: it keeps all changes in memory and reports each, for a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from provisioner.core.locations import RelPath
from provisioner.core.quantities import readable
from provisioner.core.quota import ANSWERS, Answer, decode_answer
from provisioner.ports.quota import Disk, Facts, Label, Usage, Walked


class Rehearsal:
    """Shows what an agent would do on a disk."""

    def __init__(self, disk: Disk, report: Callable[[str], None]) -> None:
        """`report` receives one line per change."""
        self._disk = disk
        self._report = report
        self._texts: dict[RelPath, str] = {}
        self._labels: dict[RelPath, Label] = {}
        self._limits: dict[int, int] = {}

    def facts(self) -> Facts:
        """See `Disk`."""
        return self._disk.facts()

    def lock(self) -> bool:
        """See `Disk`; a dry run disturbs no agent."""
        return True

    def release(self) -> None:
        """See `Disk`."""
        self._disk.release()

    def names(self, path: RelPath) -> list[str]:
        """See `Disk`."""
        written = {each[-1]: text for each, text in self._texts.items() if each[:-1] == path}
        return [name for name in {*self._disk.names(path), *written} if written.get(name, name)]

    def read(self, path: RelPath) -> str:
        """See `Disk`."""
        return self._texts[path] if path in self._texts else self._disk.read(path)

    def write(self, path: RelPath, text: str) -> None:
        """See `Disk`."""
        self._texts[path] = text
        if path[:-1] == ANSWERS:
            self._report(f"{path[-1]}: would answer: {_words(decode_answer(text))}")

    def remove(self, path: RelPath) -> None:
        """See `Disk`."""
        self._texts[path] = ""
        self._report(f"{path[-1]}: would remove the answer")

    def label(self, path: RelPath) -> Label | None:
        """See `Disk`."""
        return self._labels[path] if path in self._labels else self._disk.label(path)

    def set_label(self, path: RelPath, project: int, *, was: Label) -> None:
        """See `Disk`."""
        self._labels[path] = Label(project, inherits=True, inode=was.inode)
        self._report(f"{'/'.join(path)}: would set project {project}")

    def walk(self, path: RelPath, project: int) -> Iterator[Walked]:
        """See `Disk`."""
        self._report(f"{'/'.join(path)}: would set project {project} on all content")
        yield Walked()

    def usages(self) -> Mapping[int, Usage]:
        """See `Disk`."""
        return {project: self._with_limit(project, usage) for project, usage in self._disk.usages().items()}

    def usage(self, project: int) -> Usage:
        """See `Disk`."""
        return self._with_limit(project, self._disk.usage(project))

    def _with_limit(self, project: int, usage: Usage) -> Usage:
        if project not in self._limits:
            return usage
        return Usage(usage.used_bytes, usage.inodes, self._limits[project])

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """See `Disk`."""
        self._limits[project] = limit_bytes
        self._report(f"project {project}: would set the limit to {readable(limit_bytes) if limit_bytes else 'none'}")

    def events(self) -> int | None:
        """See `Disk`."""
        return None

    def changed(self) -> set[str] | None:
        """See `Disk`."""
        return set()


def _words(answer: Answer) -> str:
    """Return an answer in words."""
    limit = f"limit {readable(answer.limit_bytes)}" if answer.limit_bytes else "no limit"
    return ", ".join(filter(None, (f"project {answer.project}" if answer.project else "", limit, answer.why)))

"""All that is printed: in place and in colour on a terminal, line by line in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.markup import escape
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from provisioner.nfs.layout import TOMBSTONE

Progress = Callable[[str], None]

_QUIET_IN_LOGS_S = 30.0
_LOG_WIDTH = 110
_BESIDE_WIDTH = 108
"""Terminals narrower than this get the table without its column of purposes."""

_MANY_FILES = 3

Row = tuple[str, str, str, str, str, str, str, str]
COLUMNS = ("claim", "for", "asks", "class", "phase", "volume", "directory", "after")
_MIN_WIDTHS = {"phase": 8, "volume": 12, "directory": 15, "after": 7}
"""So that a live table does not change its shape as it fills."""

_STYLES = {
    "Bound": "green",
    "Pending": "yellow",
    "refused": "red",
    "deleted": "dim",
}


class Screen:
    """The one place that writes to standard output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self.is_terminal = self._console.is_terminal
        if not self.is_terminal:
            self._console = Console(highlight=False, width=_LOG_WIDTH)
        self._news = _News(self.say)

    def title(self, text: str) -> None:
        """A heading of one part."""
        self._console.print()
        self._console.print(Rule(f"[bold]{escape(text)}", align="left", style="cyan", characters="─"))

    def say(self, text: str) -> None:
        """A sentence or two."""
        self._console.print(escape(text))

    def done(self, text: str, *, took_s: float | None = None) -> None:
        """Something that has come about."""
        took = "" if took_s is None else f"  [dim]{duration(took_s)}"
        self._console.print(f"[green]✓[/] {escape(text)}{took}", soft_wrap=not self.is_terminal)

    def failed(self, text: str) -> None:
        """Something that has not."""
        self._console.print(f"[bold red]✗[/] {escape(text)}", soft_wrap=not self.is_terminal)

    def code(self, text: str) -> None:
        """Something to copy: never wrapped."""
        self._console.print(f"  [bold]{escape(text)}", soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Progress]:
        """A long step: what it is doing while it runs, given line by line, and `text` once it is done."""
        began_s = time.monotonic()
        if self.is_terminal:
            with self._console.status("", spinner_style="cyan") as status:
                yield lambda line: status.update(escape(line))
        else:
            yield _Sparse(self.say)
        self.done(text, took_s=time.monotonic() - began_s)

    @contextmanager
    def table(self, rows: Callable[[], Sequence[Row]]) -> Iterator[Callable[[str], None]]:
        """A table that is live. Call the value with a claim's name when that row may have changed.

        In a log each change of a row is a line, and the table comes at the end.
        """
        if self.is_terminal:
            # Drawn by a thread of Live's own: what is measured meanwhile must not wait for it.
            with Live(get_renderable=lambda: self._table(rows()), console=self._console, refresh_per_second=10):
                yield lambda _: None
            self.say("")
            return
        yield lambda name: self._news.tell(next(row for row in rows() if row[0] == name))
        self._console.print("", self._table(rows()), "", sep="\n")

    def _table(self, rows: Sequence[Row]) -> Table:
        shown = [name for name in COLUMNS if name != "for" or self._console.width >= _BESIDE_WIDTH]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold cyan")
        for name in shown:
            justify: JustifyMethod = "right" if name == "after" else "left"
            table.add_column(name, no_wrap=True, justify=justify, min_width=_MIN_WIDTHS.get(name))
        for row in rows:
            cells = dict(zip(COLUMNS, row, strict=True))
            style = _STYLES.get(cells["phase"], "")
            table.add_row(*(Text(cells[name], style=style if name == "phase" else "") for name in shown))
        return table

    def tree(self, root: str, directory: Path) -> None:
        """The directories and files of an export; its ledger as one line."""
        self._console.print(_tree(Tree(f"[bold]{escape(root)}", guide_style="dim"), directory))

    def measures(self, measures: Sequence[tuple[str, str]]) -> None:
        """Names and values."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        for name, value in measures:
            table.add_row(escape(name), Text(value, style="bold"))
        self._console.print(table)


class _Sparse:
    """Progress for a log: a line that is as the last one up to its colon carries on from it, and comes rarely."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._label, self._said_s = "", 0.0

    def __call__(self, line: str) -> None:
        label, now_s = line.partition(":")[0], time.monotonic()
        if label != self._label or now_s - self._said_s >= _QUIET_IN_LOGS_S:
            self._label, self._said_s = label, now_s
            self._say(f"  {line}")


class _News:
    """A line for each row that is not as it was told last."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, Row] = {}

    def tell(self, row: Row) -> None:
        if self._told.get(row[0]) != row:
            self._told[row[0]] = row
            name, _, _, _, phase, volume, directory, after = row
            self._say(f"  {name:<11} {phase:<9} {volume:<14} {directory:<20} {after}".rstrip())


def _tree(tree: Tree, directory: Path) -> Tree:
    paths = sorted(directory.iterdir())
    files = [path for path in paths if not path.is_dir()]
    if not paths:
        tree.add("[dim](empty)")
    for path in (path for path in paths if path.is_dir()):
        if path.name == ".provisioner":
            tree.add(f"[dim]{_ledger(path)}")
        else:
            _tree(tree.add(f"[bold blue]{escape(path.name)}/"), path)
    if len(files) > _MANY_FILES:
        tree.add(f"{escape(files[0].name)} … {escape(files[-1].name)} [dim]{len(files)} files")
    else:
        for path in files:
            tree.add(f"{escape(path.name)} [dim]{path.stat().st_size} bytes")
    return tree


def _ledger(directory: Path) -> str:
    # By glob: while the daemon makes its ledger, parts of it are not there yet.
    records = sum(len(list(directory.glob(f"{kind}/*"))) for kind in ("pending", "volumes"))
    trash = in_trash(directory)
    return f".provisioner/  the ledger: {count(records, 'record')}, {trash or 'nothing'} in the trash"


def in_trash(ledger: Path) -> int:
    """How many directories wait to be purged; what is only kept taken is none of them."""
    return sum([*entry.glob("*")] != [entry / TOMBSTONE] for entry in ledger.glob("trash/*"))


def count(number: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(took_s: float) -> str:
    """A duration in the unit that suits it."""
    if took_s < 1:
        return f"{took_s * 1000:.0f} ms"
    return f"{took_s:.1f} s" if took_s < 60 else f"{took_s // 60:.0f} min {took_s % 60:.0f} s"

"""The output: live and in colour on a terminal, line by line in a log."""

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

from provisioner.ledger.layout import TOMBSTONE

Progress = Callable[[str], None]

_QUIET_IN_LOGS_S = 30.0
_LOG_WIDTH = 110
_BESIDE_WIDTH = 108
"""Terminals narrower than this get the table without the column `for`."""

_MANY_FILES = 3

Row = tuple[str, str, str, str, str, str, str, str]
COLUMNS = ("claim", "for", "asks", "class", "phase", "volume", "directory", "after")
_MIN_WIDTHS = {"phase": 8, "volume": 12, "directory": 15, "after": 7}
"""Minimum widths, so that a live table keeps its shape while it fills."""

_STYLES = {
    "Bound": "green",
    "Pending": "yellow",
    "refused": "red",
    "deleted": "dim",
}


class Screen:
    """The only writer to standard output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self.is_terminal = self._console.is_terminal
        if not self.is_terminal:
            self._console = Console(highlight=False, width=_LOG_WIDTH)
        self._changes = _Changes(self.say)

    def title(self, text: str) -> None:
        """Print the heading of a part."""
        self._console.print()
        self._console.print(Rule(f"[bold]{escape(text)}", align="left", style="cyan", characters="─"))

    def say(self, text: str) -> None:
        """Print a sentence or two."""
        self._console.print(escape(text))

    def done(self, text: str, *, took_s: float | None = None) -> None:
        """Print a success, with its duration."""
        took = "" if took_s is None else f"  [dim]{duration(took_s)}"
        self._console.print(f"[green]✓[/] {escape(text)}{took}", soft_wrap=not self.is_terminal)

    def failed(self, text: str) -> None:
        """Print a failure."""
        self._console.print(f"[bold red]✗[/] {escape(text)}", soft_wrap=not self.is_terminal)

    def code(self, text: str) -> None:
        """Print text to copy, without wrapping."""
        self._console.print(f"  [bold]{escape(text)}", soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Progress]:
        """Show the progress of a long step, and print `text` once it is done."""
        began_s = time.monotonic()
        if self.is_terminal:
            with self._console.status("", spinner_style="cyan") as status:
                yield lambda line: status.update(escape(line))
        else:
            yield _Sparse(self.say)
        self.done(text, took_s=time.monotonic() - began_s)

    @contextmanager
    def table(self, rows: Callable[[], Sequence[Row]]) -> Iterator[Callable[[str], None]]:
        """Show a live table.

        Call the yielded function with the name of a claim when its row can have changed.

        In a log each change of a row is a line, and the table comes at the end.
        """
        if self.is_terminal:
            # Live draws in a thread of its own: drawing must not delay the measurements.
            with Live(get_renderable=lambda: self._table(rows()), console=self._console, refresh_per_second=10):
                yield lambda _: None
            self.say("")
            return
        yield lambda name: self._changes.show(next(row for row in rows() if row[0] == name))
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
        """Print the directories and files of an export, with the ledger as one line."""
        self._console.print(_tree(Tree(f"[bold]{escape(root)}", guide_style="dim"), directory))

    def measures(self, measures: Sequence[tuple[str, str]]) -> None:
        """Print names and values."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        for name, value in measures:
            table.add_row(escape(name), Text(value, style="bold"))
        self._console.print(table)


class _Sparse:
    """Progress for a log: updates of a line (equal up to the colon) appear rarely."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._label, self._said_s = "", 0.0

    def __call__(self, line: str) -> None:
        label, now_s = line.partition(":")[0], time.monotonic()
        if label != self._label or now_s - self._said_s >= _QUIET_IN_LOGS_S:
            self._label, self._said_s = label, now_s
            self._say(f"  {line}")


class _Changes:
    """Prints a line for each row that differs from the last one printed."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._shown: dict[str, Row] = {}

    def show(self, row: Row) -> None:
        if self._shown.get(row[0]) != row:
            self._shown[row[0]] = row
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
    # Glob, because parts of the ledger can be missing while the daemon creates it.
    records = sum(len(list(directory.glob(f"{kind}/*"))) for kind in ("pending", "volumes"))
    trash = in_trash(directory)
    return f".provisioner/  the ledger: {count(records, 'record')}, {trash or 'nothing'} in the trash"


def in_trash(ledger: Path) -> int:
    """Return how many directories wait to be purged.

    Entries with only a tombstone do not count.
    """
    return sum([*entry.glob("*")] != [entry / TOMBSTONE] for entry in ledger.glob("trash/*"))


def count(number: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(took_s: float) -> str:
    """Return a duration in a suitable unit."""
    if took_s < 1:
        return f"{took_s * 1000:.0f} ms"
    return f"{took_s:.1f} s" if took_s < 60 else f"{took_s // 60:.0f} min {took_s % 60:.0f} s"

"""The documentation for tests: its pages, their blocks of code, and the first column of their tables."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

_FENCE = re.compile(r'^( *)```(\w+)(?: title="([^"]*)")?\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code with its first line; the text has no indentation."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    """Return all blocks of a language."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _FENCE.finditer(text):
            _, name, title, code = match.groups()
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(str(page.relative_to(DOCS)), line, name, title or "", textwrap.dedent(code)))
    return [each for each in found if each.language == language]


def section(page: str, heading: str = "") -> str:
    """Return a page's text, or the part below one heading up to the next of the same rank."""
    text = (DOCS / page).read_text()
    if not heading:
        return text
    rank = heading.split(" ")[0]
    _, _, after = text.partition(f"\n{heading}\n")
    assert after, f"{page} has no heading {heading!r}"
    return after.split(f"\n{rank} ")[0]


def tabled(text: str) -> set[str]:
    """Return each `word` in the first cells of a text's tables."""
    rows = [row.replace(r"\|", "/").split("|") for row in text.splitlines() if row.lstrip().startswith("|")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row[1])}


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as Markdown renderers create them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}

"""The code's citations of docs/development lead to a heading, and the code map names what the tree has."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import DOCS, ROOT

PAGES = {page.stem: page for page in (DOCS / "development").glob("*.md")}
CITATION = re.compile(rf'\(({"|".join(PAGES)}), (?:"([^"]+)"|harms? (\d+)(?: to (\d+))?|([A-Z][a-z]+) (\d+))\)')


def citations() -> list[tuple[str, ...]]:
    """Every citation in the product, with the file that it is in."""
    return [
        (str(path.relative_to(ROOT)), *match.groups(""))
        for path in sorted((ROOT / "provisioner").rglob("*.py"))
        for match in CITATION.finditer(re.sub(r"\s*\n\s*(?:# )?", " ", path.read_text()))
    ]


@pytest.mark.parametrize("citation", citations(), ids=" ".join)
def test_a_citation_leads_to_a_heading(citation: tuple[str, ...]) -> None:
    """The page has the heading, and the numbered rule where one is cited."""
    _, page, heading, first, last, chapter, rule = citation
    text = PAGES[page].read_text()
    if heading or chapter:
        assert re.search(rf"^#+ {re.escape(heading or chapter)}\b", text, re.MULTILINE)
    for number in filter(None, (first, last, rule)):
        assert re.search(rf"^{number}\. ", text, re.MULTILINE)


def test_there_are_citations() -> None:
    """The pattern finds those that the code has."""
    assert len(citations()) >= 5


def mapped() -> list[str]:
    """The folders of the code map, and the modules that each entry names."""
    text = (DOCS / "development" / "architecture.md").read_text().partition("## Code map")[2].partition("\n## ")[0]
    found = []
    for names, body in re.findall(r"^((?:`[\w./]+`(?:, )?)+)\n:   (.*?)(?=^`|\Z)", text, re.MULTILINE | re.DOTALL):
        folders = re.findall(r"`([^`]+)`", names)
        found += [*folders, *(folders[0] + module for module in re.findall(r"`(\w+\.py)`", body))]
    return sorted(set(found))


@pytest.mark.parametrize("name", mapped())
def test_the_code_map_is_exact(name: str) -> None:
    """Each folder and each module that the code map names exists."""
    assert (ROOT / name).exists()

"""Each citation of docs/development in a docstring or a comment names a page and a heading that exist."""

from __future__ import annotations

import re

import pytest

from tests.pages import DOCS, ROOT

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

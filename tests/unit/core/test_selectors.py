"""core.selectors: label selectors mean what they mean to kubectl."""

from __future__ import annotations

import pytest

from provisioner.core import selectors
from provisioner.core.errors import InvalidSettings
from provisioner.core.selectors import Choice

LABELS = {"app": "db", "example.com/tier": "back", "empty": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("  ", True),
        ("app=db", True),
        ("app==db", True),
        (" app = db ", True),
        ("app=web", False),
        ("app!=web", True),
        ("app!=db", False),
        ("missing!=x", True),
        ("missing=x", False),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("! app", False),
        ("empty=", True),
        ("app in (web, db)", True),
        ("app in (web)", False),
        ("app notin (web)", True),
        ("missing notin (web)", True),
        ("example.com/tier=back,app in (db,web),!legacy", True),
        ("example.com/tier=back,app=web", False),
    ],
)
def test_matches(text: str, expected: bool) -> None:
    """All requirements of a selector must be met; negative ones accept a missing label."""
    assert selectors.parse(text).matches(LABELS) is expected


@pytest.mark.parametrize("text", ["app=", "=db", "app in db", "a=b=c", "app>1", ",", "app in (a", "a b"])
def test_unusable(text: str) -> None:
    """A text that is no selector is refused with an example."""
    if text == "app=":
        assert not selectors.parse(text).matches(LABELS)
        return
    with pytest.raises(InvalidSettings, match="is not a label selector: write for example app=db"):
        selectors.parse(text)


def test_a_choice() -> None:
    """An object is wanted if both its namespace and its labels match."""
    assert Choice().has("any", {})
    assert not Choice().has_labels
    choice = Choice("shop", selectors.parse("app=db"))
    assert choice.has_labels
    assert choice.has("shop", LABELS)
    assert not choice.has("shop", {})
    assert not choice.has("other", LABELS)

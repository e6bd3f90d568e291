"""core.folding."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.folding import fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("team", "TEAM"),
        ("caf\u00e9", "CAFE\u0301"),
        ("\u212b", "a\u030a"),
        ("stra\u00dfe", "STRASSE"),
        ("\u0130", "i\u0307"),
        ("\u0131", "I"),
        ("\u017fhop", "SHOP"),
        ("\ufb01le", "file"),
        ("sh\u200dop", "shop"),
        ("\u03a3\u03a3", "\u03c3\u03c2"),
    ],
)
def test_names_that_some_server_takes_for_one(one: str, other: str) -> None:
    """Case, normal forms, ligatures and invisible characters make no difference."""
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("cafe", "caf\u00e9"), ("a-b", "a_b"), ("a", "a ")])
def test_other_names(one: str, other: str) -> None:
    """Names that differ in a letter, an accent or a sign stay different."""
    assert fold(one) != fold(other)


@given(st.text(st.characters(exclude_categories=("Cs", "Mn"))))
def test_forms_of_one_name(name: str) -> None:
    """All normal forms and cases of a name fold to the same name."""
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert {fold(form) for form in forms} == {fold(name)}
    assert fold(name.upper()) == fold(name)

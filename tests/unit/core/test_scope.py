"""core.scope: text and exit status distinguish "nothing found" from "nothing looked at"."""

from __future__ import annotations

import pytest
from msgspec import structs

from provisioner.core.records import ArchiveRecord
from provisioner.core.scope import FOUND, NOT_SEEN, NOTHING, Scope, Seen, Unseen, count, no_class, seen
from tests.support import samples

DOWN = Unseen("export nas:/down", "it does not answer")


def scope(*, exports: tuple[Seen, ...] = (), unseen: tuple[Unseen, ...] = (), classes: dict[str, int] | None) -> Scope:
    return Scope(provisioner=samples.US, classes=classes, exports=exports, unseen=unseen)


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "volume", "0 volumes"),
        (1, "volume", "1 volume"),
        (2, "StorageClass", "2 StorageClasses"),
        (1, "class", "1 class"),
    ],
)
def test_plural(number: int, noun: str, text: str) -> None:
    """A number and its noun agree."""
    assert count(number, noun) == text


def test_an_export_in_words() -> None:
    """An export is shown with the numbers of its records, archives and clusters, or that it has no ledger."""
    records = {"pvc-1": samples.record("a"), "pvc-2": structs.replace(samples.record("b"), cluster="another")}
    archives = {"archived-x": ArchiveRecord(volume="pvc-3", archived="", was=samples.record("c"))}
    assert str(seen("nas:/x", records, archives)) == "export nas:/x: 2 volume records, 1 archive record, 2 clusters"
    assert "no volume was ever created on it" in str(Seen(export="nas:/x", has_ledger=False))


def test_what_was_looked_at() -> None:
    """Each export has one line, skipped ones as well, below the provisioner's name."""
    seen_scope = scope(exports=(Seen(export="nas:/x"),), unseen=(DOWN,), classes={samples.US: 2})
    assert seen_scope.lines() == [
        f"provisioner {samples.US}: 2 StorageClasses",
        "looked at export nas:/x: 0 volume records, 0 archive records, 0 clusters",
        "skipped export nas:/down: it does not answer",
    ]
    assert seen_scope.status == NOT_SEEN


def test_nothing_to_look_at() -> None:
    """Without an export, the reason is shown, with the names that StorageClasses have."""
    seen_scope = scope(classes={"b": 1, "a": 2})
    assert seen_scope.status == NOTHING
    assert seen_scope.lines() == [
        f"nothing to look at: no StorageClass has the provisioner {samples.US};"
        " StorageClasses have a (2 classes), b (1 class), and no --export is given"
    ]
    assert "no cluster was asked" in scope(classes=None).lines()[0]
    assert "the cluster has no StorageClass" in no_class(samples.US, {})


def test_an_export_of_no_class() -> None:
    """An export that only a flag names is read; that no class has the provisioner's name is still shown."""
    seen_scope = scope(exports=(Seen(export="nas:/x"),), classes={"another": 1})
    assert seen_scope.status == FOUND
    assert "no StorageClass has the provisioner" in seen_scope.lines()[0]
    assert scope(exports=(Seen(export="nas:/x"),), classes=None).lines()[0] == f"provisioner {samples.US}"


def test_an_export_that_stops_answering() -> None:
    """An export that was opened and later does not answer counts only as skipped."""
    seen_scope = scope(exports=(Seen(export="nas:/down"), Seen(export="nas:/x")), classes={samples.US: 1}).but([DOWN])
    assert [each.export for each in seen_scope.exports] == ["nas:/x"]
    assert seen_scope.unseen == (DOWN,)

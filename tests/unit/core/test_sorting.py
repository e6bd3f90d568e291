"""core.sorting: `--sort-by` finds its field and sorts by value."""

from __future__ import annotations

import pytest
from msgspec import Struct

from provisioner.core import sorting
from provisioner.core.errors import InvalidSettings


class Row(Struct, frozen=True):
    """A row of a list."""

    name: str
    capacity: str = ""
    used_bytes: int | None = None


COLUMNS = {"NAME": "name", "USED": "used_bytes", "FULL SIZE": "capacity"}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ("name", "name"),
        ("NAME", "name"),
        (".used_bytes", "used_bytes"),
        ("{.used-bytes}", "used_bytes"),
        ("USED", "used_bytes"),
        ("full size", "capacity"),
    ],
)
def test_field_of(wanted: str, field: str) -> None:
    """A field has its own name and that of its column, also in the form that kubectl writes."""
    assert sorting.field_of(wanted, Row, COLUMNS) == field


def test_no_such_field() -> None:
    """For an unknown field the error lists all of them."""
    with pytest.raises(InvalidSettings, match=r"--sort-by size: .* choose one of capacity, name, used_bytes"):
        sorting.field_of("size", Row, COLUMNS)


def test_by_field() -> None:
    """Quantities and numbers are sorted by size, texts by characters; what is unknown comes last."""
    rows = [Row("b", "10Gi", 5), Row("a", "odd", None), Row("c", "2Gi", 70), Row("", "1G", 6)]
    assert [row.capacity for row in sorting.by_field(rows, "capacity")] == ["1G", "2Gi", "10Gi", "odd"]
    assert [row.used_bytes for row in sorting.by_field(rows, "used_bytes")] == [5, 6, 70, None]
    assert [row.name for row in sorting.by_field(rows, "name")] == ["a", "b", "c", ""]

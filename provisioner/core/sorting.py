"""The order of rows in a list: by the field that `--sort-by` names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct, structs

from provisioner.core.errors import InvalidQuantity, InvalidSettings
from provisioner.core.quantities import parse_bytes

QUANTITIES = frozenset(("capacity", "requested"))
"""Fields that hold a Kubernetes quantity: `10Gi` comes after `2Gi`."""

Row = TypeVar("Row", bound=Struct)


def field_of(wanted: str, row: type[Struct], columns: Mapping[str, str]) -> str:
    """Return the field that a user means by its name, by a column, or by `.name` and `{.name}` as kubectl writes it.

    `columns` has the field of each column. Raises InvalidSettings.
    """
    name = wanted.strip("{}").lstrip(".").lower().replace("-", "_").replace(" ", "_")
    fields = [each.name for each in structs.fields(row)]
    by_column = {column.lower().replace("-", "_").replace(" ", "_"): field for column, field in columns.items()}
    found = name if name in fields else by_column.get(name)
    if found is None:
        raise InvalidSettings(f"--sort-by {wanted}: there is no such field; choose one of {', '.join(sorted(fields))}")
    return found


def by_field(rows: Iterable[Row], field: str) -> list[Row]:
    """Sort rows by a field: numbers and quantities by size, texts by their characters, unknown values last."""
    return sorted(rows, key=lambda row: _key(getattr(row, field), quantity=field in QUANTITIES))


def _key(value: object, *, quantity: bool) -> tuple[bool, float, str]:
    if quantity and isinstance(value, str):
        try:
            return False, parse_bytes(value), ""
        except InvalidQuantity:
            return True, 0, value
    if isinstance(value, int):
        return False, value, ""
    text = "" if value is None else str(value)
    return not text, 0, text

"""`make manifests`: write the table of values into the README of the chart, from its values and their schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.manifests import CHART

README = CHART / "README.md"
BEGINNING = "## Values\n"

Schema = dict[str, Any]


def rendered() -> str:
    """Return the README: the part before the values as it is, and the table of all values."""
    before, _, _ = README.read_text().partition(BEGINNING)
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = "".join(f"| `{key}` | {default} | {text} |\n" for key, default, text in _rows(schema, values, ""))
    return f"{before}{BEGINNING}\n| Key | Default | Description |\n|---|---|---|\n{rows}"


def _rows(node: Schema, values: dict[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    """Yield key, default and description of each value below a node of the schema, in the order of values.yaml."""
    parts: dict[str, Schema] = node["properties"]
    for key in [*(key for key in values if key in parts), *(key for key in parts if key not in values)]:
        part, value, name = parts[key], values.get(key), f"{above}{key}"
        if "properties" in part:
            yield from _rows(part, value or {}, f"{name}.")
        else:
            yield name, _default(value), part["description"]
            # The keys of storageClasses are those of storageClass.
            if "properties" in part.get("items", {}) and key != "storageClasses":
                yield from _rows(part["items"], {}, f"{name}[].")


def _default(value: Any) -> str:
    return "" if value in (None, "", [], {}) else f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    README.write_text(rendered())

"""The chart's schema, README and Chart.yaml are in step with its values and with the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.chart_readme import README, rendered
from provisioner import __version__
from provisioner.core.reasons import OF_THE_CLAIM
from tests.support.pages import ROOT, anchors

CHART = ROOT / "charts" / "nfs-provisioner"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
NOT_IN_VALUES = {"buildMode"}
"""Keys of the nfs-subdir chart for its own tests."""
HERE = "https://github.com/nfs-provisioner/nfs-provisioner/blob/main/"


def described(node: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and description of each key of the schema."""
    for key, part in node.get("properties", {}).items():
        yield f"{above}{key}", part.get("description", "")
        yield from described(part, f"{above}{key}.")
        yield from described(part.get("items", {}), f"{above}{key}[].")


def test_every_key_is_described() -> None:
    """Editors show a sentence for each key of the values, and for each definition."""
    keys = dict(described(SCHEMA))
    assert len(keys) > 150
    assert [key for key, text in keys.items() if not text] == []
    assert [name for name, part in SCHEMA["definitions"].items() if not part.get("description")] == []


def test_values_and_schema_have_the_same_keys() -> None:
    """values.yaml has each key of the schema, and no other, so that `helm show values` lists all of them."""

    def keys(values: dict[str, Any], schema: dict[str, Any], above: str) -> Iterator[str]:
        parts = schema["properties"]
        yield from (f"{above}{key}" for key in values.keys() ^ parts.keys())
        for key in values.keys() & parts.keys():
            if "properties" in parts[key] and isinstance(values[key], dict):
                yield from keys(values[key], parts[key], f"{above}{key}.")

    assert set(keys(VALUES, SCHEMA, "")) == NOT_IN_VALUES


def test_the_readme_is_up_to_date() -> None:
    """The README lists the values as they are; `make manifests` updates it."""
    assert README.read_text() == rendered()


def test_the_chart_is_of_the_product() -> None:
    """Chart.yaml names the version and the image of the product, an icon that exists, and maintainers."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (image,) = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert chart["version"] == chart["appVersion"] == __version__
    assert image["image"] == f"{VALUES['image']['repository']}:{__version__}"
    assert (ROOT / chart["icon"].partition("/main/")[2]).read_text().startswith("<svg")
    assert chart["maintainers"]


def test_the_alerts_know_the_reasons_that_lie_in_a_claim() -> None:
    """The alerts tell refusals that lie in a claim apart from faults by the product's own list."""
    template = (CHART / "templates" / "prometheusrule.yaml").read_text()
    (reasons,) = re.findall(r'\$reasons := "([A-Za-z|]+)"', template)
    assert set(reasons.split("|")) == OF_THE_CLAIM


@pytest.mark.parametrize("name", ["README.md", "Chart.yaml", "dashboards/nfs-provisioner.json"])
def test_links_outside_lead_to_files_of_ours(name: str) -> None:
    """Artifact Hub shows the chart without the repository: each link is whole, and leads to a file and a heading."""
    text = (CHART / name).read_text()
    links = re.findall(rf"{HERE}([^\s)`\"]+)", text)
    assert len(links) > 4
    for path, _, anchor in (link.partition("#") for link in links):
        assert (ROOT / path).is_file(), path
        assert not anchor or anchor in anchors((ROOT / path).read_text()), anchor
    assert re.findall(r"\]\((?!https:)[^)]*\)", text) == []

"""Helm, and the chart as it renders it, as the tests of the chart have them."""

from __future__ import annotations

from tests.integration.chart.conftest import helm, helm_home, render

__all__ = ["helm", "helm_home", "render"]

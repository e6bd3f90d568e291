"""Helm and the rendered chart, as in the chart's tests."""

from __future__ import annotations

from tests.integration.chart.conftest import helm, helm_home, render

__all__ = ["helm", "helm_home", "render"]

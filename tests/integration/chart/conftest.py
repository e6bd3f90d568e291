"""Helm and the rendered chart."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import helm as helm_binary
from testbed.cluster import ControlPlane
from testbed.helm import Helm
from tests.integration.chart.rendering import Renderer


@pytest.fixture(scope="session")
def helm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Helm's home directory; the test fails where Helm is not built."""
    if helm_binary.missing():
        # Building takes longer than any test's time limit.
        pytest.fail(helm_binary.missing())
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="session")
def helm(helm_home: Path) -> Helm:
    """Helm without a cluster."""
    return Helm(helm_home)


@pytest.fixture(scope="session")
def render(helm: Helm) -> Renderer:
    """Renders the chart."""
    return Renderer(helm)


@pytest.fixture(scope="session")
def cluster_helm(helm_home: Path, control_plane: ControlPlane) -> Helm:
    """Helm as the administrator of the control plane."""
    return Helm(helm_home, kubeconfig=control_plane.kubeconfig)

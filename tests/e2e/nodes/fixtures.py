"""The cluster of real nodes for all stories, and their report."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.nodes import cluster, image
from tests.e2e.nodes.cluster import NodeCluster

REPORT = "build/real-nodes.txt"
"""The report's file below the project's root; the terminal shows it too."""


@pytest.fixture(scope="session")
def node_cluster(
    provisioner_image: str, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[NodeCluster]:
    """A control plane, an NFS server and two Ready nodes with the provisioner's image."""
    reason = cluster.missing()
    if reason:
        pytest.skip(f"this machine cannot run real nodes: {reason}")
    if image.present() is None:
        pytest.fail(f"the nodes' disk is not built for {provisioner_image}: run `python -m tests.e2e.nodes.image`")
    with NodeCluster(tmp_path_factory.mktemp("nodes")) as nodes:
        nodes.ready()
        yield nodes
        report = nodes.report.write()
    path = pytestconfig.rootpath / REPORT
    path.parent.mkdir(exist_ok=True)
    path.write_text(report)
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.ensure_newline()
        terminal.write(report)

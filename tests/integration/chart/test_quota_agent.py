"""The chart's quota agent: a Deployment on the node that is the NFS server."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from provisioner.cli.quota_agent import quota_agent
from testbed.api import Object
from testbed.helm import HelmFailed
from tests.integration.chart.rendering import NAS, Release, Renderer

pytestmark = pytest.mark.timeout(120)

ON: dict[str, Any] = {
    "quotaAgent__enabled": True,
    "quotaAgent__roots": ["/srv/nfs", "/srv/two"],
    "quotaAgent__nodeSelector": {"kubernetes.io/hostname": "nas"},
}


def agent_of(release: Release) -> Object:
    """Return the Deployment of the agent."""
    (found,) = [each for each in release.all("Deployment") if each["metadata"]["name"].endswith("-quota-agent")]
    return found


def test_by_default_there_is_no_agent(render: Renderer) -> None:
    """Without the value the chart renders no agent."""
    assert len(render(**NAS).all("Deployment")) == 1


def test_the_pod_of_the_agent(render: Renderer) -> None:
    """It runs on the chosen node, with the exports and three capabilities besides those to become the owner."""
    pod = agent_of(render(**NAS, **ON))["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/hostname": "nas"}
    assert pod["automountServiceAccountToken"] is False
    assert [each["hostPath"]["path"] for each in pod["volumes"]] == ["/srv/nfs", "/srv/two"]
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["SYS_ADMIN", "FOWNER", "DAC_READ_SEARCH", "SETUID", "SETGID"],
    }


def test_nothing_of_the_provisioner_selects_the_agent(render: Renderer) -> None:
    """The Service, the Deployment and the other objects that select pods do not select the agent's."""
    release = render(**NAS, **ON, networkPolicy__enabled=True)
    labels = agent_of(release)["spec"]["template"]["metadata"]["labels"]
    selectors = [release.one("Service")["spec"]["selector"]]
    selectors += [release.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [release.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
    selectors += [
        each["spec"]["selector"]["matchLabels"] for each in release.all("Deployment") if each != agent_of(release)
    ]
    assert [each for each in selectors if each.items() <= labels.items()] == []


def test_the_environment_is_the_agent_s(render: Renderer) -> None:
    """Each variable is one of a flag, and the agent accepts its value."""
    release = render(**NAS, **ON, quotaAgent__allVolumes=True, quotaAgent__rootIsHeld=True)
    (container,) = agent_of(release)["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    known = {option.envvar for option in quota_agent.params if option.envvar}
    assert environment.keys() <= known
    with CliRunner().isolation(env=environment):
        params = quota_agent.make_context("quota-agent", []).params
    assert params["roots"] == ("/srv/nfs", "/srv/two")
    assert (params["all_volumes"], params["lift_archives"], params["listen"]) == (True, False, "0.0.0.0:9090")
    assert params["root_is_held"]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"quotaAgent__roots": []}, "quotaAgent.roots"),
        ({"quotaAgent__nodeSelector": {}}, "quotaAgent.nodeSelector"),
        ({"quotaAgent__roots": ["srv"]}, "roots"),
        ({"quotaAgent__roots": ["/srv/my data"]}, "roots"),
        ({"quotaAgent__projectIds": "5"}, "projectIds"),
        ({"quotaAgent__root": "/srv"}, "root"),
    ],
)
def test_values_that_cannot_be_used(render: Renderer, values: dict[str, Any], word: str) -> None:
    """A value that is missing or cannot be used is refused by name."""
    with pytest.raises(HelmFailed, match=word):
        render(**NAS, **{**ON, **values})

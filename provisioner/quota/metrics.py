"""The metrics of the quota agent, in the text format of Prometheus. Written by hand: its library needs 4 MB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provisioner.core import times
from provisioner.quota.agent import ExportAgent

_PREFIX = "nfs_provisioner_quota_agent_"

Sample = tuple[dict[str, str], float]


def render(agents: Sequence[ExportAgent], *, version: str) -> str:
    """Return all metrics."""
    ages = [(agent, times.parse(agent.passed_at)) for agent in agents]
    roots: list[tuple[ExportAgent, dict[str, str]]] = [(agent, {"root": agent.root}) for agent in agents]
    families: list[tuple[str, str, list[Sample]]] = [
        ("build_info", "The version of the agent.", [({"version": version}, 1)]),
        ("enforces", "Whether limits can be set on the export.", [(at, not agent.idle_because) for agent, at in roots]),
        ("volumes", "Volumes that ask for a limit.", [(at, agent.counts.volumes) for agent, at in roots]),
        ("limited", "Volumes whose limit is in force.", [(at, agent.counts.limited) for agent, at in roots]),
        (
            "answers",
            "Answers without the limit that was asked for, by reason.",
            [({**at, "reason": why}, number) for agent, at in roots for why, number in agent.counts.reasons.items()],
        ),
        ("failures", "Steps that failed in the last pass.", [(at, agent.counts.failures) for agent, at in roots]),
        (
            "last_pass_timestamp_seconds",
            "When the last look at everything ended.",
            [({"root": agent.root}, at.timestamp()) for agent, at in ages if at is not None],
        ),
        (
            "pass_seconds",
            "How long the last look at everything took.",
            [(at, agent.pass_took_s) for agent, at in roots],
        ),
    ]
    return "".join(_family(*each) for each in families)


def _family(name: str, about: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {_PREFIX}{name} {about}\n", f"# TYPE {_PREFIX}{name} gauge\n"]
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{_PREFIX}{name}{{{pairs}}} {float(value)}\n" if pairs else f"{_PREFIX}{name} {float(value)}\n")
    return "".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

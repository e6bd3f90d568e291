"""The documentation names what the product has, all of it, and nothing else. (`mkdocs --strict` follows its links.)"""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from collections.abc import Iterator
from typing import Any, get_args

import click
import pytest
import yaml
from msgspec import structs

from provisioner.cli.entry import all_commands
from provisioner.commands.version import Versions
from provisioner.core import archives, checks, instances, listing, measured, moving, names, orphans, waiting
from provisioner.core.checks import permissions
from provisioner.core.description import Description
from provisioner.core.parameters import ALIASES, KNOWN, parse
from provisioner.core.quota import Reason as QuotaReason
from provisioner.core.reasons import Reason
from provisioner.core.snapshots import SnapshotRow
from provisioner.ports.tree import Cause
from provisioner.quota import metrics as quota_metrics
from provisioner.telemetry.metrics import Metrics
from tests.support.pages import DOCS, PAGES, ROOT, Block, anchors, blocks, section, tabled

CHART = ROOT / "charts" / "nfs-provisioner"
COMMANDS = all_commands()
SUFFIXES = {"counter": "_total", "info": "_info"}


def options(command: click.Command) -> set[str]:
    """The flags of a command, in each of their spellings; `-h` and what is hidden apart."""
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    return {flag for each in shown for flag in (*each.opts, *each.secondary_opts)}


# ------------------------------------------------------------------------------------------- commands


def test_every_flag_is_explained() -> None:
    """The reference has each flag and each environment variable of each command, and no others."""
    page = section("reference/commands.md")
    known = {flag for command in COMMANDS.values() for flag in options(command)} | {"--version", "--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) == {flag for flag in known if flag.startswith("--")}
    for command in COMMANDS.values():
        for each in command.params:
            variables = [each.envvar] if isinstance(each.envvar, str) else []
            assert all(f"`{variable}`" in page for variable in variables), each.name


def test_every_default_is_the_flag_s() -> None:
    """What the reference says of a flag's default is what it is."""
    rows = {
        cells[1].strip("` ").split(" ")[0].split("`")[0]: cells[3].strip(" `")
        for cells in (row.split("|") for row in section("reference/commands.md", "## run").splitlines())
        if len(cells) > 4
    }
    flags = [each for each in COMMANDS["run"].params if isinstance(each, click.Option) and not each.is_flag]
    scalars = [each for each in flags if isinstance(each.default, str | int)]
    assert len(scalars) > 8
    for each in scalars:
        flag = each.opts[0]
        row = next(name for name in rows if name == flag or flag.removesuffix("gid") == name.removesuffix("uid"))
        assert rows[row] == str(each.default), flag


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("volumes", {field.name for field in structs.fields(listing.VolumeRow)}),
        ("claims", {field.name for field in structs.fields(waiting.ClaimRow)}),
        ("move", {field.name for field in structs.fields(moving.MoveRow)}),
        ("usage", {field.name for field in structs.fields(measured.UsageRow)}),
        ("describe", {field.name for field in structs.fields(Description)}),
        ("snapshots", {field.name for field in structs.fields(SnapshotRow)}),
        ("archives", {field.name for field in structs.fields(archives.ArchiveRow)}),
        ("orphans", {field.name for field in structs.fields(orphans.Orphan)}),
        ("instances", {field.name for field in structs.fields(instances.InstanceRow)}),
        ("version", {field.name for field in structs.fields(Versions)}),
        ("check", {"ok", "findings"} | {field.name for field in dataclasses.fields(checks.Finding)}),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_every_field_is_explained(command: str, fields: set[str]) -> None:
    """The reference has each field that a command's JSON has, and no other."""
    table = section("reference/json.md", "## Fields").split("\n## ")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{command}` |")]
    assert set(re.findall(r"`([a-z_]+)`", row.split("|")[2])) == fields


PRINTED = "|".join(COMMANDS)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each call of ours that a page prints in a block of its own, and where."""
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            match = re.match(rf"^ {{4,}}.*\bnfs-provisioner ((?:{PRINTED})\b.*)", line)
            if match and "|" not in line:
                printed = match.group(1).split("#")[0].replace("[", " ").replace("]", " ")
                yield f"{page.relative_to(DOCS)}:{number}", shlex.split(printed.split(">")[0])


@pytest.mark.parametrize(("words"), [words for _, words in commands()], ids=[where for where, _ in commands()])
def test_every_command_that_is_printed_is_one(words: list[str]) -> None:
    """It names a command of ours, and flags that this command has."""
    command, *rest = words
    used = {word.split("=")[0] for word in rest if word.startswith("-")}
    assert used <= options(COMMANDS[command])


def test_every_exec_names_its_namespace() -> None:
    """A `kubectl exec` into our Deployment works as it is printed, in the pages and in `--help`: it says where."""
    pages = [*PAGES, ROOT / "README.md", CHART / "README.md"]
    printed = "\n".join([*(page.read_text() for page in pages), *(each.help or "" for each in COMMANDS.values())])
    calls = re.findall(r"kubectl exec\b[^\n]*?deploy/nfs-provisioner", printed)
    assert len(calls) >= 10
    assert [call for call in calls if "-n nfs-provisioner" not in call] == []


# ------------------------------------------------------------------------------------------- classes


def test_every_parameter_is_explained() -> None:
    """Each parameter and each alias is in the table of the reference."""
    assert {*KNOWN, *ALIASES} <= set(re.findall(r"`(\w+)`", section("reference/parameters.md").split("\n## ")[0]))


def examples() -> list[Block]:
    """The parameters of classes that the reference gives as examples."""
    return [each for each in blocks("yaml") if each.page == "reference/parameters.md" and "kind:" not in each.text]


def test_every_parameter_has_an_example() -> None:
    """Each has one, in a block of its own or with those that belong to it."""
    assert {name for each in examples() for name in yaml.safe_load(each.text)} - {"mountOptions"} == set(KNOWN)


@pytest.mark.parametrize("example", examples(), ids=str)
def test_an_example_can_be_used(example: Block) -> None:
    """The daemon takes the parameters of every example."""
    parse({name: text for name, text in yaml.safe_load(example.text).items() if name != "mountOptions"})


def test_every_key_on_an_object_is_explained() -> None:
    """Each annotation and the finalizer that we set or read by a name of our own is in the reference."""
    page = section("reference/objects.md", "## Annotations and finalizers")
    assert all(f"`{key}`" in page for key in (*names.MARKS, names.RESTORE, names.PROVISIONED_BY, names.VERSION))
    assert names.FINALIZER in page


# ------------------------------------------------------------------------------------------- what it says


def test_every_event_is_explained() -> None:
    """The reference has each reason of an event that we write, and no other."""
    reasons = {
        names.PROVISIONING, names.PROVISIONING_SUCCEEDED, names.PROVISIONING_FAILED, names.PROVISIONING_CLEANUP_FAILED,
        names.VOLUME_FAILED_DELETE, names.RESIZING, names.VOLUME_RESIZE_SUCCESSFUL, names.VOLUME_RESIZE_FAILED,
        names.DIRECTORY_MISSING, names.MODE_REFUSED, names.VOLUME_REBOUND, names.DATA_KEPT,
        names.RECORD_MISSING, names.VOLUME_DISAGREES, names.VOLUME_NEARLY_FULL, names.VOLUME_FULL,
        names.AUTO_GROW, names.AUTO_GROW_FAILED, names.COPY_INCOMPLETE, names.VOLUME_CLONED, names.SNAPSHOT_FAILED,
        names.SNAPSHOT_SCHEDULE_FAILED,
    }  # fmt: skip
    assert tabled(section("reference/objects.md", "## Events")) == reasons


def test_every_log_line_is_explained() -> None:
    """The reference has each event that is logged from level info up, and no other."""
    logged = {
        call.args[0].value
        for path in (ROOT / "provisioner").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("info", "warning", "error", "exception")
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "log"
        and isinstance(call.args[0], ast.Constant)
    }
    assert tabled(section("reference/objects.md", "## Log")) == logged


def test_every_trouble_with_an_export_is_explained() -> None:
    """Each cause that an event can give for an export's failure has a row with what to do."""
    page = section("troubleshooting.md", "## Export errors")
    assert tabled(page) == {cause.value for cause in Cause}


def test_every_metric_is_explained() -> None:
    """The reference has each metric of ours, and no other; so has every query that a page prints."""
    exported = {each.name + SUFFIXES.get(each.type, "") for each in Metrics().registry.collect()}
    sampled = re.findall(r'metrics\.sample\(\s*"(\w+)"', (ROOT / "provisioner" / "controllers/gauges.py").read_text())
    ours = {name for name in exported if name.startswith(("nfs_provisioner_", "controller_"))}
    ours |= {f"nfs_provisioner_{name}" for name in sampled}
    page = section("reference/metrics.md")
    assert tabled(page.replace(section("reference/metrics.md", "## Failure reasons"), "")) == ours
    used = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for page in PAGES
        for name in re.findall(r"\b(?:nfs_provisioner|controller)_[a-z_]+[a-z]\b", page.read_text())
    }
    assert used == ours | {"nfs_provisioner_quota_agent"}  # a prefix: see the next test


def test_every_metric_of_the_quota_agent_is_explained() -> None:
    """The page of the agent has each of its metrics, and no other."""
    rendered = quota_metrics.render([], version="1")
    exported = re.findall(r"^# TYPE nfs_provisioner_quota_agent_(\w+) gauge$", rendered, re.MULTILINE)
    assert set(re.findall(r"`…_(\w+)", section("operations/quota-agent.md", "## Metrics and health"))) == set(exported)


def test_every_reason_of_the_quota_agent_is_explained() -> None:
    """The page of the agent has each reason of an answer, and no other."""
    explained = tabled(section("operations/quota-agent.md", "## What the agent writes"))
    assert explained == set(get_args(QuotaReason)) - {""}


def test_every_refusal_is_explained() -> None:
    """The reference has each machine reason that counts as a failure."""
    explained = tabled(section("reference/metrics.md", "## Failure reasons"))
    assert explained == set(Reason) - {Reason.EXTERNAL_POPULATOR}


MESSAGES = [
    quote
    for heading in ("## A claim stays Pending", "## A volume stays Released, or Terminating")
    for row in section("troubleshooting.md", heading).rpartition("| Message |")[2].splitlines()
    for quote in re.findall(r"`([^`]+)`", row.split("|")[1] if row.startswith("|") else "")
]


def product_strings() -> list[list[str]]:
    """Each string of the product as the texts between its holes: an f-string has one hole per expression."""
    found = []
    for path in (ROOT / "provisioner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(each.value) if isinstance(each, ast.Constant) else "\0" for each in node.values)
                found.append(text.split("\0"))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append([node.value])
    return found


STRINGS = product_strings()


def is_said(words: str) -> bool:
    """Whether a string of the product has these words, where a hole can be any one word."""
    for texts in STRINGS:
        if any(words in text for text in texts):
            return True
        for number, text in enumerate(texts[:-1]):
            # The words begin in this text and go on behind the hole that follows it.
            starts = [size for size in range(6, len(words)) if text.endswith(words[:size])]
            rest = texts[number + 1 :]
            if any(_goes_on(words[size:], rest) for size in starts):
                return True
    return False


def _goes_on(words: str, texts: list[str]) -> bool:
    """Whether words are a hole of one word, and then the beginning of these texts."""
    for size in range(1, len(words.split(" ")[0]) + 1):
        behind = words[size:]
        if texts[0].startswith(behind):
            return True
        if len(texts) > 1 and behind.startswith(texts[0]) and _goes_on(behind.removeprefix(texts[0]), texts[1:]):
            return True
    return False


@pytest.mark.parametrize("quote", MESSAGES)
def test_every_quoted_message_is_one(quote: str) -> None:
    """The messages by which admins look up a claim or a volume are words that the product says."""
    assert [words for each in quote.split("…") if (words := each.strip(" :")) and not is_said(words)] == []


def test_there_are_quoted_messages() -> None:
    """The tables of messages are found."""
    assert len(MESSAGES) >= 35


def test_every_alert_has_a_runbook() -> None:
    """Each says what it means, what it affects, where to look and what to do, and is in the list at the top."""
    template = (CHART / "templates" / "prometheusrule.yaml").read_text()
    alerts = re.findall(r"- alert: (\w+)", template)
    assert len(alerts) >= 7
    for alert in alerts:
        runbook = section("operations/alerts.md", f"## {alert}")
        assert re.findall(r"\*\*(\w+)\.\*\*", runbook) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
        assert f"| [{alert}](#{alert.lower()}) |" in section("operations/alerts.md")


# ------------------------------------------------------------------------------------------- the chart


def test_every_value_is_explained() -> None:
    """Each key of the chart's values.yaml has its row, or is part of one that has."""
    explained = tabled(section("reference/values.md"))

    def leaves(node: Any, path: str) -> Iterator[str]:
        if path in explained or not isinstance(node, dict) or not node:
            yield path
        else:
            for key, child in node.items():
                yield from leaves(child, f"{path}.{key}" if path else key)

    assert set(leaves(yaml.safe_load((CHART / "values.yaml").read_text()), "")) <= explained


def test_every_right_is_explained() -> None:
    """The table of rights has each resource with just the verbs that the daemon asks for."""
    wanted: dict[str, set[str]] = {}
    for each in permissions(lease=("nfs", "nfs")):
        wanted.setdefault(each.target, set()).add(each.verb)
    rows = re.findall(r"^\| `([\w./]+)`[^|]*\| ([a-z, ]+) \|", section("concepts/security.md"), re.MULTILINE)
    assert {resource: set(verbs.split(", ")) for resource, verbs in rows} == wanted


# ------------------------------------------------------------------------------------------- links from outside


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "charts/nfs-provisioner/README.md"])
def test_links_lead_somewhere(path: str) -> None:
    """Each link to a file of ours leads to one, and to a heading that is there."""
    page = ROOT / path
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_what_the_chart_links_to_is_there() -> None:
    """The pages that values, schema and notes of the chart name exist."""
    texts = [path.read_text() for path in CHART.rglob("*") if path.is_file() and path.suffix != ".md"]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w/-]+\.md", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []

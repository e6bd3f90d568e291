"""core.templates."""

from __future__ import annotations

import contextlib
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidPath, InvalidSettings
from provisioner.core.locations import RelPath
from provisioner.core.templates import DEFAULT_PATTERN, DEPTH_LIMIT, parse
from tests.support import samples

ANNOTATIONS = {
    "nfs.io/path": "team/a",
    "empty": "",
    "slashes": "//app/./data/",
    "slash": "/",
    "dot": "./",
    "blank": " ",
}
CLAIM = samples.claim(labels={"app": "web"}, annotations=ANNOTATIONS)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (DEFAULT_PATTERN, ("shop-data-pvc-0b5f",)),
        ("${.PVC.namespace}/${.PVC.name}", ("shop", "data")),
        ("${.PVC.namespace}/${.PV.name}", ("shop", "pvc-0b5f")),
        ("${pvc.metadata.namespace}/${pvc.metadata.name}/${pv.metadata.name}", ("shop", "data", "pvc-0b5f")),
        ("k8s/${.PVC.labels.app}", ("k8s", "web")),
        ("${.PVC.annotations.nfs.io/path}/${.PVC.name}", ("team", "a", "data")),
        ("${.PVC.labels.none:-other}/x", ("other", "x")),
        ("${.PVC.annotations.empty:-other}", ("other",)),
        ("${.PVC.labels.app:-other}", ("web",)),
        ("${.PVC.name:-other}", ("data",)),
        ("a${.PVC.labels.none:-}b", ("ab",)),
        ("${.PVC.labels.none:-a:-b}", ("a:-b",)),
        ("fixed/$name/{x}", ("fixed", "$name", "{x}")),
        ("$${.PVC.name}", ("$data",)),
        ("/k8s/${.PVC.name}", ("k8s", "data")),
        ("${.PVC.namespace}/${.PVC.name}/", ("shop", "data")),
        ("./${.PVC.namespace}//./${.PVC.name}/.", ("shop", "data")),
        ("//a/..b/...", ("a", "..b", "...")),
        ("${.PVC.namespace}/${.PVC.annotations.slashes}", ("shop", "app", "data")),
        ("x${.PVC.annotations.slashes}y", ("x", "app", "data", "y")),
        ("${.PVC.annotations.none:-${.PVC.name}}", ("data",)),
        ("${.PVC.annotations.none:-${pvc.metadata.name}}/x", ("data", "x")),
        ("${.PVC.annotations.nfs.io/path:-${.PVC.name}}", ("team", "a")),
        ("${.PVC.labels.none:-${.PVC.labels.app}}", ("web",)),
        ("${.PVC.labels.none:-${.PVC.labels.no:-${.PV.name}}}", ("pvc-0b5f",)),
        ("${.PVC.labels.none:-of-${.PVC.namespace}/${.PVC.name}-x}", ("of-shop", "data-x")),
        ("${.PVC.labels.none:-$5}", ("$5",)),
        ("${.PVC.annotations.slash:-other}", ("other",)),
        ("${.PVC.annotations.blank:-other}", ("other",)),
        ("${.PVC.name:-${.PVC.labels.none}}", ("data",)),
    ],
)
def test_rendered(pattern: str, path: RelPath) -> None:
    """A pattern gives the documented directory, in nfs-subdir's and in csi-driver-nfs's spelling."""
    assert parse(pattern).render(CLAIM, samples.VOLUME) == path


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "empty"),
        ("${.PVC.nmae}", r"\.PVC\.nmae"),
        ("${.PVC.labels.}", "labels"),
        ("${}", "unknown"),
        ("${.PVC.name", "not closed"),
        ("a/${.PVC.name}/${", "not closed"),
        ("${${.PVC.name}}", "not closed"),
        ("${.pvc.name}", r"unknown: write \$\{\.PVC\.name\}"),
        ("${ .PVC.name }", r"unknown: write \$\{\.PVC\.name\}"),
        ("${PVC.Labels.App}", r"unknown: write \$\{\.PVC\.labels\.App\}"),
        ("${.PVC.labels.x:-${.PVC.nmae}}", r"'\$\{\.PVC\.nmae\}' is unknown: use one of"),
        ("${.PVC.labels.x:-${.PVC.name}", "not closed"),
        ("${.PVC.labels.x:-a{b}}", "not closed"),
        ("${.PVC.labels.x:-", "not closed"),
        ("${.PVC.name:-" * 10 + "x" + "}" * 10, "more than 8 levels deep"),
        ("${.PVC.name:-" * 50_000, "more than 8 levels deep"),
        ("{{.PVC.name}}", r"'{{.PVC.name}}' is a Go template.*: write \$\{\.PVC\.name\}"),
        ("a/{{ .PVC.Namespace }}", r"Go template.*write \$\{\.PVC\.namespace\}"),
        ("{{- .PVName -}}", r"Go template.*write \$\{\.PV\.name\}"),
        ('{{ index .PVC.Annotations "nfs.io/path" }}', r"write \$\{\.PVC\.annotations\.nfs\.io/path\}"),
        ("{{ .PVC.Labels.app }}", r"write \$\{\.PVC\.labels\.app\}"),
        ("{{ .Values.x }}", r"Go template.*use one of \$\{"),
        ("${{ .PVC.name }}", "Go template"),
        ("x/{{", "Go template"),
        ("$.PVC.name", r"without its braces: write \$\{\.PVC\.name\}"),
        ("k8s/$pvc.metadata.name", r"'\$pvc.metadata.name' .*write \$\{pvc\.metadata\.name\}"),
        ("$(.PVC.namespace)/x", r"write \$\{\.PVC\.namespace\}"),
        ("$PV.uid", r"without its braces: write one of \$\{"),
    ],
)
def test_unusable_pattern(pattern: str, problem: str) -> None:
    """A pattern that cannot be used is refused, and the message names the piece and what to write."""
    with pytest.raises(InvalidSettings, match=problem) as caught:
        parse(pattern)
    assert len(str(caught.value)) < 500


def test_fallbacks_may_be_nested() -> None:
    """Fallbacks can be nested; the innermost counts if all others are missing."""
    pattern = "${.PVC.labels.none:-" * DEPTH_LIMIT + "${.PVC.name}" + "}" * DEPTH_LIMIT
    assert parse(pattern).render(CLAIM, samples.VOLUME) == ("data",)


def test_keys() -> None:
    """The keys that a pattern reads are known beforehand, also in nested fallbacks."""
    template = parse("${.PVC.labels.a:-${.PVC.annotations.x/y:-z-${.PVC.labels.b}}}/${.PVC.name}/${.PVC.annotations.c}")
    assert template.keys("labels") == {"a", "b"}
    assert template.keys("annotations") == {"x/y", "c"}
    assert parse(DEFAULT_PATTERN).keys("labels") == frozenset()


@pytest.mark.parametrize("pattern", ["/", "./", "//.//", "."])
def test_the_export_itself(pattern: str) -> None:
    """A pattern without a name would be the export's root, and is refused."""
    with pytest.raises(InvalidPath, match="the export's root"):
        parse(pattern).render(CLAIM, samples.VOLUME)


@pytest.mark.parametrize(
    "pattern",
    ["${.PVC.labels.none:-}", "${.PVC.namespace}/${.PVC.labels.none:-}", "a/${.PVC.labels.none:-/}/b",
     "${.PVC.namespace}/${.PVC.labels.none:-.}/", "${.PVC.labels.none:-${.PVC.labels.no:-}}/x"],
)  # fmt: skip
def test_an_empty_fallback(pattern: str) -> None:
    """A fallback that leaves a component empty is refused by its name."""
    with pytest.raises(InvalidPath, match=r"empty component: '\$\{\.PVC\.labels\.none:-.* is empty"):
        parse(pattern).render(CLAIM, samples.VOLUME)


@pytest.mark.parametrize(
    "pattern",
    ["${.PVC.labels.none}", "${.PVC.namespace}/${.PVC.annotations.empty}",
     "${.PVC.namespace}/${.PVC.annotations.slash}", "${.PVC.namespace}/${.PVC.annotations.dot}/",
     "a${.PVC.annotations.blank}b", "${.PVC.namespace}/${.PVC.labels.none:-${.PVC.labels.no}}"],
)  # fmt: skip
def test_missing_key(pattern: str) -> None:
    """A missing or empty key without a fallback is refused: the result must not be the namespace's directory."""
    with pytest.raises(InvalidPath, match="which the pathPattern needs"):
        parse(pattern).render(CLAIM, samples.VOLUME)


@pytest.mark.parametrize(
    "value",
    [
        "../..",
        "..",
        "/..",
        "a/../../b",
        "a/..",
        "./../a",
        ".",
        "/",
        "./.",
        ".provisioner",
        "/.provisioner/trash/x",
        "./.provisioner",
    ],
)
@pytest.mark.parametrize("pattern", ["${.PVC.annotations.dir}", "${.PVC.annotations.dir}/${.PVC.name}"])
def test_traversal(pattern: str, value: str) -> None:
    """No value of an annotation leads out of the export, to its root or into the ledger."""
    with pytest.raises(InvalidPath):
        parse(pattern).render(samples.claim(annotations={"dir": value}), samples.VOLUME)


@pytest.mark.parametrize("pattern", [DEFAULT_PATTERN, f"/{DEFAULT_PATTERN}/"])
def test_default_is_shortened(pattern: str) -> None:
    """The default pattern keeps the whole volume name if the directory would exceed 255 bytes."""
    claim = samples.claim(namespace="n" * 63, name="c" * 253)
    (name,) = parse(pattern).render(claim, "pvc-" + "0" * 36)
    assert len(name) == 255
    assert name.startswith("n" * 63 + "-ccc")
    assert name.endswith("-pvc-" + "0" * 36)


def test_users_pattern_is_not_shortened() -> None:
    """A user's pattern that gets too long is refused: a shortened name can be another volume's."""
    with pytest.raises(InvalidPath, match="255 are allowed"):
        parse("${.PVC.namespace}-${.PVC.name}").render(
            samples.claim(namespace="n" * 63, name="c" * 253), samples.VOLUME
        )


VARIABLES = st.sampled_from(
    [
        "${.PVC.namespace}",
        "${.PVC.name}",
        "${.PV.name}",
        "${.PVC.labels.l}",
        "${.PVC.annotations.a}",
        "${pv.metadata.name}",
    ]
)
FALLBACKS = st.sampled_from(
    ["", "/", ".", "..", "a", "/a/", "${.PVC.name}", "${.PVC.labels.none:-}", "${.PVC.labels.l}/"]
)
PIECES = st.one_of(
    VARIABLES,
    st.builds("{1:.{0}}:-{2}}}".format, VARIABLES.map(lambda text: len(text) - 1), VARIABLES, FALLBACKS),
    FALLBACKS.map("${{.PVC.annotations.none:-{}}}".format),
    st.sampled_from(["/", "//", "..", ".", "./", ".provisioner", "$", "{", "}", "${", "{{", "$.PVC.name"]),
    st.text(st.characters(exclude_characters="${}"), max_size=5),
)
PATTERNS = st.lists(PIECES, min_size=1, max_size=6).map("".join).filter(bool)
VALUES = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from(["..", ".", "/", "", "a", " ", ".provisioner", "\0", "ü"]), max_size=5).map("".join),
    st.sampled_from(["ü" * 200, "a" * 253, "a" * 100_000]),
)


@given(PATTERNS, VALUES, VALUES, VALUES, VALUES)
@example(DEFAULT_PATTERN, "n" * 63, "c" * 253, "", "")
@example("${.PVC.namespace}/${.PVC.annotations.a}", "shop", "data", "", "/")
def test_never_out_of_the_export(pattern: str, namespace: str, name: str, label: str, annotation: str) -> None:
    """Whatever an admin and a tenant write, the directory is strictly below the export, outside the ledger, of legal
    names, and no shallower than the pattern; or the refusal fits into an event.
    """
    claim = samples.claim(namespace=namespace, name=name, labels={"l": label}, annotations={"a": annotation})
    try:
        template = parse(pattern)
        path = template.render(claim, samples.VOLUME)
    except (InvalidPath, InvalidSettings) as exc:
        refusal = str(exc)
    else:
        refusal = ""
    assert len(refusal) < 800
    if refusal:
        return
    absolute = "/export/" + "/".join(path)
    assert posixpath.normpath(absolute) == absolute
    assert absolute.startswith("/export/")
    assert absolute != "/export/"
    assert len(path) >= len(template.segments)
    assert not path[0].startswith(".provisioner")
    assert all(1 <= len(part.encode()) <= 255 for part in path)
    assert all("\0" not in part and "\n" not in part and "/" not in part for part in path)


@given(st.text(st.sampled_from("${}:-/. .PVCname"), max_size=60))
def test_any_text(pattern: str) -> None:
    """Any text is a pattern or is refused with a message."""
    with contextlib.suppress(InvalidSettings):
        parse(pattern)

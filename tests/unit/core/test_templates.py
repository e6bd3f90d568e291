"""core.templates."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidPath, InvalidSettings
from provisioner.core.locations import Path
from provisioner.core.templates import DEFAULT, DEFAULT_PATTERN, parse
from tests.unit.core import samples

CLAIM = samples.claim(labels={"app": "web"}, annotations={"nfs.io/path": "team/a", "empty": ""})


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
    ],
)
def test_rendered(pattern: str, path: Path) -> None:
    """A pattern gives the directory that its documentation says, in nfs-subdir's and in csi-driver-nfs's spelling."""
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
        ("${.pvc.name}", "unknown"),
        ("${ .PVC.name }", "unknown"),
    ],
)
def test_unusable_pattern(pattern: str, problem: str) -> None:
    """A pattern that cannot be used is refused, and the words name the piece."""
    with pytest.raises(InvalidSettings, match=problem):
        parse(pattern)


@pytest.mark.parametrize("pattern", ["${.PVC.labels.none}", "${.PVC.namespace}/${.PVC.annotations.empty}"])
def test_missing_key(pattern: str) -> None:
    """A missing key without a fallback refuses the claim, an empty one too: it must not become the namespace's own."""
    with pytest.raises(InvalidPath, match="which the pathPattern needs"):
        parse(pattern).render(CLAIM, samples.VOLUME)


@pytest.mark.parametrize(
    "value", ["../..", "..", "/etc", "a/../../b", ".", "a//b", "a/", ".provisioner", ".provisioner/trash/x"]
)
@pytest.mark.parametrize("pattern", ["${.PVC.annotations.dir}", "${.PVC.annotations.dir}/${.PVC.name}"])
def test_traversal(pattern: str, value: str) -> None:
    """No annotation's value leads out of the export, to its root or into the ledger."""
    with pytest.raises(InvalidPath):
        parse(pattern).render(samples.claim(annotations={"dir": value}), samples.VOLUME)


def test_default_is_shortened() -> None:
    """The default pattern keeps the volume's name whole where names of legal length would pass 255 bytes."""
    claim = samples.claim(namespace="n" * 63, name="c" * 253)
    (name,) = DEFAULT.render(claim, "pvc-" + "0" * 36)
    assert len(name) == 255
    assert name.startswith("n" * 63 + "-ccc")
    assert name.endswith("-pvc-" + "0" * 36)


def test_users_pattern_is_not_shortened() -> None:
    """A user's own pattern that is too long is refused: a cut name may be another volume's."""
    with pytest.raises(InvalidPath, match="255 are allowed"):
        parse("${.PVC.namespace}-${.PVC.name}").render(
            samples.claim(namespace="n" * 63, name="c" * 253), samples.VOLUME
        )


PIECES = st.one_of(
    st.sampled_from(
        ["${.PVC.namespace}", "${.PVC.name}", "${.PV.name}", "${.PVC.labels.l}", "${.PVC.annotations.a}",
         "${pv.metadata.name}", "${.PVC.labels.l:-..}", "${.PVC.annotations.none:-/}", "/", "..", ".", ".provisioner"]
    ),
    st.text(st.characters(exclude_characters="${}"), max_size=5),
)  # fmt: skip
PATTERNS = st.lists(PIECES, min_size=1, max_size=6).map("".join).filter(bool)
VALUES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(["..", ".", "/", "../..", "", "a/b", ".provisioner", "\0", "ü" * 200, "a" * 253]),
)


@given(PATTERNS, VALUES, VALUES, VALUES, VALUES)
@example(DEFAULT_PATTERN, "n" * 63, "c" * 253, "", "")
def test_never_out_of_the_export(pattern: str, namespace: str, name: str, label: str, annotation: str) -> None:
    """Whatever a tenant writes, the directory is strictly below the export, outside the ledger, of legal names."""
    claim = samples.claim(namespace=namespace, name=name, labels={"l": label}, annotations={"a": annotation})
    try:
        path = parse(pattern).render(claim, samples.VOLUME)
    except InvalidPath:
        return
    absolute = "/export/" + "/".join(path)
    assert posixpath.normpath(absolute) == absolute
    assert absolute.startswith("/export/")
    assert absolute != "/export/"
    assert not path[0].startswith(".provisioner")
    assert all(1 <= len(part.encode()) <= 255 for part in path)
    assert all("\0" not in part and "\n" not in part and "/" not in part for part in path)

"""core.objects: what is read off claims and volumes."""

from __future__ import annotations

import pytest

from provisioner.core import names
from provisioner.core.objects import Claim, ClaimSpec, Volume
from tests.unit.core import samples


@pytest.mark.parametrize("key", names.PROVISIONER_ANNOTATIONS)
def test_claim_is_ours(key: str) -> None:
    """Either of the cluster's two annotations hands a claim to us."""
    assert samples.claim(provisioner="", annotations={key: samples.US}).is_for(samples.US)


@pytest.mark.parametrize("annotations", [{}, {names.PROVISIONER_ANNOTATIONS[0]: "other/one"}])
def test_claim_is_not_ours(annotations: dict[str, str]) -> None:
    """A claim that no annotation hands to us is not ours."""
    assert not samples.claim(provisioner="", annotations=annotations).is_for(samples.US)


@pytest.mark.parametrize(
    ("annotation", "spec", "name"), [("old", "new", "old"), ("", "new", "new"), ("", None, ""), ("old", None, "old")]
)
def test_class_name(annotation: str, spec: str | None, name: str) -> None:
    """The old annotation names a claim's class before its spec does."""
    annotations = {names.CLASS_ANNOTATION: annotation} if annotation else {}
    claim = samples.claim(annotations=annotations, spec=ClaimSpec(storage_class_name=spec))
    assert claim.class_name == name


def test_sizes_and_key() -> None:
    """Sizes are read as written, nothing where there is none, and a claim's key is NAMESPACE/NAME."""
    assert (samples.claim().requested, samples.claim().key, samples.claim().uid) == ("1Gi", "shop/data", samples.UID)
    assert samples.volume().capacity == "1Gi"
    assert Claim().requested == Volume().capacity == ""


def test_volume_is_ours() -> None:
    """A volume is by the provisioner that its annotation names."""
    assert samples.volume().is_by(samples.US)
    assert not Volume().is_by(samples.US)


def test_names() -> None:
    """Volumes and classes go by their metadata's name."""
    assert samples.volume().name == samples.VOLUME
    assert samples.storage_class().name == "nfs"
